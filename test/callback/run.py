#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: run.py BUILD [CASE...]

The callback against receivers that misbehave. Each case has a server of its own and a driver (driver.c), which is the
sink without a capture in front; some have the loader itself, and receivers that are not ours. After everything that
is done the ledger must add up. Cases run side by side. Ends with `N passed, N failed`.
"""
import concurrent.futures
import hashlib
import hmac
import json
import os
import pathlib
import random
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

sys.dont_write_bytecode = True
from server import Answer, Server, free_port, ok

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DROPS = ("full", "closed", "shutdown", "refused", "damaged")
# When a fault is over, news must arrive within 5 s. The rest is for a busy machine; one that stands still is not counted.
LIVELY = 5 + 3
PATIENCE = 60
CASES = {}


class Failed(Exception):
    pass


def check(condition, *what):
    if not condition:
        raise Failed(" ".join(str(w) for w in what))


def case(f):
    CASES[f.__name__] = f
    return f


def until(condition, what, seconds=PATIENCE):
    """How long it took."""
    start = last = time.monotonic()
    left = seconds
    while not condition():
        if left < 0:
            raise Failed(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.02)
        now = time.monotonic()
        # a look takes some ms: what takes longer is the machine
        left, last = left - min(now - last, 0.25), now
    return time.monotonic() - start


class Driver:
    def __init__(self, env, url, *flags, first=0, prefix=()):
        self.log = open(env.folder / f"driver-{time.monotonic_ns()}.log", "w+b")
        command = [*prefix, str(env.driver), "--callback", url, "--node", str(first), *map(str, flags)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                                        text=True, env=dict(os.environ, no_proxy="", http_proxy="http://127.0.0.1:9"))
        env.drivers.append(self)
        self.last = {}

    def command(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        check(line, f"'{text}': the driver ended: {self.logged()[-500:]}")
        return json.loads(line)

    def write(self, n, size=700, lanes=16):
        return self.command(f"write {n} {size} {lanes}")["number"]

    def stats(self):
        return self.adds_up(self.command("stats"))

    def adds_up(self, s):
        left = s["emitted"] + s["recovered"]
        right = s["delivered"] + s["queued"] + s["spooled"] + sum(s[d] for d in DROPS)
        check(left == right, f"the ledger: {left} is not {right}:", s)
        check(all(v >= 0 for v in s.values()), "less than nothing:", s)
        for key, value in s.items():
            if not key.startswith(("queued", "spooled", "in_flight", "waiting", "up", "oldest", "rss")):
                check(value >= self.last.get(key, 0), f"{key} went back")
        check(s["refused"] == sum(v for k, v in s.items() if k.startswith("status_")), "refused by status:", s)
        self.last = s
        return s

    def delivered(self, n, seconds=PATIENCE):
        return until(lambda: self.stats()["delivered"] >= n, lambda: f"{n} delivered: {self.last}", seconds)

    def end(self):
        """Closes its input; the stats after the flush."""
        self.process.stdin.close()
        s = json.loads(self.process.stdout.readline())
        check(self.process.wait(PATIENCE) == 0, f"exit status {self.process.returncode}: {self.logged()[-1000:]}")
        s = self.adds_up(s)
        check(s["queued"] == 0 and s["in_flight"] == 0 and s["waiting"] == 0, "left at the end:", s)
        return s

    def kill(self):
        self.process.kill()
        self.process.wait()

    def logged(self):
        self.log.flush()
        return pathlib.Path(self.log.name).read_text(errors="replace")


class Env:
    """What one case has."""

    def __init__(self, build, folder, certificates):
        self.build, self.folder, self.certificates = build, folder, certificates
        self.driver = build / "test/callback/driver"
        self.loader = build / "ebpfdump-loader"
        self.drivers, self.servers, self.processes = [], [], []

    def server(self, *args, **more):
        s = Server(*args, **more)
        self.servers.append(s)
        return s

    def start(self, server, *flags, path="/ingest", **more):
        scheme = "https" if server.tls else "http"
        return Driver(self, f"{scheme}://{server.host}:{server.port}{path}", *flags, **more)

    def popen(self, command, **more):
        p = subprocess.Popen([str(c) for c in command], **more)
        self.processes.append(p)
        return p

    def done(self):
        for d in self.drivers:
            d.kill()
            d.log.close()
        for p in self.processes:
            if p.poll() is None:
                p.terminate()
                try:
                    p.wait(10)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
        for s in self.servers:
            s.done()


def all_once(server, n, first=0):
    numbers = server.numbers()
    check(sorted(numbers) == list(range(first + 1, first + n + 1)),
          f"{len(numbers)} messages, {len(set(numbers))} different ones, not {n}")


def recovers(driver, server, first, n=50, within=LIVELY):
    """The fault is over: fresh messages arrive soon, and then all that went before."""
    last = driver.write(n)
    fresh = set(range(last - n + 1, last + 1))
    took = until(lambda: fresh <= set(server.numbers()), lambda: f"fresh messages: {driver.stats()}\n{driver.logged()[-600:]}",
                 within)
    driver.delivered(first + n)
    return took


# ---- the plain way ----

@case
def plain(env):
    server = env.server()
    d = env.start(server, path="/ingest?token=geheim")
    d.write(2000)
    d.delivered(2000)
    s = d.end()
    all_once(server, 2000)
    check(s["requests"] == 2000 and server.connections <= 4, f"{server.connections} connections")
    r = server.accepted[0]
    check(r.line == "POST /ingest?token=geheim HTTP/1.1", r.line)
    check(r.headers["content-type"] == "application/json" and not r.body.endswith(b"\n"), r.headers)
    check(r.headers["user-agent"].startswith("ebpfdump-loader/"), r.headers)
    check(len({r.headers["idempotency-key"] for r in server.accepted}) == 2000, "keys")
    check("expect" not in r.headers, r.headers)
    check("geheim" not in d.logged(), "the query is in the log")


@case
def order(env):
    """Messages of a connection arrive in order, whatever the receiver's latencies."""
    server = env.server(lambda r: Answer(delay=random.choice((0, 0, 0.001, 0.01))))
    d = env.start(server, "--callback-concurrency", 8)
    d.write(3000, 700, 13)
    d.delivered(3000)
    d.end()
    last = {}
    for r in server.accepted:
        for m in r.messages():
            check(m["seq"] > last.get(m["remote_port"], 0), f"{m['seq']} behind {last.get(m['remote_port'])}")
            last[m["remote_port"]] = m["seq"]
    check(len(last) == 13, last)


@case
def batches(env):
    key = env.folder / "key"
    key.write_bytes(b"0123456789abcdef0123456789abcdef\n")
    fail = {"next": 3}

    def behave(r):
        want = "sha256=" + hmac.new(key.read_bytes().strip(), r.body, hashlib.sha256).hexdigest()
        if r.headers.get("x-ebpfdump-signature") != want or r.headers.get("content-encoding") != "gzip":
            return Answer(400)
        if r.headers["content-type"] != "application/x-ndjson":
            return Answer(415)
        fail["next"] -= 1
        return Answer(503) if fail["next"] == 0 else Answer()

    server = env.server(behave)
    d = env.start(server, "--callback-batch-messages", 100, "--callback-batch-wait", "300ms", "--callback-gzip",
                  "--callback-hmac-file", key, "--callback-concurrency", 2)
    d.write(5050)
    d.delivered(5050)
    s = d.end()
    all_once(server, 5050)
    check(s["requests"] <= 60 and s["retry_server"] == 1, s)
    check(s["sent_bytes"] < 5050 * 300, "not packed:", s)
    # what is sent again is the same, under the same key
    seen = {}
    for r in server.seen:
        check(seen.setdefault(r.headers["idempotency-key"], r.body) == r.body, "one key for two bodies")
    check(len(server.seen) == len(seen) + 1, len(server.seen), len(seen))


@case
def batch_bytes(env):
    server = env.server()
    d = env.start(server, "--callback-batch-messages", 1000, "--callback-batch-bytes", "64K", "--callback-batch-wait", "200ms")
    d.write(1000, 5000)
    d.write(3, 200000)
    d.delivered(1003)
    d.end()
    all_once(server, 1003)
    for r in server.accepted:
        check(len(r.body) <= 65536 or len(r.messages()) == 1, len(r.body))


@case
def documented_signatures(env):
    """The examples in docs/CALLBACK.md, on what was really sent."""
    key, body = env.folder / "key", env.folder / "body"
    key.write_bytes(b"correct horse battery staple\n")
    server = env.server()
    d = env.start(server, "--callback-hmac-file", key)
    d.write(1)
    d.delivered(1)
    d.end()
    body.write_bytes(server.accepted[0].body)
    done = subprocess.run([HERE / "verify.py", ROOT / "docs/CALLBACK.md", key, body, server.accepted[0].headers["x-ebpfdump-signature"]],
                          capture_output=True, text=True, check=False)
    check(done.returncode == 0 and done.stdout.count("ok ") == 3, done.stdout, done.stderr)


# ---- faults ----

@case
def refused_connection(env):
    server = env.server()
    server.close()
    d = env.start(server)
    d.write(500)
    time.sleep(12)
    s = d.stats()
    check(s["delivered"] == 0 and s["queued"] == 500 and s["retry_connect"] > 0 and not s["up"], s)
    check(s["requests"] < 60, "it hammers:", s)
    server.open()
    recovers(d, server, 500)
    d.end()
    all_once(server, 550)
    check(d.logged().count("nothing gets through") == 1 and d.logged().count("answers again") == 1, d.logged())


@case
def reset_before_body(env):
    state = {"fault": True}
    server = env.server(early=lambda: Answer(fault="reset") if state["fault"] else None)
    d = env.start(server)
    d.write(300)
    until(lambda: d.stats()["retry_reset"] > 8, "resets")
    state["fault"] = False
    recovers(d, server, 300)
    d.end()
    all_once(server, 350)


@case
def reset_after_body(env):
    state = {"fault": True}
    server = env.server(lambda r: Answer(fault="reset" if state["fault"] else None))
    d = env.start(server)
    d.write(300)
    until(lambda: d.stats()["retry_reset"] > 8, "resets")
    state["fault"] = False
    recovers(d, server, 300)
    d.end()
    all_once(server, 350)


@case
def resets_now_and_then(env):
    server = env.server(lambda r: Answer(fault="reset" if random.random() < 0.05 else None))
    d = env.start(server)
    d.write(2000)
    d.delivered(2000)
    d.end()
    all_once(server, 2000)


@case
def never_answering(env):
    state = {"fault": True}
    server = env.server(lambda r: Answer(fault="silent" if state["fault"] else None))
    d = env.start(server)
    d.write(300)
    time.sleep(6)
    check(d.stats()["delivered"] == 0, d.last)
    state["fault"] = False
    # those that hang go on hanging; the default time-out is 10 s
    recovers(d, server, 300)
    d.end()
    all_once(server, 350)


@case
def never_answering_long(env):
    """Hanging requests use up whatever may be out, long before they time out."""
    state = {"fault": True}
    server = env.server(lambda r: Answer(fault="silent" if state["fault"] else None))
    d = env.start(server, "--callback-timeout", "10m", "--callback-concurrency", 1)
    d.write(300)
    time.sleep(20)
    check(d.stats()["retry_timeout"] > 0 and d.last["in_flight"] <= 7, d.last)
    state["fault"] = False
    last = d.write(50)
    until(lambda: set(range(last - 49, last + 1)) <= set(server.numbers()), lambda: f"fresh messages: {d.stats()}", LIVELY)
    # those that hang still do, and their messages wait for them
    until(lambda: d.stats()["queued"] <= d.last["in_flight"], lambda: d.last)
    d.kill()


@case
def errors_for_a_while(env):
    state = {"status": 500}
    server = env.server(lambda r: Answer(state["status"], body=b"out of order"))
    d = env.start(server)
    d.write(400)
    time.sleep(20)
    s = d.stats()
    check(s["queued"] == 400 and s["retry_server"] == s["requests"] and s["requests"] < 60, s)
    state["status"] = 200
    recovers(d, server, 400)
    d.end()
    all_once(server, 450)
    check("status 500: out of order" in d.logged(), d.logged())


@case
def one_that_always_fails(env):
    """Holds up nothing else, not even at a concurrency of one."""
    server = env.server(lambda r: Answer(500 if r.messages()[0]["seq"] == 5 else 200))
    d = env.start(server, "--callback-concurrency", 1, "--flush-timeout", "1s")
    d.write(500)
    d.delivered(499)
    until(lambda: d.stats()["retry_server"] > 2, "it is tried again")
    check(d.stats()["up"] and d.last["waiting"] + d.last["in_flight"] == 1, d.last)
    check("nothing gets through" not in d.logged(), d.logged())
    s = d.end()
    check(s["shutdown"] == 1, s)


@case
def too_many_requests(env):
    state = {"until": 0}

    def behave(r):
        if not state["until"]:
            state["until"] = r.at + 3
            return Answer(429, [("Retry-After", "3")])
        return Answer()

    server = env.server(behave)
    d = env.start(server, "--callback-concurrency", 1)
    d.write(200)
    d.delivered(200)
    first = server.seen[1].at
    check(first >= state["until"] - 0.05, f"{state['until'] - first:.2f} s too early")
    d.end()
    all_once(server, 200)


@case
def unauthorized(env):
    server = env.server(lambda r: Answer(401, body=b"who are you? \x1b[31m\n" + r.headers.get("authorization", "").encode()))
    headers = env.folder / "headers"
    headers.write_text("Authorization: Bearer topsecret-token-1\nX-Extra: 7\n")
    d = env.start(server, "--callback-header-file", headers)
    d.write(100)
    until(lambda: d.stats()["refused"] == 100, lambda: d.last)
    s = d.last
    check(s["status_401"] == 100 and s["requests"] == 100 and not s["up"], s)
    check(d.logged().count("status 401") == 1 and "who are you?" in d.logged(), d.logged())
    check("topsecret" not in d.logged() and "\x1b" not in d.logged(), "the log shows it:", d.logged())
    check(server.seen[0].headers["authorization"] == "Bearer topsecret-token-1" and server.seen[0].headers["x-extra"] == "7", "")
    check("topsecret" not in pathlib.Path(f"/proc/{d.process.pid}/cmdline").read_text(), "ps")
    # it rotates: none is lost
    server.behave = lambda r: Answer(200 if r.headers["authorization"] == "Bearer topsecret-token-2" else 401)
    fresh = env.folder / "headers.new"
    fresh.write_text("Authorization: Bearer topsecret-token-2\n")
    fresh.rename(headers)
    d.write(100)
    d.delivered(100)
    check(d.end()["refused"] == 100, d.last)


@case
def secrets_missing(env):
    """Nothing goes out unsigned."""
    key = env.folder / "key"
    server = env.server()
    d = env.start(server, "--callback-hmac-file", key)
    d.write(50)
    time.sleep(2)
    check(d.stats()["requests"] == 0 and d.last["queued"] == 50, d.last)
    key.write_text("0123456789abcdef\n")
    d.delivered(50)
    d.end()
    check(all("x-ebpfdump-signature" in r.headers for r in server.seen), "unsigned")


@case
def too_large(env):
    server = env.server(lambda r: Answer(413 if len(r.body) > 10000 else 200))
    d = env.start(server)
    d.write(10, 20000)
    d.write(10, 700)
    until(lambda: d.stats()["delivered"] == 10 and d.last["refused"] == 10, lambda: d.last)
    check(d.end()["status_413"] == 10, d.last)


@case
def redirect(env):
    other = env.server()
    server = env.server(lambda r: Answer(307, [("Location", f"http://127.0.0.1:{other.port}/ingest")]))
    d = env.start(server)
    d.write(20)
    until(lambda: d.stats()["refused"] == 20, lambda: d.last)
    check(d.end()["status_307"] == 20 and not other.seen and other.connections == 0, "it was followed")
    check("redirects are not followed" in d.logged(), d.logged())


@case
def huge_answers(env):
    """Endless ones, good and bad: taken for what their status says, and not read."""
    state = {"status": 200}
    server = env.server(lambda r: Answer(state["status"], body=b"x" * 65536, endless=True))
    d = env.start(server)
    rss = d.stats()["rss"]
    d.write(40)
    d.delivered(40)
    state["status"] = 400
    d.write(40)
    until(lambda: d.stats()["refused"] == 40, lambda: d.last)
    server.behave = lambda r: Answer(200, [(f"X-{i}", "y" * 8000) for i in range(100)])
    d.write(10)
    until(lambda: d.stats()["retry_other"] + d.last["retry_reset"] + d.last["delivered"] > 40, lambda: d.last)
    server.behave = ok
    d.delivered(50)
    check(d.stats()["rss"] - rss < 16 << 20, f"grew by {d.last['rss'] - rss}")
    check(len(max(d.logged().splitlines(), key=len)) < 1000, "a long line in the log")
    d.end()


@case
def slow_reader(env):
    server = env.server(read_slowly=20000)
    d = env.start(server, "--callback-batch-messages", 500, "--callback-batch-wait", "100ms")
    d.write(1000)
    d.delivered(1000)
    check(d.end()["requests"] < 20, d.last)
    all_once(server, 1000)


# ---- TLS ----

def context(env, name, client=False):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(env.certificates / f"{name}.pem", env.certificates / f"{name}.key")
    if client:
        c.verify_mode = ssl.CERT_REQUIRED
        c.load_verify_locations(env.certificates / "ca.pem")
    return c


def tls_fault(env, fault, flags=("--callback-ca", "ca.pem")):
    """Nothing is sent while it lasts; when the right certificate is there, all is."""
    server = env.server(**fault)
    if not server.tls:
        server.tls = True  # for the scheme
    flags = [env.certificates / f if f.endswith((".pem", ".key")) else f for f in flags]
    d = env.start(server, *flags)
    d.write(100)
    until(lambda: "nothing gets through" in d.logged(), lambda: d.stats())
    check(not server.seen and d.stats()["delivered"] == 0, "it was sent")
    server.close()
    server.tls = context(env, "good")
    server.garbage = None
    server.open()
    recovers(d, server, 100)
    d.end()
    all_once(server, 150)
    return d


@case
def tls_unknown_authority(env):
    d = tls_fault(env, {"tls": context(env, "stranger")})
    check(d.last["retry_tls"] > 0, d.last)


@case
def tls_expired(env):
    check("expired" in tls_fault(env, {"tls": context(env, "expired")}).logged(), "the log does not say why")


@case
def tls_wrong_host(env):
    tls_fault(env, {"tls": context(env, "elsewhere")})


@case
def tls_garbage(env):
    tls_fault(env, {"garbage": b"HTTP/1.1 200 OK\r\n\r\n"})


@case
def tls_client_certificate(env):
    c = env.certificates
    server = env.server(tls=context(env, "good", client=True))
    without = env.start(server, "--callback-ca", c / "ca.pem", "--flush-timeout", "100ms")
    without.write(20)
    until(lambda: sum(v for k, v in without.stats().items() if k.startswith("retry_")) >= 2, "it is refused")
    check(without.end()["delivered"] == 0 and not server.seen, "without a certificate")
    d = env.start(server, "--callback-ca", c / "ca.pem", "--callback-cert", c / "client.pem", "--callback-key", c / "client.key")
    d.write(20)
    d.delivered(20)
    d.end()


# ---- names ----

def with_hosts(hosts):
    """A command under which /etc/hosts is this file."""
    return ("unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts))


@case
def name_gone(env):
    hosts = env.folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    server = env.server()
    d = Driver(env, f"http://receiver.sink.invalid:{server.port}/", prefix=with_hosts(hosts))
    d.write(100)
    until(lambda: d.stats()["retry_resolve"] >= 3, lambda: d.last)
    hosts.write_text("127.0.0.1 localhost receiver.sink.invalid\n")
    recovers(d, server, 100)
    d.end()
    all_once(server, 150)


@case
def address_changing(env):
    hosts = env.folder / "hosts"
    hosts.write_text("127.0.0.2 receiver.sink.invalid\n")
    old = env.server(host="127.0.0.2")
    d = Driver(env, f"http://receiver.sink.invalid:{old.port}/", prefix=with_hosts(hosts))
    d.write(100)
    d.delivered(100)
    new = env.server(host="127.0.0.3", port=old.port)
    old.close()
    d.write(100)
    hosts.write_text("127.0.0.3 receiver.sink.invalid\n")
    recovers(d, new, 200)
    d.end()
    check(sorted(old.numbers() + new.numbers()) == list(range(1, 251)), "messages")


# ---- room ----

MIB = 1 << 20


@case
def full_drop_oldest(env):
    server = env.server()
    server.close()
    d = env.start(server, "--queue-bytes", "4M", "--line-bytes", "2K")
    d.write(20000, 1000)
    s = d.stats()
    check(s["full"] > 10000 and s["queued"] * 1000 > 2.5 * MIB and s["rss"] < 36 * MIB, s)
    server.open()
    d.delivered(s["queued"])
    d.end()
    numbers = sorted(server.numbers())
    # all of the newest, and nothing of the oldest
    newest = s["queued"] * 3 // 4
    check(numbers[-newest:] == list(range(20000 - newest + 1, 20001)), "not the newest")
    check(len(numbers) == s["queued"], len(numbers), s)


@case
def full_drop_newest(env):
    server = env.server()
    server.close()
    d = env.start(server, "--queue-bytes", "4M", "--line-bytes", "2K", "--when-full", "drop-newest")
    d.write(20000, 1000)
    s = d.stats()
    check(s["full"] > 10000 and s["queued"] * 1000 > 2.5 * MIB, s)
    server.open()
    d.delivered(s["queued"])
    d.end()
    numbers = sorted(server.numbers())
    oldest = s["queued"] * 3 // 4
    check(numbers[:oldest] == list(range(1, oldest + 1)), "not the oldest")


@case
def dead_receiver_memory(env):
    """1 GiB is offered; what it takes stays within the limit."""
    server = env.server()
    server.close()
    d = env.start(server, "--flush-timeout", "0")
    for _ in range(16):
        d.write(16384, 4096, 64)
    s = d.stats()
    check(s["emitted"] == 1 << 18 and s["rss"] <= (32 + 32) * MIB, s)
    s = d.end()
    check(s["shutdown"] + s["full"] == 1 << 18, s)


# ---- the spool ----

def spool_flags(env, size="256M", queue="1M"):
    return ("--spool-dir", env.folder / "spool", "--spool-bytes", size, "--queue-bytes", queue, "--line-bytes", "2K")


@case
def spool_outage(env):
    server = env.server()
    server.close()
    d = env.start(server, *spool_flags(env))
    d.write(20000, 700, 7)
    s = d.stats()
    check(s["full"] == 0 and s["spooled"] > 15000 and s["queued"] > 500, s)
    server.open()
    time.sleep(0.5)
    d.write(500, 700, 7)
    d.delivered(20500)
    s = d.end()
    check(s["spooled"] == 0, s)
    all_once(server, 20500)
    check(not any("x-ebpfdump-again" in r.headers for r in server.accepted), "marked without reason")
    # what was not tried before the outage is in order
    last, late = {}, 0
    for m in (m for r in server.accepted for m in r.messages()):
        late += m["seq"] < last.get(m["remote_port"], 0)
        last[m["remote_port"]] = max(m["seq"], last.get(m["remote_port"], 0))
    check(late <= 32, f"{late} out of order")


@case
def spool_batches(env):
    server = env.server()
    server.close()
    batches = ("--callback-batch-messages", 200, "--callback-batch-wait", "100ms")
    d = env.start(server, *spool_flags(env), *batches)
    d.write(20000)
    check(d.stats()["spooled"] > 15000, d.last)
    server.open()
    d.delivered(20000)
    d.end()
    all_once(server, 20000)


@case
def spool_full(env):
    server = env.server()
    server.close()
    d = env.start(server, *spool_flags(env, "2M"))
    d.write(20000)
    s = d.stats()
    check(s["full"] > 5000 and s["spooled"] > 1000, s)
    server.open()
    d.delivered(20000 - s["full"])
    s = d.end()
    check(len(server.numbers()) == 20000 - s["full"], s)


@case
def shutdown(env):
    """Without a spool it is counted as dropped; with one, the next life delivers it."""
    server = env.server()
    server.close()
    d = env.start(server, "--flush-timeout", "500ms")
    d.write(300)
    s = d.end()
    check(s["shutdown"] == 300 and "300 messages were not delivered in time: 0 spooled, 300 dropped" in d.logged(), s)
    d = env.start(server, "--flush-timeout", "500ms", *spool_flags(env))
    d.write(300)
    s = d.end()
    check(s["shutdown"] == 0 and s["spooled"] == 300, s)
    server.open()
    d = env.start(server, *spool_flags(env), first=300)
    d.write(10)
    d.delivered(310)
    check(d.end()["recovered"] == 300, d.last)
    all_once(server, 310)


def killed(env, batches):
    """Killed at random points: what was spooled comes out, what comes twice says so."""
    rng = random.Random(os.urandom(8))
    server = env.server()
    server.close()
    flags = [*spool_flags(env), *batches]
    promised, first = set(), 0
    for life in range(6):
        d = env.start(server, *flags, first=first)
        recovered = d.stats()["recovered"]
        check(life < 2 or recovered > 0, "nothing was recovered")
        for _ in range(rng.randrange(1, 4)):
            n = rng.randrange(1, 4000)
            last = d.write(n)
            s = d.stats()
            # those before are in memory, in the first life only
            memory = s["queued"]
            promised |= set(range(max(last - n, first + memory) + 1, last + 1))
            first_of_life = first
            first = max(first, last) if memory == 0 else first
        d.process.stdin.write("write 5000\n")
        d.process.stdin.flush()
        time.sleep(rng.random() * 0.03)
        d.kill()
        first = first_of_life + 100000  # numbers are not used twice
    server.open()
    for _ in range(6):
        d = env.start(server, *flags, first=10_000_000)
        time.sleep(rng.random() * 0.5)
        d.kill()
    d = env.start(server, *flags, first=10_000_000)
    until(lambda: d.stats()["spooled"] == 0, lambda: d.last)
    s = d.end()
    check(s["damaged"] == 0 and s["full"] == 0, s)
    numbers = server.numbers()
    lost = promised - set(numbers)
    check(not lost, f"{len(lost)} of {len(promised)} are lost: {sorted(lost)[:10]}")
    seen, keys = set(), {}
    for r in server.accepted:
        these = {m["seq"] for m in r.messages()}
        check(not these & seen or "x-ebpfdump-again" in r.headers, f"twice and not marked: {sorted(these & seen)[:5]}")
        check(keys.setdefault(r.headers["idempotency-key"], r.body) == r.body, "one key for two bodies")
        if these & seen:
            check(sum(k == r.headers["idempotency-key"] for k in (x.headers["idempotency-key"] for x in server.accepted)) > 1,
                  "twice under two keys")
        seen |= these
    check(len(promised) > 1000, f"only {len(promised)} were promised")


@case
def spool_killed(env):
    killed(env, [])


@case
def spool_killed_batches(env):
    killed(env, ["--callback-batch-messages", 100, "--callback-batch-wait", "50ms"])


@case
def spool_unusable(env):
    """No reason not to go on."""
    (env.folder / "file").write_text("")
    server = env.server()
    d = env.start(server, "--spool-dir", env.folder / "file", "--spool-bytes", "10M")
    d.write(100)
    d.delivered(100)
    check("there is no spool" in d.logged(), d.logged())
    d.end()


# ---- the loader, and receivers that are not ours ----

def capture(env, times=1):
    sys.path.insert(0, str(ROOT / "test/replay"))
    import make
    file = env.folder / "all.rec"
    file.write_bytes(make.capture().pack())
    return file, (ROOT / "test/replay/data/golden.jsonl").read_bytes().splitlines()


def replay(env, file, url, *flags, timeout=PATIENCE):
    r = subprocess.run([env.loader, "--replay", file, "--redact", "none", "--node", "test", "--listen", "", "--callback", url,
                        *map(str, flags)], capture_output=True, timeout=timeout, text=True, check=False)
    check(r.returncode == 0 and r.stdout == "", r)
    return r.stderr


def scrape(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as a:
            return a.status, a.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()
    except OSError:
        return 0, ""


@case
def loader_replay(env):
    """What is delivered is what would have been printed; and the receiver may come late."""
    file, golden = capture(env)
    server = env.server()
    log = replay(env, file, f"http://127.0.0.1:{server.port}/")
    check(sorted(r.body for r in server.accepted) == sorted(golden), "other lines")
    check(f"{len(golden)} messages delivered, 0 dropped" in log, log)
    late = env.server()
    late.close()
    p = env.popen([env.loader, "--replay", file, "--redact", "none", "--node", "test", "--listen", "", "--callback",
                   f"http://127.0.0.1:{late.port}/", "--callback-batch-messages", 50], stderr=subprocess.DEVNULL)
    time.sleep(2)
    late.open()
    check(p.wait(PATIENCE) == 0, "exit status")
    lines = [line for r in late.accepted for line in r.body.splitlines()]
    check(sorted(lines) == sorted(golden), "other lines")
    # nobody comes: a signal ends it, and it says what it cost
    said = env.folder / "dead.log"
    with open(said, "wb") as f:
        dead = env.popen([env.loader, "--replay", file, "--listen", "", "--flush-timeout", "200ms", "--callback",
                          f"http://127.0.0.1:{free_port()}/"], stderr=f)
    until(lambda: "nothing gets through" in said.read_text(), "that it is said")
    time.sleep(1)  # to the file's end
    dead.send_signal(signal.SIGTERM)
    dead.wait(PATIENCE)
    log = said.read_text()
    check(f"0 messages delivered, {len(golden)} dropped" in log, log)


@case
def loader_arguments(env):
    for url in ("ftp://h/", "http://user:geheim@h/", "http://"):
        r = subprocess.run([env.loader, "--callback", url], capture_output=True, text=True, timeout=PATIENCE, check=False)
        check(r.returncode == 2 and "--callback: the URL is not allowed" in r.stderr and "geheim" not in r.stderr, r)


NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    log_format l '$server_protocol $status $http_idempotency_key $request_body_file'; access_log {folder}/access.log l;
    client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    client_body_in_file_only on; client_max_body_size 8m;
    ssl_certificate {certs}/good.pem; ssl_certificate_key {certs}/good.key;
    server {{ listen 127.0.0.1:{tls} ssl http2; location / {{ proxy_pass http://127.0.0.1:{back}; proxy_pass_request_body off; proxy_set_header Content-Length ""; }} }}
    server {{ listen 127.0.0.1:{plain}; location / {{ proxy_pass http://127.0.0.1:{back}; proxy_pass_request_body off; proxy_set_header Content-Length ""; }} }}
    server {{ listen 127.0.0.1:{back}; access_log off; location / {{ return 200; }} }}
}}
"""


@case
def nginx(env):
    """Writes request bodies to files; by HTTP/1.1, and by HTTP/2 with TLS."""
    if not shutil.which("nginx"):
        raise Failed("nginx is missing")
    ports = {name: free_port() for name in ("tls", "plain", "back")}
    conf = env.folder / "nginx.conf"
    conf.write_text(NGINX.format(folder=env.folder, certs=env.certificates, **ports))
    env.folder.chmod(0o755)
    env.popen(["nginx", "-c", conf, "-e", env.folder / "error.log"], stderr=subprocess.DEVNULL)

    def there():
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{ports['plain']}/", timeout=2).close()
            return True
        except OSError:
            return False

    until(there, "nginx")
    file, golden = capture(env)
    for scheme, port, flags in (("http", "plain", ()), ("https", "tls", ("--callback-ca", env.certificates / "ca.pem")),
                                ("https", "tls", ("--callback-ca", env.certificates / "ca.pem", "--callback-batch-messages", 40))):
        for old in (env.folder / "bodies").glob("*"):
            old.unlink()
        before = (env.folder / "access.log").read_text().count("\n")
        replay(env, file, f"{scheme}://127.0.0.1:{ports[port]}/", *flags)
        bodies = list((env.folder / "bodies").glob("*"))
        lines = [line for body in bodies for line in body.read_bytes().splitlines()]
        check(sorted(lines) == sorted(golden), f"{scheme} {flags}: {len(lines)} lines, not {len(golden)}")
        # it writes that behind its answers
        until(lambda: (env.folder / "access.log").read_text().count("\n") - before >= len(bodies), "the log")
        log = (env.folder / "access.log").read_text().splitlines()[before:]
        protocol = "HTTP/2.0" if scheme == "https" else "HTTP/1.1"
        check(all(line.startswith(protocol + " 200") for line in log), log[:2])


@case
def live(env):
    """A loader that captures: ready while the receiver is down, ledger at each scrape, delivery once it is back."""
    if os.geteuid() != 0:
        raise Failed("needs root")
    port, metrics = free_port(), free_port()
    server = env.server()
    server.close()
    web = env.popen([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port), "--directory", str(env.folder)],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = open(env.folder / "loader.log", "wb")
    loader = env.popen([env.loader, "--listen", f"127.0.0.1:{metrics}", "--callback", f"http://127.0.0.1:{server.port}/x?k=geheim",
                        "--flush-timeout", "5s"], stdout=subprocess.PIPE, stderr=log)

    def get(path):
        return scrape(metrics, path)

    got = []

    def ledger():
        until(lambda: got.append(get("/metrics")) or got[-1][0] == 200, "metrics")
        text = got[-1][1]
        v = {}
        for line in text.splitlines():
            found = re.match(r"(\w+)(?:\{.*\})? ([-+.\deE]+)$", line)
            if found:
                v[found.group(1)] = v.get(found.group(1), 0) + float(found.group(2))
        o = {k: int(v[f"ebpfdump_{k}"]) for k in
             ("messages_emitted_total", "output_recovered_total", "output_delivered_total", "output_dropped_total",
              "output_queued", "output_spooled")}
        left = o["messages_emitted_total"] + o["output_recovered_total"]
        check(left == sum(list(o.values())[2:]), "the ledger:", o)
        check("geheim" not in text, "the query is in the metrics")
        return v

    def load(n):
        for i in range(n):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/{env.folder.name}-{i}", timeout=30).close()
            except urllib.error.HTTPError as e:
                e.close()  # 404

    try:
        until(lambda: get("/readyz")[0] == 200 or loader.poll() is not None, "the loader")
        check(loader.poll() is None, pathlib.Path(log.name).read_text()[-600:])
        until(lambda: get("/readyz")[0] == 200, "ready")
        until(lambda: scrape(port, "/")[0] == 200, "the web server")
        load(50)
        until(lambda: ledger()["ebpfdump_callback_retries_total"] > 8, "retries")
        until(lambda: "callback: down for" in get("/readyz")[1], lambda: get("/readyz"))
        check(get("/readyz")[0] == 200, "not ready because the receiver is down")
        check(ledger()["ebpfdump_callback_up"] == 0, "up")
        server.open()

        def ours():
            return [m for r in list(server.accepted) for m in r.messages() if f"/{env.folder.name}-" in m["path"]]

        load(50)
        until(lambda: len(ours()) >= 200, lambda: f"{len(ours())} messages, 200 are awaited")
        until(lambda: "callback: delivering" in get("/readyz")[1], lambda: get("/readyz"))
        v = ledger()
        check(v["ebpfdump_callback_answer_seconds_count"] > 0 and v["ebpfdump_callback_up"] == 1, v)
        loader.terminate()
        out, _ = loader.communicate(timeout=PATIENCE)
        check(loader.returncode == 0 and out == b"", loader.returncode, out[:200])
        check(web.poll() is None, "the web server")
        text = pathlib.Path(log.name).read_text()
        check("geheim" not in text and "messages delivered, 0 dropped" in text, text)
    finally:
        log.close()


# ---- all ----

def make_certificates(folder):
    def openssl(*args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, cwd=folder)

    for ca in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{ca}.key",
                "-out", f"{ca}.pem", "-days", 30, "-subj", f"/CN={ca}")
    for name, ca, san in (("good", "ca", "IP:127.0.0.1"), ("stranger", "other", "IP:127.0.0.1"),
                          ("elsewhere", "ca", "DNS:elsewhere.invalid"), ("expired", "ca", "IP:127.0.0.1"),
                          ("client", "ca", "DNS:client")):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
                "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / f"{name}.ext").write_text(f"subjectAltName={san}\n")
        if name == "expired":
            # `openssl x509` knows no dates of its own in Debian bookworm: a certificate for minus one day
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial",
                    "-extfile", f"{name}.ext", "-out", f"{name}.pem", "-days", "-1")
        else:
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial",
                    "-extfile", f"{name}.ext", "-out", f"{name}.pem", "-days", 30)


def run(name, build, scratch, certificates):
    folder = scratch / name
    folder.mkdir()
    env = Env(build, folder, certificates)
    started = time.monotonic()
    try:
        CASES[name](env)
        return name, None, time.monotonic() - started
    except Failed as e:
        return name, str(e), time.monotonic() - started
    except Exception:  # pylint: disable=broad-except
        return name, traceback.format_exc(), time.monotonic() - started
    finally:
        env.done()


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    names = sys.argv[2:] or list(CASES)
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="ebpfdump-callback-") as scratch:
        scratch = pathlib.Path(scratch)
        scratch.chmod(0o755)
        certificates = scratch / "certificates"
        certificates.mkdir()
        make_certificates(certificates)
        # most of them wait, most of the time
        slow = ("errors_for_a_while", "never_answering_long", "never_answering", "refused_connection", "spool_killed")
        names.sort(key=lambda n: n not in slow)
        with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
            for f in concurrent.futures.as_completed([pool.submit(run, n, build, scratch, certificates) for n in names]):
                name, problem, took = f.result()
                passed, failed = passed + (not problem), failed + bool(problem)
                print(f"{'not ok' if problem else 'ok'} {name} ({took:.1f} s)" +
                      ("\n    " + problem.rstrip().replace("\n", "\n    ") if problem else ""), flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
