/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page of ebpfdump-callback. Rows come as server-sent events and are put in once per animation frame; of the
 * exchanges kept here (KEEP at most) only those in sight are in the document. Whatever was captured becomes text nodes,
 * never markup.
 */
"use strict";

const KEEP = 10000; // exchanges in the page
const SLACK = 500; // more, before the oldest are cut off
const SECONDS = 300; // of the plots
const PER_TEN = 12; // buckets of latency to a factor of ten, from 1 us
const BUCKETS = 8 * PER_TEN;
const BODY_SHOWN = 256 * 1024; // characters of a body in the detail
const HEX_SHOWN = 16 * 1024; // bytes

const $ = (id) => document.getElementById(id);
const make = (tag, className, text) => {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
};
const narrowScreen = matchMedia("(max-width: 760px)");

/* ---- words for numbers ---- */

const whole = new Intl.NumberFormat("en");

function sizeText(n) {
  if (n === undefined) return "";
  if (n < 1000) return n + " B";
  for (const unit of ["kB", "MB", "GB"]) {
    n /= 1000;
    if (n < 999.5) return (n < 10 ? n.toFixed(1) : Math.round(n)) + " " + unit;
  }
  return Math.round(n) + " GB";
}

function latencyText(us) {
  if (us === undefined) return "";
  if (us < 1000) return us + " µs";
  if (us < 10000) return (us / 1000).toFixed(1) + " ms";
  if (us < 1e6) return Math.round(us / 1000) + " ms";
  return (us / 1e6).toFixed(us < 1e7 ? 2 : 1) + " s";
}

function rateText(n) {
  return n === 0 ? "0" : n < 10 ? n.toFixed(1) : whole.format(Math.round(n));
}

const two = (n) => String(n).padStart(2, "0");
const three = (n) => String(n).padStart(3, "0");

function timeText(ms) {
  const d = new Date(ms);
  return two(d.getHours()) + ":" + two(d.getMinutes()) + ":" + two(d.getSeconds()) + "." + three(d.getMilliseconds());
}

const plural = (n, word) => whole.format(n) + " " + word + (n === 1 ? "" : "s");

/* ---- what is known: exchanges by id, ascending ---- */

const rows = new Map();
let order = []; // ids, ascending
let incoming = new Map(); // not put in yet: until the next frame, or while held
let held = false;
let seenCount = 0; // exchanges that came since the filter was set
let lostCount = 0;

function place(id) {
  let low = 0, high = order.length;
  if (high === 0 || order[high - 1] < id) {
    order.push(id);
    return;
  }
  while (low < high) {
    const middle = (low + high) >> 1;
    if (order[middle] < id) low = middle + 1;
    else high = middle;
  }
  order.splice(low, 0, id);
}

/* Returns how many rows stand above the one at the top of the view now that did not before. */
function takeIn() {
  let added = 0;
  for (const [id, row] of incoming) {
    const known = rows.get(id);
    rows.set(id, row);
    if (!known) {
      place(id);
      seenCount++;
      added++;
    }
    account(row, known);
  }
  incoming.clear();
  if (order.length > KEEP + SLACK) {
    for (const id of order.splice(0, order.length - KEEP)) rows.delete(id);
  }
  return added;
}

function forgetAll() {
  rows.clear();
  incoming.clear();
  order = [];
  seenCount = 0;
  lostCount = 0;
  statistics.clear();
  grid.top();
}

/* ---- numbers of the last minutes, a slot for each second ---- */

const statistics = {
  skew: 0, // server's clock less ours
  slots: [],
  clear() {
    this.slots = Array.from({length: SECONDS}, () => ({second: -1, count: 0, bad: 0, latency: new Uint32Array(BUCKETS)}));
  },
  now() {
    return Date.now() + this.skew;
  },
  at(ms) {
    const second = Math.floor(ms / 1000);
    const slot = this.slots[second % SECONDS];
    if (slot.second > second) return null;
    if (slot.second < second) {
      slot.second = second;
      slot.count = slot.bad = 0;
      slot.latency.fill(0);
    }
    return slot;
  },
  /* The slot of a second, if it has anything. */
  peek(second) {
    const slot = this.slots[((second % SECONDS) + SECONDS) % SECONDS];
    return slot.second === second ? slot : null;
  },
  sum(from, to) {
    const s = {count: 0, bad: 0, latency: new Uint32Array(BUCKETS)};
    for (let second = from; second <= to; second++) {
      const slot = this.peek(second);
      if (!slot) continue;
      s.count += slot.count;
      s.bad += slot.bad;
      for (let i = 0; i < BUCKETS; i++) s.latency[i] += slot.latency[i];
    }
    return s;
  },
};

const bucketOf = (us) => Math.min(BUCKETS - 1, Math.max(0, Math.floor(Math.log10(Math.max(us, 1)) * PER_TEN)));
const bucketUs = (i) => 10 ** ((i + 0.5) / PER_TEN);

function quantile(latency, q) {
  let total = 0, sum = 0;
  for (const n of latency) total += n;
  if (total === 0) return undefined;
  for (let i = 0; i < BUCKETS; i++) {
    sum += latency[i];
    if (sum >= total * q) return Math.round(bucketUs(i));
  }
  return Math.round(bucketUs(BUCKETS - 1));
}

/* Each exchange counts once when it is first heard of, once when it is answered. */
function account(row, known) {
  const now = statistics.now();
  if (row.time_ms < now - SECONDS * 1000 || row.time_ms > now + 60000) return;
  const slot = statistics.at(row.time_ms);
  if (!slot) return;
  if (!known) slot.count++;
  if (row.status && !(known && known.status)) {
    if (row.status >= 400) slot.bad++;
    if (row.latency_us !== undefined) slot.latency[bucketOf(row.latency_us)]++;
  }
}

/* ---- the table: rows in sight, moved about ---- */

const methodClass = {GET: "m-get", HEAD: "m-get", POST: "m-post", PUT: "m-put", PATCH: "m-patch", DELETE: "m-delete"};
const columns = ["time", "node", "client", "server", "method", "host", "path", "status", "latency", "size"];

const grid = {
  view: $("view"), spacer: $("spacer"), root: $("grid"),
  pool: [],
  active: 0, // id of the chosen exchange
  rowHeight: 32,

  top() {
    this.view.scrollTop = 0;
    this.active = 0;
  },
  /* The id at a place, counted from the top. */
  idAt(index) {
    return order[order.length - 1 - index];
  },
  indexOf(id) {
    let low = 0, high = order.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (order[middle] < id) low = middle + 1;
      else high = middle;
    }
    return order[low] === id ? order.length - 1 - low : -1;
  },
  makeRow() {
    const e = make("div", "row");
    e.setAttribute("role", "row");
    e.cells = {};
    columns.forEach((name, i) => {
      const cell = make("span", "c-" + name);
      cell.setAttribute("role", "gridcell");
      cell.setAttribute("aria-colindex", i + 1);
      e.cells[name] = cell;
      e.append(cell);
    });
    e.latency = document.createTextNode("");
    e.bar = make("i");
    e.cells.latency.append(e.latency, e.bar);
    e.addEventListener("click", () => {
      this.choose(e.exchange);
      detail.open(e.exchange, false);
    });
    this.spacer.append(e);
    return e;
  },
  fill(e, row, index) {
    const c = e.cells;
    if (e.row !== row) {
      e.row = row;
      e.exchange = row.id;
      e.id = "x" + row.id;
      c.time.textContent = timeText(row.time_ms);
      c.node.textContent = row.node || "";
      c.client.textContent = row.pod && row.seen === "client" ? row.pod : row.client || "";
      c.server.textContent = row.pod && row.seen === "server" ? row.pod : row.server || "";
      c.client.toggleAttribute("data-seen", row.seen === "client");
      c.server.toggleAttribute("data-seen", row.seen === "server");
      c.client.title = row.client || "";
      c.server.title = row.server || "";
      c.method.textContent = textOf(row.method);
      c.method.className = "c-method " + (methodClass[row.method] || "m-other");
      c.host.textContent = row.host;
      c.path.textContent = row.path;
      c.path.title = row.path;
      c.status.textContent = row.status || "…";
      c.status.className = "c-status s-" + Math.min(5, Math.floor(row.status / 100));
      c.status.title = row.status ? "" : "no response yet";
      e.latency.data = latencyText(row.latency_us);
      c.latency.className = "c-latency" + (row.latency_us >= 1e6 ? " slower" : row.latency_us >= 2e5 ? " slow" : "");
      /* 100 us is nothing, 10 s is all */
      const share = row.latency_us === undefined ? 0 : Math.min(1, Math.max(0.02, (Math.log10(row.latency_us + 1) - 2) / 5));
      e.bar.style.transform = `scaleX(${share.toFixed(3)})`;
      c.size.textContent = sizeText(row.response_bytes !== undefined ? row.response_bytes : row.request_bytes);
    }
    e.style.transform = `translateY(${index * this.rowHeight}px)`;
    e.setAttribute("aria-rowindex", index + 2);
    e.setAttribute("aria-selected", row.id === this.active);
  },
  draw(added) {
    const count = order.length;
    const height = this.view.clientHeight;
    /* What somebody looks at stays where it is; at the top is the newest. */
    this.spacer.style.height = count * this.rowHeight + "px";
    if (added > 0 && this.view.scrollTop > 0) this.view.scrollTop += added * this.rowHeight;
    const scrolled = this.view.scrollTop;
    const first = Math.max(0, Math.floor(scrolled / this.rowHeight) - 4);
    const last = Math.min(count, Math.ceil((scrolled + height) / this.rowHeight) + 4);
    /* An exchange keeps its element while it is in sight. */
    const free = [], wanted = new Map();
    for (let i = first; i < last; i++) wanted.set(this.idAt(i), i);
    const missing = new Map(wanted);
    for (const e of this.pool) {
      if (missing.has(e.exchange)) missing.delete(e.exchange);
      else free.push(e);
    }
    for (const id of missing.keys()) {
      const e = free.pop() || this.makeRow();
      if (!this.pool.includes(e)) this.pool.push(e);
      e.exchange = id;
      e.row = null;
    }
    for (const e of free) e.remove();
    if (free.length) this.pool = this.pool.filter((e) => !free.includes(e));
    for (const e of this.pool) this.fill(e, rows.get(e.exchange), wanted.get(e.exchange));
    this.root.setAttribute("aria-rowcount", count + 1);
    const shown = this.active && wanted.has(this.active);
    if (shown) this.root.setAttribute("aria-activedescendant", "x" + this.active);
    else this.root.removeAttribute("aria-activedescendant");
    this.unread(added, scrolled);
  },
  above: 0,
  unread(added, scrolled) {
    const button = $("to-top");
    this.above = scrolled > this.rowHeight ? this.above + added : 0;
    button.hidden = this.above === 0;
    if (this.above) button.textContent = "↑ " + whole.format(this.above) + " new";
  },
  choose(id) {
    this.active = id;
    const index = this.indexOf(id);
    if (index < 0) return;
    const y = index * this.rowHeight, view = this.view;
    if (y < view.scrollTop) view.scrollTop = y;
    else if (y + this.rowHeight > view.scrollTop + view.clientHeight) view.scrollTop = y + this.rowHeight - view.clientHeight;
    draw();
  },
  move(step) {
    if (order.length === 0) return;
    const index = this.active ? this.indexOf(this.active) : -1;
    const next = index < 0 ? 0 : Math.min(order.length - 1, Math.max(0, index + step));
    this.choose(this.idAt(next));
    if (!$("detail").hidden) detail.open(this.active, false);
  },
};

const textOf = (text) => (text === undefined || text === "" ? "?" : text);

let frame = 0;
let redraw = false;

function draw() {
  redraw = true;
  if (!frame) frame = requestAnimationFrame(onFrame);
}

function onFrame() {
  frame = 0;
  const added = held ? 0 : takeIn();
  if (added > 0 || redraw) {
    redraw = false;
    grid.draw(added);
    empty();
  }
}

function empty() {
  const none = order.length === 0;
  $("empty").hidden = !none;
  if (!none) return;
  const filtered = filters.any();
  $("empty-big").textContent = filtered ? "Nothing matches" : "Waiting for the first message";
  $("empty-text").textContent = filtered ? "New exchanges that do appear here by themselves." : "Point a loader here:";
  $("empty-code").hidden = filtered;
  $("empty-code").textContent = `ebpfdump-loader --callback ${location.origin}/ingest`;
}

/* ---- tiles and plots ---- */

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return {line: of("--line"), muted: of("--muted"), accent: of("--accent"), bad: of("--bad"), violet: of("--violet"), faint: of("--faint")};
}

const STEP = 2; // seconds to a column

function columnsOf(last) {
  const list = [];
  for (let t = last - SECONDS + 1; t <= last; t += STEP) list.push(statistics.sum(t, t + STEP - 1));
  return list;
}

/* A round number at or above. */
function roundUp(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  for (const m of [1, 2, 5, 10]) if (m * power >= n) return m * power;
  return n;
}

function canvasFor(id) {
  const canvas = $(id), scale = devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const g = canvas.getContext("2d");
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.clearRect(0, 0, width, height);
  return {g, left: 42, width, height, bottom: height - 15, top: 6};
}

function axes(p, c, topLabel, middleLabel) {
  const {g, left, width, bottom, top} = p;
  const middle = (top + bottom) / 2;
  g.font = "10px system-ui, sans-serif";
  g.fillStyle = c.muted;
  g.strokeStyle = c.line;
  g.lineWidth = 1;
  g.beginPath();
  for (const y of [top, middle, bottom]) {
    g.moveTo(left, Math.round(y) + 0.5);
    g.lineTo(width, Math.round(y) + 0.5);
  }
  g.stroke();
  g.textAlign = "right";
  g.fillText(topLabel, left - 5, top + 4);
  g.fillText(middleLabel, left - 5, middle + 4);
  g.fillText("now", width, p.height - 3);
  g.textAlign = "left";
  g.fillText("5 min ago", left, p.height - 3);
}

function plotRate(list, c) {
  const p = canvasFor("plot-rate");
  const peak = Math.max(...list.map((s) => s.count / STEP));
  const max = roundUp(Math.max(peak, 1));
  const w = (p.width - p.left) / list.length, scale = (p.bottom - p.top) / max;
  axes(p, c, whole.format(max) + "/s", rateText(max / 2) + "/s");
  list.forEach((s, i) => {
    const good = ((s.count - s.bad) / STEP) * scale, bad = (s.bad / STEP) * scale;
    const x = p.left + i * w, width = Math.max(1, w - (w > 3 ? 1 : 0));
    p.g.fillStyle = c.accent;
    p.g.fillRect(x, p.bottom - good, width, good);
    p.g.fillStyle = c.bad;
    p.g.fillRect(x, p.bottom - good - bad, width, bad);
  });
  return peak;
}

function line(p, points, colour, fill) {
  const {g} = p;
  let open = false, from = 0, last = 0;
  const close = () => {
    if (!open) return;
    g.stroke();
    if (fill) {
      g.lineTo(last, p.bottom);
      g.lineTo(from, p.bottom);
      g.globalAlpha = 0.12;
      g.fill();
      g.globalAlpha = 1;
    }
    open = false;
  };
  g.strokeStyle = g.fillStyle = colour;
  g.lineWidth = 1.75;
  g.lineJoin = g.lineCap = "round";
  for (const point of points) {
    if (!point) {
      close();
      continue;
    }
    if (!open) {
      g.beginPath();
      g.moveTo(point[0] - 0.5, point[1]);
      from = point[0] - 0.5;
      open = true;
    }
    g.lineTo(point[0], point[1]);
    last = point[0];
  }
  close();
}

/* By powers of ten: what is usual and what is rare are both to be seen. */
function plotLatency(list, c) {
  const p = canvasFor("plot-latency");
  const high = list.map((s) => quantile(s.latency, 0.95)), middle = list.map((s) => quantile(s.latency, 0.5));
  const known = [...high, ...middle].filter((v) => v !== undefined);
  const low = 10 ** Math.floor(Math.log10(Math.min(1000, ...known))), max = roundUp(Math.max(low * 100, ...known));
  const w = (p.width - p.left) / list.length, scale = (p.bottom - p.top) / Math.log10(max / low);
  const y = (v) => p.bottom - Math.max(0, Math.log10(v / low)) * scale;
  const points = (values) => values.map((v, i) => (v === undefined ? null : [p.left + (i + 0.5) * w, y(v)]));
  axes(p, c, latencyText(max), latencyText(Math.round(Math.sqrt(low * max))));
  line(p, points(high), c.violet, true);
  line(p, points(middle), c.accent, false);
}

function tiles() {
  const last = Math.floor(statistics.now() / 1000) - 1;
  const minute = statistics.sum(last - 59, last), ten = statistics.sum(last - 9, last);
  const share = minute.count ? (100 * minute.bad) / minute.count : 0;
  const median = quantile(minute.latency, 0.5), high = quantile(minute.latency, 0.95);
  $("t-count").textContent = whole.format(seenCount);
  $("t-count-sub").textContent = seenCount > order.length ? `the last ${whole.format(order.length)} are here` : filters.any() ? "that match" : seenCount ? "all are here" : "none yet";
  $("t-rate").textContent = rateText(ten.count / 10);
  $("t-rate-sub").textContent = "last 10 s";
  $("t-error").textContent = minute.count ? (share > 0 && share < 10 ? share.toFixed(1) : Math.round(share)) + " %" : "–";
  $("t-error").classList.toggle("bad", minute.bad > 0);
  $("t-error-sub").textContent = `${whole.format(minute.bad)} of ${whole.format(minute.count)} in a minute`;
  $("t-latency").textContent = median === undefined ? "–" : latencyText(median);
  $("t-latency-sub").textContent = high === undefined ? "median, last minute" : `median; 95 % within ${latencyText(high)}`;
}

function board() {
  const last = Math.floor(statistics.now() / 1000), c = colours();
  const list = columnsOf(last);
  const peak = plotRate(list, c);
  plotLatency(list, c);
  tiles();
  $("plot-rate").setAttribute("aria-label", `Exchanges a second over five minutes: ${$("t-rate").textContent} now, ${rateText(peak)} at most`);
  $("plot-latency").setAttribute("aria-label", `Latency over five minutes: median ${$("t-latency").textContent} in the last minute`);
}

/* What a screen reader hears, now and then. */
let toldCount = 0;
function tell() {
  const n = seenCount - toldCount;
  if (n > 0 && !held) $("live").textContent = plural(n, "new exchange") + ", " + $("t-error-sub").textContent + " failed";
  toldCount = seenCount;
}

/* ---- filters ---- */

const filters = {
  form: $("filters"),
  names: ["q", "method", "host", "path", "seen", "status"],
  query() {
    const data = new FormData(this.form), query = new URLSearchParams();
    for (const name of this.names) {
      const value = String(data.get(name) || "").trim();
      if (value) query.set(name, value);
    }
    return query;
  },
  any() {
    return this.query().size > 0;
  },
  /* From the address bar, so that a view can be passed on. */
  restore() {
    const query = new URLSearchParams(location.search);
    for (const name of this.names) {
      if (!query.has(name)) continue;
      const field = this.form.elements[name];
      field.value = query.get(name);
    }
    if (!new FormData(this.form).has("status")) this.form.elements.status.value = "";
  },
  changed() {
    const query = this.query().toString();
    if (query === stream.query) return;
    history.replaceState(null, "", query ? "?" + query : location.pathname);
    $("get-ndjson").href = "/api/exchanges?" + new URLSearchParams([...this.query(), ["format", "ndjson"], ["limit", KEEP]]);
    forgetAll();
    toldCount = 0;
    stream.open(query);
    draw();
    board();
  },
};

/* ---- the stream ---- */

const stream = {
  source: null, query: null, instance: "", timer: 0,
  state(name, text) {
    $("link").dataset.state = held && name === "live" ? "held" : name;
    $("link-text").textContent = held && name === "live" ? "held" : text;
    this.last = [name, text];
  },
  open(query) {
    if (this.source) this.source.close();
    clearTimeout(this.timer);
    this.query = query;
    const source = new EventSource("/api/stream" + (query ? "?" + query : ""));
    this.source = source;
    source.addEventListener("hello", (e) => this.hello(JSON.parse(e.data)));
    source.addEventListener("totals", (e) => this.totals(JSON.parse(e.data)));
    source.addEventListener("lost", (e) => {
      lostCount += Number(e.data);
    });
    source.onmessage = (e) => this.rows(JSON.parse(e.data));
    source.onerror = () => this.broken(source);
  },
  hello(hello) {
    if (this.instance && this.instance !== hello.instance) forgetAll(); // it was started anew: other ids
    this.instance = hello.instance;
    this.version = hello.version;
    this.state("live", "live");
    draw();
  },
  rows(list) {
    for (const row of list) {
      incoming.delete(row.id);
      incoming.set(row.id, row);
    }
    while (incoming.size > KEEP) incoming.delete(incoming.keys().next().value);
    if (held) holdText();
    else if (!frame) frame = requestAnimationFrame(onFrame);
    /* no frames come while the page is hidden */
    if (document.hidden && !held && incoming.size > SLACK) takeIn();
  },
  totals(t) {
    statistics.skew = t.now_ms - Date.now();
    const words = ["received: " + plural(t.messages, "message")];
    if (t.duplicates) words.push(plural(t.duplicates, "duplicate") + " left out");
    if (t.refused) words.push(plural(t.refused, "POST") + " refused");
    if (lostCount) words.push(plural(lostCount, "change") + " came too fast for this page");
    $("totals").textContent = words.join(" · ");
  },
  broken(source) {
    if (source !== this.source) return;
    this.state("down", "reconnecting");
    if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
    fetch("/api/exchanges?limit=0").then((r) => {
      if (r.status === 401) login.ask();
      else this.later();
    }, () => this.later());
  },
  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      forgetAll();
      this.open(this.query);
    }, 2000);
  },
};

function holdText() {
  $("pause-text").textContent = held ? (incoming.size ? `Go on (${whole.format(incoming.size)})` : "Go on") : "Pause";
}

function hold(on) {
  held = on;
  $("pause").setAttribute("aria-pressed", held);
  holdText();
  if (stream.last) stream.state(...stream.last);
  draw();
}

/* ---- one exchange ---- */

function decodeBase64(text) {
  const binary = atob(text);
  return Uint8Array.from(binary, (c) => c.charCodeAt(0));
}

function hexDump(bytes) {
  const lines = [];
  const shown = Math.min(bytes.length, HEX_SHOWN);
  for (let at = 0; at < shown; at += 16) {
    const part = bytes.subarray(at, Math.min(at + 16, shown));
    const hex = Array.from(part, (b) => b.toString(16).padStart(2, "0"));
    const left = hex.slice(0, 8).join(" "), right = hex.slice(8).join(" ");
    const text = Array.from(part, (b) => (b >= 32 && b < 127 ? String.fromCharCode(b) : ".")).join("");
    lines.push(at.toString(16).padStart(8, "0") + "  " + left.padEnd(24) + right.padEnd(24) + " " + text);
  }
  return lines.join("\n");
}

/* The tokens of JSON as they stand, indented: numbers keep their digits, keys their order. */
function prettyJson(text) {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  const out = make("pre", "body");
  const token = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/gy;
  let depth = 0, plain = "", previous = "";
  const skip = /\s*/gy;
  const flush = () => {
    if (plain) out.append(plain);
    plain = "";
  };
  for (let at = 0; ;) {
    skip.lastIndex = at;
    skip.exec(text);
    token.lastIndex = skip.lastIndex;
    const match = token.exec(text);
    if (!match) break;
    at = token.lastIndex;
    const t = match[0];
    if (t === "}" || t === "]") {
      depth--;
      if (previous !== "{" && previous !== "[") plain += "\n" + "  ".repeat(depth);
      plain += t;
    } else {
      if (previous === "{" || previous === "[" || previous === ",") plain += "\n" + "  ".repeat(depth);
      if (t === "{" || t === "[") depth++;
      if (/^[{[,]$/.test(t)) plain += t;
      else if (t === ":") plain += ": ";
      else {
        skip.lastIndex = at;
        skip.exec(text);
        const key = t[0] === '"' && text[skip.lastIndex] === ":";
        flush();
        out.append(make("span", key ? "j-key" : t[0] === '"' ? "j-text" : /^[-0-9]/.test(t) ? "j-number" : "j-word", t));
      }
    }
    previous = t;
  }
  flush();
  return out;
}

function bodyElement(m) {
  const part = make("div");
  const total = m.body_bytes !== undefined ? m.body_bytes : m.body.length;
  if (m.body === "") {
    part.append(make("p", "note", total > 0 ? `${sizeText(total)}, none of it kept` : "no body"));
    return part;
  }
  let bytes = null;
  if (m.body_encoding === "base64") {
    try {
      bytes = decodeBase64(m.body);
    } catch {
      part.append(make("p", "note bad", "body_encoding says base64, and it is not"));
    }
  }
  const text = m.body.length > BODY_SHOWN ? m.body.slice(0, BODY_SHOWN) : m.body;
  if (bytes) part.append(make("pre", "body hex", hexDump(bytes)));
  else part.append(text === m.body && /^\s*[[{]/.test(text) ? prettyJson(text) || make("pre", "body", text) : make("pre", "body", text));
  const notes = [sizeText(total)];
  if (m.body_truncated) notes.push("the loader kept the beginning of it (--body-bytes)");
  if ((bytes && bytes.length > HEX_SHOWN) || text !== m.body) notes.push("the beginning is shown; all that was kept is in the JSON");
  if (m.gap_bytes) notes.push(`${sizeText(m.gap_bytes)} were not captured`);
  part.append(make("p", "note", notes.join("; ")));
  return part;
}

function facts(pairs, className) {
  const list = make("dl", "facts" + (className ? " " + className : ""));
  for (const [name, value] of pairs) {
    if (value === undefined || value === "" || value === null) continue;
    list.append(make("dt", "", name), make("dd", "", String(value)));
  }
  return list;
}

function headerPairs(m) {
  return Object.entries(m.headers).flatMap(([name, values]) => values.map((v) => [name, v === "" ? " " : v]));
}

function messageElements(title, m) {
  const heading = make("h3", "", title + " ");
  if (!m) {
    heading.append(make("small", "", "not seen"));
    return [heading];
  }
  const start = m.status_code ? `HTTP/${m.version || "?"} ${m.status_code}` : `${textOf(m.method)} HTTP/${m.version || "?"}`;
  heading.append(make("small", "", start + " at " + timeText(m.timing_ms)));
  const parts = [heading, facts(headerPairs(m), "headers"), bodyElement(m)];
  if (m.error) parts.splice(1, 0, make("p", "note bad", "On the wire: " + m.error));
  if (m.headers_truncated) parts.splice(1, 0, make("p", "note bad", "Headers are cut: the line would have been too long (--line-bytes)."));
  return parts;
}

/* For a shell: nothing in quotes means anything. */
const quote = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

function urlOf(x) {
  const request = x.request || (x.response && x.response.request) || {};
  const host = (x.request && headerOf(x.request, "host")) || request.host || x.server || "";
  const path = request.path || "/";
  return /^[a-z][a-z0-9+.-]*:\/\//i.test(path) ? path : "http://" + host + (path.startsWith("/") ? path : "/" + path);
}

function headerOf(m, name) {
  for (const [key, values] of Object.entries(m.headers)) if (key.toLowerCase() === name) return values[0];
  return undefined;
}

function asCurl(x) {
  const m = x.request;
  const method = (m || x.response.request || {}).method || "GET";
  const words = ["curl"];
  const url = urlOf(x);
  const leave = new Set(["content-length", "transfer-encoding", "connection", "expect"]);
  if (!m) return `curl -X ${quote(method)} ${quote(url)}`;
  if (m.version === "1.0") words.push("--http1.0");
  if (/[[\]{}]/.test(url)) words.push("-g");
  if (/\/\.\.?(\/|\?|$)/.test(url)) words.push("--path-as-is");
  if (method === "HEAD") words.push("-I");
  else if (method !== (m.body ? "POST" : "GET")) words.push("-X " + quote(method));
  words.push(quote(url));
  for (const [name, values] of Object.entries(m.headers)) {
    const lower = name.toLowerCase();
    if (leave.has(lower)) continue;
    for (const value of values) {
      if (lower === "host" && url.startsWith("http://" + value + "/")) continue;
      words.push("-H " + quote(value === "" ? name + ";" : name + ": " + value));
    }
  }
  let command;
  if (m.body && m.body_encoding === "base64") {
    words.push("--data-binary @-");
    command = `printf %s ${quote(m.body)} | base64 -d | ` + words.join(" \\\n  ");
  } else {
    if (m.body) {
      if (headerOf(m, "content-type") === undefined) words.push("-H 'Content-Type:'");
      words.push("--data-raw " + quote(m.body));
    }
    command = words.join(" \\\n  ");
  }
  return command + (m.body_truncated ? `\n# the body is cut: ${m.body_bytes} bytes were sent` : "");
}

const detail = {
  id: 0, exchange: null,
  async open(id, focus) {
    this.id = id;
    $("detail").hidden = false;
    $("work").classList.add("narrow");
    $("copied").textContent = "";
    let x = null;
    try {
      const answer = await fetch("/api/exchanges/" + id);
      if (answer.status === 401) login.ask();
      if (answer.ok) x = await answer.json();
    } catch {
      /* shown below */
    }
    if (this.id !== id) return; // another one was chosen meanwhile
    this.exchange = x;
    if (x) this.show(x);
    else this.missing();
    if (focus) $("detail-title").focus();
    draw();
  },
  missing() {
    $("detail-title").textContent = "This exchange is gone";
    $("detail-body").replaceChildren(make("p", "note", "The receiver keeps the newest messages only (--keep), or cannot be reached."));
  },
  show(x) {
    const title = $("detail-title");
    const status = make("span", "c-status s-" + Math.min(5, Math.floor(x.status / 100)), x.status || "…");
    title.replaceChildren(make("span", methodClass[x.method] || "m-other", textOf(x.method)), " " + urlOf(x) + " ", status);
    const any = x.request || x.response;
    const overview = facts([
      ["Time", new Date(x.time_ms).toISOString().replace("T", " ").replace("Z", " UTC")],
      ["Latency", latencyText(x.latency_us)],
      ["Client", x.client], ["Server", x.server],
      ["Seen on", (any.node ? any.node + ", " : "") + "at the " + x.seen + "’s end"],
      ["Process", any.comm ? any.comm + (any.pid ? " (" + any.pid + ")" : "") : any.pid || ""],
      ["Pod", any.pod ? (any.namespace ? any.namespace + "/" : "") + any.pod : ""], ["Container", any.container], ["Exchange", any.exchange_id],
      ["Interface", any.interface],
    ]);
    $("detail-body").replaceChildren(overview, ...messageElements("Request", x.request), ...messageElements("Response", x.response));
    $("detail-body").scrollTop = 0;
    $("copy-curl").disabled = !x.request && !x.response.request;
  },
  close() {
    if ($("detail").hidden) return;
    $("detail").hidden = true;
    $("work").classList.remove("narrow");
    this.id = 0;
    this.exchange = null;
    $("grid").focus();
    draw();
  },
};

async function copy(text, what) {
  let ok = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    /* there is no clipboard without https, but for this machine */
    const area = make("textarea", "unseen");
    area.value = text;
    document.body.append(area);
    area.select();
    ok = document.execCommand("copy");
    area.remove();
  }
  $("copied").textContent = ok ? what + " copied" : "the browser does not let this page copy";
}

const copyCurl = () => detail.exchange && !$("copy-curl").disabled && copy(asCurl(detail.exchange), "curl command");

/* ---- HAR 1.2 ---- */

const reason = {200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content", 301: "Moved Permanently", 302: "Found", 304: "Not Modified", 307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 409: "Conflict", 413: "Content Too Large", 429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"};

const harHeaders = (m) => (m ? Object.entries(m.headers).flatMap(([name, values]) => values.map((value) => ({name, value}))) : []);
const harVersion = (m) => "HTTP/" + ((m && m.version) || "1.1");

function harEntry(x) {
  const url = urlOf(x), request = x.request, response = x.response;
  const ms = (x.latency_us || 0) / 1000;
  const query = url.includes("?") ? url.slice(url.indexOf("?") + 1) : "";
  const entry = {
    startedDateTime: new Date(x.time_ms).toISOString(),
    time: ms,
    request: {
      method: x.method || "", url, httpVersion: harVersion(request), cookies: [], headers: harHeaders(request),
      queryString: [...new URLSearchParams(query)].map(([name, value]) => ({name, value})),
      headersSize: -1, bodySize: request && request.body_bytes !== undefined ? request.body_bytes : -1,
    },
    response: {
      status: x.status, statusText: reason[x.status] || "", httpVersion: harVersion(response), cookies: [], headers: harHeaders(response),
      content: {size: (response && response.body_bytes) || 0, mimeType: (response && headerOf(response, "content-type")) || ""},
      redirectURL: (response && headerOf(response, "location")) || "",
      headersSize: -1, bodySize: response && response.body_bytes !== undefined ? response.body_bytes : -1,
    },
    cache: {},
    timings: {send: 0, wait: ms, receive: 0},
    connection: (x.client || "").split(":").pop(),
    comment: `${x.node || ""} ${x.seen}`.trim(),
  };
  const server = /^(?:\[(.*)\]|([^:]*)):\d+$/.exec(x.server || "");
  if (server) entry.serverIPAddress = server[1] || server[2];
  if (request && request.body) {
    entry.request.postData = {mimeType: headerOf(request, "content-type") || "", text: request.body, params: []};
    if (request.body_encoding) entry.request.postData.comment = request.body_encoding;
  }
  if (response && response.body) {
    entry.response.content.text = response.body;
    if (response.body_encoding) entry.response.content.encoding = response.body_encoding;
  }
  return entry;
}

async function downloadHar() {
  const button = $("get-har");
  button.disabled = true;
  try {
    const answer = await fetch("/api/exchanges?" + new URLSearchParams([...filters.query(), ["limit", KEEP]]));
    if (!answer.ok) throw new Error(await answer.text());
    const {exchanges} = await answer.json();
    const har = {log: {version: "1.2", creator: {name: "ebpfdump", version: stream.version || ""}, entries: exchanges.reverse().map(harEntry)}};
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(har)], {type: "application/json"}));
    link.download = "ebpfdump.har";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (e) {
    $("live").textContent = "HAR: " + e.message;
  }
  button.disabled = false;
}

/* ---- the token ---- */

const login = {
  ask() {
    stream.state("down", "a token is asked for");
    if (!$("login").open) $("login").showModal();
  },
  async submit(e) {
    e.preventDefault();
    let status = 0;
    try {
      status = (await fetch("/api/session", {method: "POST", headers: {Authorization: "Bearer " + $("login-token").value.trim()}})).status;
    } catch {
      /* shown below */
    }
    if (status !== 204) {
      $("login-wrong").textContent = status === 401 ? "That is not the token." : "The receiver cannot be reached.";
      return;
    }
    $("login-token").value = "";
    $("login-wrong").textContent = "";
    $("login").close();
    forgetAll();
    stream.open(stream.query);
  },
};

/* ---- keys, clicks, sizes ---- */

function onKey(e) {
  if (e.ctrlKey || e.metaKey || e.altKey || $("login").open) return;
  const typing = e.target.closest("input, select, textarea");
  if (e.key === "Escape") {
    if (typing && typing.value) return; // a search field empties itself
    if (typing) typing.blur();
    detail.close();
    return;
  }
  if (typing) return;
  if (e.key === "/") {
    e.preventDefault();
    $("f-q").focus();
    $("f-q").select();
  } else if (e.key === "p" || e.key === "P") {
    hold(!held);
  } else if (e.key === "c" || e.key === "C") {
    copyCurl();
  } else if (e.key === "j" || e.key === "k") {
    grid.move(e.key === "j" ? 1 : -1);
  }
}

function onGridKey(e) {
  const page = Math.max(1, Math.floor($("view").clientHeight / grid.rowHeight) - 1);
  const steps = {ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -KEEP * 2, End: KEEP * 2};
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.key in steps) {
    e.preventDefault();
    grid.move(steps[e.key]);
  } else if ((e.key === "Enter" || e.key === " ") && grid.active) {
    e.preventDefault();
    detail.open(grid.active, true);
  }
}

function measure() {
  grid.rowHeight = narrowScreen.matches ? 58 : 32;
  draw();
  board();
}

function start() {
  let typing = 0;
  filters.restore();
  filters.form.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => filters.changed(), 150);
  });
  filters.form.addEventListener("submit", (e) => e.preventDefault());
  filters.form.addEventListener("reset", () => setTimeout(() => filters.changed()));
  $("pause").addEventListener("click", () => hold(!held));
  $("to-top").addEventListener("click", () => {
    $("view").scrollTop = 0;
    draw();
  });
  $("view").addEventListener("scroll", draw, {passive: true});
  $("grid").addEventListener("keydown", onGridKey);
  document.addEventListener("keydown", onKey);
  $("detail-close").addEventListener("click", () => detail.close());
  $("copy-curl").addEventListener("click", copyCurl);
  $("copy-json").addEventListener("click", () => {
    const x = detail.exchange;
    if (x) copy([x.request, x.response].filter(Boolean).map((m) => JSON.stringify(m)).join("\n") + "\n", "JSON");
  });
  $("get-har").addEventListener("click", downloadHar);
  $("login-form").addEventListener("submit", (e) => login.submit(e));
  $("login").addEventListener("cancel", (e) => e.preventDefault());
  addEventListener("resize", measure);
  narrowScreen.addEventListener("change", measure);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", board);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) draw();
  });
  statistics.clear();
  measure();
  filters.changed();
  setInterval(board, 1000);
  setInterval(tell, 10000);
}

start();
