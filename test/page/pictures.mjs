#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
// usage: pictures.mjs PROGRAM MODULES DIR
// The pictures of the page in docs/: five minutes of a small shop, made up.
import {join, resolve} from "node:path";
import {Receiver, browser, exchange, sleep} from "./harness.mjs";

const [program, modules, dir] = process.argv.slice(2);
Receiver.program = resolve(program);

let state = 20;
const random = () => {
  // the same picture each time
  state = (state * 1103515245 + 12345) % 2147483648;
  return state / 2147483648;
};
const pick = (list) => list[Math.floor(random() * list.length)];

function one(n, time) {
  const host = pick(["shop.example", "shop.example", "api.internal", "auth.svc", "search.prod"]);
  const [method, path, body] = pick([
    ["GET", `/api/v1/items/${100 + (n % 900)}`, ""], ["GET", `/search?q=blue+shoes&page=${1 + (n % 9)}`, ""], ["GET", "/healthz", ""],
    ["POST", `/cart/${7000 + n}/checkout`, JSON.stringify({cart: 7000 + n, items: [{sku: "A-" + n, quantity: 2, price: 59.9}], coupon: null})],
    ["PUT", `/users/${n % 300}/address`, JSON.stringify({city: "Zürich", zip: "8001"})], ["POST", "/login", "user=ada&password=…"],
    ["GET", `/static/app.${(n * 7919) % 99991}.js`, ""], ["DELETE", `/cart/${7000 + n}/items/3`, ""],
  ]);
  const status = pick([200, 200, 200, 200, 200, 200, 200, 201, 204, 304, 404, 200, 200, 200, 503, 200]);
  const took = Math.round(Math.exp(8.6 + 2.1 * (random() + random() - 1)) * (1 + 0.7 * Math.sin(n / 260)));
  const answer = status === 200 ? JSON.stringify({id: n, name: "Blue shoes", sizes: [41, 42, 43], stock: {warehouse: 12, shop: 0}, tags: ["sale"]}) : "";
  return exchange(n, {time, took, method, path, host, status, node: pick(["node-1", "node-2", "node-3"]), requestBody: body, body: answer,
    requestHeaders: body ? {"Content-Type": [body.startsWith("{") ? "application/json" : "application/x-www-form-urlencoded"]} : {Accept: ["*/*"]}, comm: pick(["nginx", "node", "java"])});
}

const r = await Receiver.start();
let n = 0;
const messages = [];
const now = Date.now();
for (let s = 296; s >= 0; s--) {
  const rate = 9 + 5 * Math.sin(s / 23) + random() * 4;
  for (let k = 0; k < rate; k++) messages.push(...one(++n, now - s * 1000 + Math.floor(random() * 1000) - 1000));
}
messages.sort((a, b) => a.timing_ms - b.timing_ms);
for (let at = 0; at < messages.length; at += 500) await r.post(messages.slice(at, at + 500));

const b = await browser(modules);
async function picture(name, options, detail) {
  const context = await b.newContext(options);
  const page = await context.newPage();
  await page.goto(r.url);
  await page.locator("#view .row").first().waitFor();
  await sleep(1300);
  if (detail) {
    await page.locator("#view .row", {hasText: "checkout"}).first().click();
    await page.locator("#detail-body h3").first().waitFor();
    await sleep(300);
  }
  await page.screenshot({path: join(dir, name)});
  await context.close();
}
const desk = {viewport: {width: 1440, height: 860}};
await picture("page.png", desk, false);
await picture("page-dark.png", {...desk, colorScheme: "dark"}, true);
await picture("page-phone.png", {viewport: {width: 390, height: 780}, deviceScaleFactor: 1.5, isMobile: true, hasTouch: true, colorScheme: "dark"}, false);
await b.close();
await r.stop();
