// SPDX-License-Identifier: Apache-2.0
// What the page's tests and pictures share: the receiver, messages for it, the browser.
import {spawn} from "node:child_process";
import {mkdtempSync, readFileSync, openSync, rmSync} from "node:fs";
import {tmpdir} from "node:os";
import {join, resolve} from "node:path";
import {createRequire} from "node:module";

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

export async function until(what, condition, timeout = 30000) {
  const end = Date.now() + timeout;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error("never: " + what);
    await sleep(25);
  }
}

export function check(condition, what, ...more) {
  if (!condition) throw new Error(what + (more.length ? ": " + more.map((m) => JSON.stringify(m)).join(", ") : ""));
}

export function seed(more) {
  return {
    direction: 1, timing_ms: Date.now(), remote_ip: "10.0.0.1", remote_port: 4711, method: "GET", path: "/", status_code: 0,
    version: "1.1", headers: {Host: ["shop.example"]}, body: "", ...more,
  };
}

// A request and its response, as a loader at the server's end writes them.
export function exchange(n, o = {}) {
  const ip = `10.0.${Math.floor(n / 250) % 250}.${(n % 250) + 1}`, port = 1024 + (n % 60000);
  const time = o.time || Date.now(), took = o.took || 5000, method = o.method || "GET", path = o.path || "/item/" + n;
  const host = o.host || "shop.example", body = o.requestBody || "", answer = o.body || "";
  const common = {interface: "eth0", node: o.node || "node-a", pid: 42, comm: o.comm || "server", body_truncated: false, gap_bytes: 0};
  const request = seed({
    timing_ms: time, remote_ip: ip, remote_port: port, method, path, headers: {Host: [host], "User-Agent": ["test/1"], ...o.requestHeaders}, body,
    src_ip: ip, src_port: port, dst_ip: "10.9.0.1", dst_port: 8080, ...common, seq: 2 * n, body_bytes: Buffer.byteLength(body), ...o.request,
  });
  const response = seed({
    direction: 0, timing_ms: time + Math.floor(took / 1000), remote_ip: ip, remote_port: port, method: "", path: "", status_code: o.status || 200,
    headers: {"Content-Type": ["application/json"], ...o.headers}, body: answer, src_ip: "10.9.0.1", src_port: 8080, dst_ip: ip, dst_port: port,
    ...common, seq: 2 * n + 1, body_bytes: Buffer.byteLength(answer), latency_us: took, request: {method, path, host}, ...o.response,
  });
  return [request, response];
}

export class Receiver {
  static program = "";
  static live = new Set();

  static async start(...flags) {
    const r = new Receiver();
    r.dir = mkdtempSync(join(tmpdir(), "ebpfdump-page-"));
    r.out = join(r.dir, "out");
    const err = openSync(join(r.dir, "err"), "w");
    const listen = flags.some((f) => f.startsWith("--listen=")) ? [] : ["--listen=127.0.0.1:0"];
    r.process = spawn(Receiver.program, [...listen, ...flags], {stdio: ["ignore", openSync(r.out, "w"), err]});
    Receiver.live.add(r);
    r.ended = new Promise((done) => r.process.on("exit", done));
    r.port = await until("the receiver listens", () => {
      const m = /listening on port (\d+)/.exec(readFileSync(join(r.dir, "err"), "utf8"));
      return m && Number(m[1]);
    });
    r.url = `http://127.0.0.1:${r.port}`;
    return r;
  }
  async post(messages, headers = {}) {
    const body = messages.map((m) => JSON.stringify(m) + "\n").join("");
    const answer = await fetch(this.url + "/ingest", {method: "POST", body, headers: {"Content-Type": "application/x-ndjson", ...headers}});
    check(answer.status === 200, "POST", answer.status, await answer.text());
  }
  async stop(signal = "SIGTERM") {
    this.process.kill(signal);
    const code = await this.ended;
    Receiver.live.delete(this);
    rmSync(this.dir, {recursive: true, force: true});
    return code;
  }
}

export async function browser(modules) {
  const require = createRequire(join(resolve(modules), "node_modules", "x.js"));
  const {chromium} = require("playwright-core");
  return chromium.launch({executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"]});
}
