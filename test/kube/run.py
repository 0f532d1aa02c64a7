#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: run.py DRIVER SAN-DRIVER [CASE...]

The room (pkg/kube) as a process (driver.c) against a scripted API server (server.py): what happens to it is played, what
its handlers see is compared. Most run with sanitizers. A case runs if its name holds one of those given. Ends with
`N passed, N failed`.
"""
import concurrent.futures
import json
import os
import pathlib
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

sys.dont_write_bytecode = True
import server as s
from server import Objects, Server, bookmark, event, fail, hang, items, obj, raw, slow, status, text, watch

DRIVER, SAN = (pathlib.Path(p).resolve() for p in sys.argv[1:3])
HERE = pathlib.Path(__file__).resolve().parent
WAIT = 30  # s: what is no hang on the slowest machine
FOUND = 99
QUICK = "backoff=20 cap=100 retry=20 short=300"
CASES = []


class Failed(Exception):
    pass


def case(fn):
    CASES.append(fn)
    return fn


def check(condition, *what):
    if not condition:
        raise Failed(" ".join(str(w) for w in what) or "not as expected")


def until(condition, what, seconds=WAIT):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.005)


class Driver:
    """The process; its lines in order."""

    def __init__(self, url, *args, program=None, prefix=(), env=None):
        environ = dict(os.environ, ASAN_OPTIONS=f"exitcode={FOUND}:detect_leaks=1", LSAN_OPTIONS=f"exitcode={FOUND}",
                       UBSAN_OPTIONS=f"exitcode={FOUND}:halt_on_error=1:print_stacktrace=1", http_proxy="http://192.0.2.1:9",
                       **(env or {}))
        self.killed = False
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([*prefix, program or SAN, url, *args], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environ)
        self.lines, self.seen = queue.Queue(), []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.until("ready")

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def say(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def until(self, pattern, seconds=WAIT):
        """The next line that matches; what came before it is in seen."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0.001, end - time.monotonic()))
            except queue.Empty:
                raise Failed(f"no line '{pattern}' within {seconds} s; the last: {self.seen[-8:]}") from None
            if line is None:
                raise Failed(f"it ended before a line '{pattern}'; the last: {self.seen[-8:]}\n{self.stderr()}")
            self.seen.append(line)
            if re.match(pattern, line):
                return line

    def ask(self, command, what=None):
        self.say(command)
        return json.loads(self.until((what or command) + " ").split(" ", 1)[1])

    def request(self, method, path, body="", query="-", kind="-", flags=0):
        return self.ask(f"request {method} {path} {query} {kind} {flags} {body}".rstrip(), "response")

    def cache(self):
        self.say("cache")
        at = len(self.seen)
        self.until("cache-end")
        return [line.split()[1] for line in self.seen[at:] if line.startswith("cached ")]

    def changes(self):
        """What handlers saw so far: `added default/a`."""
        return [" ".join(line.split()[:2]) for line in self.seen
                if re.match("(added|updated|deleted|deleted_unknown|synced) ", line)]

    def reflect(self, options=QUICK, path=s.GROUP):
        self.say(f"reflect {path} {s.API_VERSION} EbpfDump {options}")

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")[-3000:]

    def rss(self):
        field = re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8"))
        return int(field.group(1))

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
        try:
            code = self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed("it does not end") from None
        check(code == 0 or self.killed, f"exit status {code}:", self.stderr())

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.close()
        else:
            self.process.kill()
            self.process.wait()
        self.errors.close()


# ---- list and watch --------------------------------------------------------------------------------------------------


def play(*steps, options=QUICK, wait="synced", otherwise=None):
    """A server with these steps, and a driver that reflects; for `with`."""
    server = Server()
    server.script(*steps)
    if otherwise:
        server.otherwise = otherwise
    driver = Driver(server.url)
    driver.reflect(options)
    if wait:
        driver.until(wait)
    return Both(server, driver)


class Both:
    def __init__(self, server, driver):
        self.server, self.driver = server, driver

    def __enter__(self):
        return self.server, self.driver

    def __exit__(self, kind, *rest):
        try:
            self.driver.__exit__(kind, *rest)
        finally:
            self.server.close()

    def requested(self):
        return self.server.log()


@case
def list_then_watch():
    with play(items(10, obj("a", 1), obj("b", 2)),
              watch(event("ADDED", obj("c", 11)), event("MODIFIED", obj("a", 12, x="new")), event("DELETED", obj("b", 13)),
                    end="end"),
              watch(event("ADDED", obj("d", 14)))) as (server, d):
        d.until("added default/d")
        check(d.changes() == ["added default/a", "added default/b", "synced 2", "added default/c", "updated default/a",
                              "deleted default/b", "added default/d"], d.changes())
        check(d.cache() == ["default/a", "default/c", "default/d"], d.cache())
        check(server.log() == ["get", "watch(10)", "watch(13)"], server.log())
        first, second = server.requests[0], server.requests[1]
        check("resourceVersion" not in first.query and first.query["limit"] == "100", first.target)
        check(second.query["allowWatchBookmarks"] == "true" and 300 <= int(second.query["timeoutSeconds"]) < 600
              and "resourceVersionMatch" not in second.query, second.target)
        check(first.headers["user-agent"].startswith("ebpfdump-operator/"), first.headers)
        check(first.headers["accept"] == "application/json" and "authorization" not in first.headers
              and "expect" not in first.headers, first.headers)


@case
def a_slash_behind_the_address():
    """"//apis" is another path: the proxy answers 301."""
    with Server() as server, Driver(server.url + "/") as d:
        d.reflect(QUICK)
        target = until(lambda: server.requests, "a request")[0].target
        check(target.startswith("/apis/"), target)


@case
def selectors_are_escaped():
    with play(items(10), options=QUICK + " labels=1") as (server, d):
        until(lambda: len(server.requests) == 2, "the watch")
        for request in server.requests:
            check("labelSelector=a%3Db%2Cc%20in%20%28d%20e%29" in request.target, request.target)


@case
def pages():
    with play(items(10, obj("a", 1), token="t 1"), items(11, token="t/2"), items(12, obj("b", 2))) as (server, d):
        until(lambda: len(server.requests) == 4, "the watch")
        check(d.changes()[-1] == "synced 2", d.changes())
        check([r.query.get("continue") for r in server.requests] == [None, "t 1", "t/2", None])
        check(all("resourceVersion" not in r.query for r in server.requests[:3]))
        check(server.requests[3].query["resourceVersion"] == "10", server.requests[3].target)


@case
def expired_on_page_two():
    with play(items(10, obj("a", 1), token="t"), fail(410, "Expired"), items(20, obj("b", 2))) as (server, d):
        until(lambda: len(server.requests) == 4, "the watch")
        check(d.changes() == ["added default/b", "synced 1"], d.changes())
        third = server.requests[2]
        check("limit" not in third.query and "continue" not in third.query, third.target)
        check(server.requests[3].query["resourceVersion"] == "20")


@case
def expired_on_page_one():
    with play(fail(410, "Expired"), items(20, obj("b", 2))) as (server, d):
        check(d.changes() == ["added default/b", "synced 1"], d.changes())


@case
def too_large_resource_version():
    with play(fail(504, "Timeout", "Too large resource version: 5, current: 3",
                   details={"causes": [{"reason": "ResourceVersionTooLarge"}], "retryAfterSeconds": 1}),
              items(20, obj("b", 2)), options="backoff=20000 cap=20000") as (server, d):
        check(d.changes() == ["added default/b", "synced 1"], "at once:", d.changes())


@case
def deletes_while_disconnected():
    with play(items(10, obj("a", 1), obj("b", 2), obj("c", 3)),
              fail(410, "Gone"),
              items(20, obj("a", 1), obj("c", 15, uid="uid-other")),
              watch(event("ADDED", obj("d", 21)))) as (server, d):
        d.until("added default/d")
        check(d.changes() == ["added default/a", "added default/b", "added default/c", "synced 3",
                              "deleted_unknown default/b", "deleted_unknown default/c", "added default/c", "synced 2",
                              "added default/d"], d.changes())
        check("deleted_unknown default/b uid=uid-b rv=2 x= old=-" in d.seen)


@case
def another_uid_in_a_watch():
    with play(items(10, obj("a", 1)), watch(event("MODIFIED", obj("a", 12, uid="second")))) as (server, d):
        d.until("added default/a uid=second")
        check(d.changes() == ["added default/a", "synced 1", "deleted default/a", "added default/a"], d.changes())


@case
def known_and_unknown():
    """ADDED of a known object is an update, MODIFIED of an unknown one an addition, DELETED of an unknown one nothing."""
    with play(items(10, obj("a", 1)),
              watch(event("ADDED", obj("a", 11)), event("MODIFIED", obj("b", 12)), event("DELETED", obj("z", 13)),
                    event("MODIFIED", obj("b", 12)), end="end"), watch(event("ADDED", obj("c", 14)))) as (server, d):
        d.until("added default/c")
        check(d.changes() == ["added default/a", "synced 1", "updated default/a", "added default/b", "added default/c"],
              d.changes())
        check(server.log()[-1] == "watch(12)", server.log())


@case
def bookmarks():
    with play(items(10), watch(bookmark(50), end="cut"), watch(event("ADDED", obj("a", 51)))) as (server, d):
        d.until("added default/a")
        check(server.log() == ["get", "watch(10)", "watch(50)"], server.log())
        check(d.ask("info")["bookmarks"] == 1)


@case
def storm_of_410():
    """As an answer and as an event, by turns: always further apart, and over at last."""
    steps = [items(10, obj("a", 1))]
    for i in range(6):
        steps += [fail(410, "Expired") if i % 2 else watch(event("ERROR", status(410, "Expired"))), items(20 + i, obj("a", 1))]
    with play(*steps, watch(event("ADDED", obj("b", 40)))) as (server, d):
        d.until("added default/b")
        info = d.ask("info")
        check(info["expired"] == 6 and info["lists"] == 7 and info["problem"] == "ok", info)
        check(d.changes().count("added default/a") == 1, d.changes())
        lists = [r.at for r in server.requests if not r.watch]
        gaps = [b - a for a, b in zip(lists, lists[1:])]
        # 20, 40, 80, then 100 ms, and as much again by chance
        check(all(g >= 0.9 * b for g, b in zip(gaps, (.02, .04, .08, .1, .1, .1))), gaps)


def rewatches(*steps, version="10", lists=1):
    """What it is answered does not make it list again."""
    with play(items(10, obj("a", 1)), *steps, watch(event("ADDED", obj("b", 11)))) as (server, d):
        d.until("added default/b")
        log = server.log()
        check(log.count("get") == lists and log[-1] == f"watch({version})", log)
        return server.requests


@case
def too_many_requests():
    requests = rewatches(*[fail(429, "TooManyRequests")] * 3, text(429, "Too many requests, please try again later."))
    check(len(requests) == 6, len(requests))


@case
def retry_after_of_a_watch():
    requests = rewatches(fail(429, "TooManyRequests", headers={"Retry_After": "1"}))
    check(requests[2].at - requests[1].at >= 0.95, requests[2].at - requests[1].at)


@case
def retry_after_of_a_list():
    with play(fail(429, "TooManyRequests", headers={"Retry_After": "1"}), fail(503, headers={"Retry_After": "Wed, 21 Oct 2015"}),
              items(10, obj("a", 1))) as (server, d):
        first, second, third = (r.at for r in server.requests[:3])
        check(second - first >= 0.95 and third - second < 0.95 + WAIT, second - first)


@case
def api_server_unreachable():
    rewatches(*[text(500, "dial tcp 10.0.0.1:443: connect: connection refused")] * 3, text(502, "Bad Gateway", content_type="text/html"))


@case
def error_event_too_many():
    rewatches(watch(event("ERROR", status(429, "TooManyRequests"))))


@case
def error_event_that_asks_to_wait():
    """It says so in its Status, for its headers are gone long since. The next one does not."""
    wait = event("ERROR", status(429, "TooManyRequests", details={"retryAfterSeconds": 1}))
    requests = rewatches(watch(wait), watch(event("ERROR", status(429, "TooManyRequests"))))
    first, second, third = (r.at for r in requests[1:4])
    check(second - first >= 0.95, second - first)
    check(third - second < 0.95 + WAIT, third - second)


@case
def internal_errors():
    """Three are taken for a passing trouble of the watch; the fourth in a row makes it list."""
    rewatches(*[watch(event("ERROR", status(500, "InternalError")))] * 3)
    with play(items(10, obj("a", 1)), *[watch(event("ERROR", status(500, "InternalError")))] * 4, items(20),
              watch(event("ADDED", obj("b", 21)))) as (server, d):
        d.until("added default/b")
        check(server.log() == ["get"] + ["watch(10)"] * 4 + ["get", "watch(20)"], server.log())


@case
def bursts_of_5xx():
    steps = [fail(500, "InternalError"), fail(503, "ServiceUnavailable"), fail(504, "Timeout"), text(503, "not ready")]
    with play(*steps, items(10, obj("a", 1)), fail(503, "ServiceUnavailable"), *steps, items(20, obj("b", 2)),
              watch(event("ADDED", obj("c", 21)))) as (server, d):
        d.until("added default/c")
        check(d.changes() == ["added default/a", "synced 1", "deleted_unknown default/a", "added default/b", "synced 1",
                              "added default/c"], d.changes())


@case
def very_short_watches():
    """Without events: each makes it wait and list. With events: it goes on, not at full speed."""
    with play(items(10), watch(end="end"), items(20), watch(end="cut"), items(30), watch(event("ADDED", obj("a", 31))),
              options="backoff=20 cap=100 retry=20 short=60000") as (server, d):
        d.until("added default/a")
        check(server.log() == ["get", "watch(10)", "get", "watch(20)", "get", "watch(30)"], server.log())
    count = iter(range(11, 100000))

    def one(request, conn):
        rv = next(count)
        watch(event("MODIFIED", obj("a", rv)), end="end")(request, conn)
    with play(items(10, obj("a", 1)), options="backoff=100 cap=100 short=60000", otherwise=one) as (server, d):
        d.until("updated default/a .* rv=25 ")
        check(server.log().count("get") == 1, server.log())
        times = [r.at for r in server.requests[1:]]
        check(times[12] - times[2] >= 0.45, "many short watches are held back:", times[12] - times[2])


@case
def cut_at_every_byte():
    """A stream that ends anywhere in its second event: the first counts, the second comes with the next watch."""
    first, second = event("ADDED", obj("a", 11, x="é\n\"{")), event("MODIFIED", obj("a", 12, x="ü"))
    stream = (first + second).encode()
    cuts = range(0, len(stream) + 1)
    # n: cuts that are done. Where nothing came before one, and the end at once, a list may be in between
    state = {"n": 0, "cut": 0}

    def step(request, conn):
        if not request.watch:
            items(10)(request, conn)
            return
        rv, cut = request.query["resourceVersion"], cuts[state["n"] % len(cuts)]
        if rv == "10" and not state["cut"]:
            state["cut"] = 1
            conn.start()
            conn.chunk(stream[:cut])
            # longer than what is called very short
            time.sleep(0.003)
            conn.cut()
            return
        conn.start()
        # what is newer than the version asked for, then the version expires: the next turn
        conn.chunk({"10": first + second, "11": second, "12": ""}[rv])
        conn.chunk(event("ERROR", status(410, "Expired")))
        state["n"] += 1
        state["cut"] = 0
        conn.hang()
    with play(wait=None, options="backoff=1 cap=1 short=1 quiet=1", otherwise=step) as (server, d):
        until(lambda: state["n"] >= len(cuts), "all cuts", 60)
        info = d.ask("info")
        check(info["skipped"] == 0, info)
        # each turn, which ends with a 410, adds it once and updates it once, whatever was cut
        check(abs(info["added"] - info["expired"]) <= 1 and abs(info["updated"] - info["added"]) <= 1, info, state)
        check(info["cut_events"] > len(cuts) * 3 / 4, info)
        check(info["added"] == info["deleted_unknown"] or info["added"] == info["deleted_unknown"] + 1, info)


@case
def byte_by_byte():
    stream = (event("ADDED", obj("a", 11, x="zwölf {\"[\\")) + event("MODIFIED", obj("a", 12)) + bookmark(13)).encode()
    with play(items(10), watch(*[stream[i:i + 1] for i in range(len(stream))], end="end"), watch()) as (server, d):
        until(lambda: server.log()[-1] == "watch(13)", "the next watch")
        d.say("info")
        d.until("info")
        check(d.changes() == ["synced 0", "added default/a", "updated default/a"], d.changes())
        check('added default/a uid=uid-a rv=11 x=zwölf {"[\\ old=-' in d.seen, d.seen)


@case
def events_without_newlines():
    with play(items(10), watch(event("ADDED", obj("a", 11)).strip() + event("ADDED", obj("b", 12)).strip() + " \r\n\t"
                               + json.dumps(json.loads(event("ADDED", obj("c", 13))), indent=4))) as (server, d):
        d.until("added default/c")
        check(d.changes()[1:] == ["added default/a", "added default/b", "added default/c"], d.changes())


@case
def large_events():
    """2 MiB go through; what is beyond the limit makes it list."""
    large = event("ADDED", obj("a", 11, x="y" * (2 << 20)))
    with play(items(10), watch(large), options=QUICK + " quiet=1") as (server, d):
        until(lambda: d.ask("info")["added"] == 1, "the event")
    huge = '{"type":"ADDED","object":{"x":"' + "y" * (9 << 20)
    with play(items(10), watch(huge), items(20, obj("b", 2)), watch(event("ADDED", obj("c", 21)))) as (server, d):
        d.until("added default/c")
        check(server.log() == ["get", "watch(10)", "get", "watch(20)"], server.log())
        check("deleted" not in " ".join(d.changes()))


@case
def large_pages():
    """A page that is longer than an answer may be is asked for again, shorter."""
    def step(request, conn):
        limit = int(request.query["limit"])
        objects = [obj("a", 1, x="z" * (1 << 20))] * min(limit, 30)
        items(10, *objects)(request, conn)
    with play(step, step, step, step, wait="synced 1", options=QUICK + " page=64") as (server, d):
        check([r.query.get("limit") for r in server.requests[:4]] == ["64", "32", "16", "8"][:len(server.requests[:4])]
              or [r.query.get("limit") for r in server.requests if not r.watch] == ["64", "32", "16"],
              [r.target for r in server.requests])


def undecodable(*pieces):
    """What makes it list again, with the cache as it was."""
    with play(items(10, obj("a", 1)), watch(*pieces), items(20, obj("a", 1)), watch(event("ADDED", obj("b", 21)))) as (server, d):
        d.until("added default/b")
        check(server.log() == ["get", "watch(10)", "get", "watch(20)"], server.log())
        check(d.changes() == ["added default/a", "synced 1", "synced 1", "added default/b"], d.changes())


@case
def undecodable_events():
    undecodable("garbage\n")
    undecodable('{"type":"ADDED","object":{"x":"\xff"}}'.encode("latin-1"))
    undecodable('{"type":"ADDED","object":' + "[" * 101 + "]" * 101 + "}")
    undecodable('[{"type":"ADDED"}]')
    undecodable('{"type":"ADDED","object":{]}')


@case
def unknown_type():
    """Its version is not taken over: the list says what it was about."""
    undecodable(event("TELEPORTED", obj("z", 99)))
    undecodable(event("", obj("z", 99)))
    undecodable('{"object":{}}')


@case
def strange_objects():
    """Another kind, no name, no version, a Table: left out, and the stream goes on."""
    table = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "98"}, "rows": []}
    other = dict(obj("other", 97), kind="Pod")
    nameless = obj("", 96)
    unversioned = obj("u", "")
    with play(items(10), watch(event("ADDED", table), event("ADDED", other), event("ADDED", nameless), event("ADDED", unversioned),
                               event("ADDED", None), event("BOOKMARK", table), event("ADDED", obj("a", 11)), end="end")) as (server, d):
        d.until("added default/a")
        until(lambda: len(server.requests) >= 3, "the next watch")
        check(server.log()[2] == "watch(11)", server.log())
        check(d.ask("info")["skipped"] == 6)


@case
def lists_of_another_kind():
    with play(items(10, kind="Table"), items(10, kind="EbpfDump"), items(""), text(200, "<html>", content_type="text/html"), text(200, "{", content_type="application/json"),
              items(10, obj("a", 1))) as (server, d):
        check(d.changes() == ["added default/a", "synced 1"], d.changes())
        check(d.ask("info")["failures"] == 5)


@case
def items_without_kind():
    """As lists of built-in kinds have them."""
    bare = {k: v for k, v in obj("a", 1).items() if k not in ("kind", "apiVersion")}
    with play(items(10, bare)) as (server, d):
        check(d.changes() == ["added default/a", "synced 1"], d.changes())


@case
def duplicate_keys_and_depth():
    twice = event("ADDED", obj("a", 11)).replace('"spec":{"x":""}', '"spec":{"x":"one","x":"two"}')
    deep = event("ADDED", obj("b", 12, spec={"x": "", "deep": []})).replace("[]", "[" * 96 + "]" * 96)
    with play(items(10), watch(twice, deep)) as (server, d):
        d.until("added default/a .* x=two ")
        d.until("added default/b")


@case
def crd_removed_and_back():
    with play(items(10, obj("a", 1)), watch(event("DELETED", obj("a", 11)), end="end"),
              *[text(404, "404 page not found\n")] * 3, wait="deleted default/a") as (server, d):
        until(lambda: len(server.requests) >= 6, "it tries")
        server.otherwise = text(404, "404 page not found\n")
        info = until(lambda: (lambda i: i if i["problem"] == "not_served" else None)(d.ask("info")), "the reason")
        check(info["objects"] == 0 and info["synced"] and "404 page not found" in info["why"], info)
        server.script(items(500, obj("a", 450, uid="reborn")), watch(event("ADDED", obj("b", 501))))
        server.otherwise = s.hang_watch
        d.until("added default/b")
        check("added default/a uid=reborn rv=450 x= old=-" in d.seen)


@case
def rbac_and_filter():
    forbidden = fail(403, "Forbidden", "ebpfdumps is forbidden")
    with play(items(10, obj("a", 1)), forbidden, otherwise=forbidden) as (server, d):
        def twice(problem):
            """What fails once is not worth a line."""
            until(lambda: d.ask("info")["problem"] == problem, problem)
            before = d.ask("info")["failures"]
            until(lambda: d.ask("info")["failures"] > before, problem + ", again")
        twice("forbidden")
        server.otherwise = text(403, "<h3>Forbidden</h3>")
        twice("filtered")
        server.otherwise = fail(401, "Unauthorized")
        twice("unauthorized")
        log = d.stderr()
        for said in ("EbpfDump: forbidden: GET .*ebpfdumps is forbidden", "EbpfDump: filtered: ", "EbpfDump: unauthorized: "):
            check(len(re.findall(said, log)) == 1, "it is said once:", said, log)
        check(d.cache() == ["default/a"], "the cache stays in force:", d.cache())
        server.otherwise = s.hang_watch
        server.script(items(20, obj("a", 1)), watch(event("ADDED", obj("b", 21))))
        # one of the old answers may be under way, which takes no step
        d.until("added default/b")


@case
def nobody_listens():
    server = Server(items(10, obj("a", 1)))
    port = int(server.url.rsplit(":", 1)[1])
    with Driver(server.url) as d:
        d.reflect("backoff=50 cap=200 short=1")
        d.until("synced")
        until(lambda: d.ask("info")["phase"] == "watching", "the watch")
        time.sleep(0.01)
        server.close()
        until(lambda: d.ask("info")["problem"] == "connect", "the refused connection")
        with Server(watch(event("ADDED", obj("b", 11))), port=port) as again:
            d.until("added default/b")
            check(again.log() == ["watch(10)"], "no list is needed:", again.log())


@case
def kicked_out_of_backoff():
    with play(fail(500), items(10, obj("a", 1)), wait=None, options="backoff=60000 cap=60000") as (server, d):
        until(lambda: d.ask("info")["phase"] == "waiting", "the backoff")
        d.say("kick")
        d.until("added default/a")


@case
def slow_api():
    with play(slow(1.5, items(10, obj("a", 1))), slow(1.5, watch(event("ADDED", obj("b", 11)), delay=1.5))) as (server, d):
        d.until("added default/b")
        check(server.log() == ["get", "watch(10)"], server.log())


@case
def half_open_watch():
    """Nothing, not even a bookmark, for the idle limit: watched anew from the same version."""
    with play(items(10, obj("a", 1)), watch(), watch(event("ADDED", obj("b", 11))), options=QUICK + " idle=400") as (server, d):
        d.until("added default/b")
        log = server.log()
        check(log[:3] == ["get", "watch(10)", "watch(10)"], log)
        check(server.requests[2].at - server.requests[1].at >= 0.38, "too early")
    # bytes keep it alive, for longer than the limit; which is far from the time between them, on a machine that stalls as well
    with play(items(10), watch(*[bookmark(20 + i) for i in range(12)], event("ADDED", obj("c", 40)), delay=0.5),
              options=QUICK + " idle=5500") as (server, d):
        d.until("added default/c")
        check(server.log() == ["get", "watch(10)"], server.log())


@case
def unanswered_watch():
    """It connects and nothing comes: tried again ten times, and at last listed."""
    lists = []

    def step(request, conn):
        if not request.watch:
            lists.append(request)
            items(10 * len(lists))(request, conn)
        elif len(lists) == 1:
            conn.hang()
        else:
            watch(event("ADDED", obj("a", 21)))(request, conn)
    with play(otherwise=step, options=QUICK + " headers=250") as (server, d):
        d.until("added default/a")
        # a busy machine may miss the last one's headers as well
        check(d.ask("info")["watches"] >= 12 and len(lists) == 2, server.log())
        check(set(server.log()) == {"get", "watch(10)", "watch(20)"}, server.log())


@case
def answers_that_are_none():
    with play(items(10), raw(b""), raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), raw(b"SSH-2.0-x\r\n"),
              raw(b"HTTP/1.1 200 OK\r\nContent-Le"), wait=None) as (server, d):
        d.until("synced")
        server.otherwise = lambda request, conn: (watch(event("ADDED", obj("a", 21))) if request.watch else items(20))(request, conn)
        d.until("added default/a")


@case
def too_many_objects():
    with play(items(10, *[obj(f"o{i}", i + 1) for i in range(8)]), watch(event("ADDED", obj("x", 11)), event("MODIFIED", obj("o1", 12))),
              options=QUICK + " objects=5") as (server, d):
        d.until("updated default/o1")
        info = d.ask("info")
        check(info["objects"] == 5 and info["incomplete"] and info["left_out"] == 4, info)


@case
def many_objects():
    objects = [obj(f"o{i:04}", i + 1, namespace=f"ns{i % 7}") for i in range(2000)]
    objects.sort(key=lambda o: (o["metadata"]["namespace"], o["metadata"]["name"]))
    with play(items(5000, *objects), watch(event("DELETED", dict(objects[1000], metadata=dict(objects[1000]["metadata"], resourceVersion="5001")))),
              options=QUICK + " quiet=1") as (server, d):
        until(lambda: d.ask("info")["deleted"] == 1, "the delete")
        names = [f"{o['metadata']['namespace']}/{o['metadata']['name']}" for i, o in enumerate(objects) if i != 1000]
        check(d.cache() == names)


class Store:
    """Objects that change at random, with all that they ever were: what is to be in a cache of any version is known."""

    def __init__(self, rng):
        self.rng, self.lock, self.calm = rng, threading.Lock(), False
        self.rv, self.objects, self.log, self.compacted = 10, {}, [], 0
        self.states = {10: {}}  # resource version -> objects

    def put(self, kind, key, value):
        self.rv += 1
        value = dict(value, metadata=dict(value["metadata"], resourceVersion=str(self.rv)))
        if kind == "DELETED":
            del self.objects[key]
        else:
            self.objects[key] = value
        self.log.append((self.rv, kind, value))
        self.states[self.rv] = dict(self.objects)

    def change(self):
        with self.lock:
            name, namespace = f"o{self.rng.randrange(8)}", self.rng.choice(("a", "b"))
            key = f"{namespace}/{name}"
            old = self.objects.get(key)
            gone = old and self.rng.random() < 0.4
            if gone:
                self.put("DELETED", key, old)
            if old and not gone:
                self.put("MODIFIED", key, old)
            elif not old or self.rng.random() < 0.3:
                self.put("ADDED", key, obj(name, 0, uid=f"u{self.rv}", namespace=namespace))
            if self.rng.random() < 0.02:
                self.compact()

    def compact(self):
        self.compacted = self.rv - self.rng.randrange(4)
        self.log = [e for e in self.log if e[0] > self.compacted]

    def step(self, request, conn):
        rng = self.rng
        if request.watch:
            if not self.calm and rng.random() < 0.1:
                rng.choice((fail(410, "Expired"), fail(429), text(500, "dial tcp"), raw(b""), fail(403)))(request, conn)
            else:
                self.watch(int(request.query["resourceVersion"]), conn)
        elif not self.calm and rng.random() < 0.2:
            rng.choice((fail(500), fail(429), raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), text(404, "404 page not found")))(request, conn)
        else:
            self.list(request, conn)

    def list(self, request, conn):
        """A page; those that follow are of the first one's version."""
        with self.lock:
            rv, start = (int(n) for n in request.query.get("continue", f"{self.rv}.0").split("."))
            objects, expired = sorted(self.states[rv].items()), start and rv < self.compacted
        if expired:
            fail(410, "Expired")(request, conn)
            return
        end = start + int(request.query.get("limit", 1000))
        items(rv, *[o for _, o in objects[start:end]], token=f"{rv}.{end}" if end < len(objects) else None)(request, conn)

    def watch(self, rv, conn):
        conn.start()
        left = self.rng.randrange(1, 12)
        while conn.open:
            with self.lock:
                news, now, expired = [e for e in self.log if e[0] > rv], self.rv, rv < self.compacted
            if expired:
                conn.chunk(event("ERROR", status(410, "Expired")))
                conn.end()
                return
            for number, kind, value in news:
                data = event(kind, value).encode()
                if not self.calm and left == 0:
                    conn.chunk(data[:self.rng.randrange(len(data))])
                    conn.end() if self.rng.random() < 0.3 else conn.cut()
                    return
                left -= 1
                cut = self.rng.randrange(len(data))
                conn.chunk(data[:cut])
                if not conn.chunk(data[cut:]):
                    return
                rv = number
            if news and self.rng.random() < 0.2:
                rv = now
                conn.chunk(bookmark(rv))
            time.sleep(0.003)


class DataCheck:
    """Whether a cache is what the store was at the cache's version, and what the handlers were told adds up to it: an event that
    is missed is found, though a list may make good for it later."""

    def __init__(self, driver, store):
        self.driver, self.store = driver, store
        self.known, self.read, self.versions = {}, 0, set()

    def told(self, lines):
        for line in lines:
            word = line.split()
            if word[0] == "added":
                check(word[1] not in self.known, "added twice:", line)
            elif word[0] in ("updated", "deleted", "deleted_unknown"):
                check(word[1] in self.known, "not known:", line)
            if word[0] in ("added", "updated"):
                check(self.known.get(word[1]) != word[2:4], "nothing new:", line)
                self.known[word[1]] = word[2:4]
            elif word[0] in ("deleted", "deleted_unknown"):
                del self.known[word[1]]

    def now(self):
        """Returns the cache's version."""
        d = self.driver
        d.say("cache")
        end = d.until("cache-end").split()
        lines, self.read = d.seen[self.read:], len(d.seen)
        self.told(lines)
        have = {w[1]: w[2:4] for w in (line.split() for line in lines) if w[0] == "cached"}
        with self.store.lock:
            state = self.store.states[int(end[2])]
        want = {k: [f"uid={o['metadata']['uid']}", f"rv={o['metadata']['resourceVersion']}"] for k, o in state.items()}
        check(have == want, f"the cache of version {end[2]} differs:", {k: (have.get(k), want.get(k)) for k in set(have) | set(want)
                                                                          if have.get(k) != want.get(k)})
        check(have == self.known, f"what was told differs at {end[2]}")
        self.versions.add(end[2])
        return int(end[2])


def random_faults(seed):
    """A store that changes while lists and watches fail, are cut, or too old, at random: the cache is always what the store was."""
    store = Store(random.Random(seed))
    with play(wait="synced", options="backoff=2 cap=10 retry=2 short=20 page=5", otherwise=store.step) as (_, d):
        data = DataCheck(d, store)
        for n in range(500):
            store.change()
            time.sleep(0.005)
            if n % 10 == 0:
                data.now()
        store.calm = True
        store.change()
        until(lambda: data.now() == store.rv, "all is known")
        check(len(data.versions) > 20, "too few looks:", data.versions)
        return d.ask("info")


@case
def data_check_in_a_storm():
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        infos = list(pool.map(random_faults, range(8)))
    sums = {k: sum(i[k] for i in infos) for k in ("failures", "expired", "cut_events", "bookmarks", "deleted_unknown")}
    check(min(sums.values()) > 10, "too few faults to mean anything:", sums)


# ---- requests --------------------------------------------------------------------------------------------------------


@case
def requests_and_answers():
    table = [
        ("ok", 200, text(200, "{}", content_type="application/json")),
        ("ok", 201, text(201, "{}", content_type="application/json; charset=utf-8")),
        ("bad_answer", 200, text(200, "{", content_type="application/json")),
        ("unreachable", 500, text(500, "dial tcp 127.0.0.1:6443: connect: connection refused\n")),
        ("filtered", 403, text(403, "<h3>Forbidden</h3>")),
        ("forbidden", 403, fail(403, "Forbidden")),
        ("unauthorized", 401, fail(401, "Unauthorized")),
        ("not_served", 404, text(404, "404 page not found\n")),
        ("not_found", 404, fail(404, "NotFound")),
        ("conflict", 409, fail(409, "Conflict")),
        ("already_exists", 409, fail(409, "AlreadyExists")),
        ("expired", 410, fail(410, "Expired")),
        ("invalid", 422, fail(422, "Invalid", "spec.callback: Invalid value")),
        ("too_many", 429, fail(429, "TooManyRequests")),
        ("server", 500, fail(500, "InternalError")),
        ("rv_ahead", 504, fail(504, "Timeout", details={"causes": [{"reason": "ResourceVersionTooLarge"}]})),
        ("other", 301, text(301, "", headers={"Location": "/x"})),
        ("cut", 0, raw(b"")),
        ("bad_answer", 0, raw(b"SSH-2.0\r\n")),
        ("too_big", 200, lambda r, c: [c.start(), [c.chunk("y" * (1 << 20)) for _ in range(20)]]),
    ]
    with Server() as server, Driver(server.url) as d:
        for result, code, step in table:
            server.script(step)
            got = d.request("POST", "/apis/x/v1/things", body='{"a":1}')
            check((got["result"], got["code"]) == (result, code), result, code, got)
            check(("error" in got and got["error"] != "") == (result != "ok"), got)
        check(server.requests[0].body == b'{"a":1}' and server.requests[0].headers["content-type"] == "application/json")
        stats = d.ask("stats")
        check(stats["calls"] == stats["observed"] == len(table) and stats["pending"] == 0 and stats["contact"], stats)


@case
def methods_and_names_of_calls():
    with Server() as server, Driver(server.url) as d:
        server.otherwise = text(200, "{}", content_type="application/json")
        for method, path, kind, call in (
                ("GET", "/apis/apps/v1/namespaces/n/daemonsets", "-", "list daemonsets"),
                ("GET", "/apis/apps/v1/namespaces/n/daemonsets/x", "-", "get daemonsets"),
                ("POST", "/apis/events.k8s.io/v1/namespaces/n/events", "-", "create events"),
                ("PUT", "/apis/coordination.k8s.io/v1/namespaces/n/leases/x", "-", "update leases"),
                ("PATCH", "/apis/g/v1/namespaces/n/ebpfdumps/x/status", "application/apply-patch+yaml", "apply ebpfdumps/status"),
                ("PATCH", "/apis/g/v1/namespaces/n/ebpfdumps/x", "application/merge-patch+json", "patch ebpfdumps"),
                ("DELETE", "/api/v1/namespaces/n/pods/x", "-", "delete pods"),
                ("GET", "/api/v1/namespaces/n", "-", "get namespaces"),
                ("GET", "/version", "-", "get other")):
            d.request(method, path, body="{}" if method not in ("GET", "DELETE") else "", kind=kind, query="fieldManager=e&force=true")
            check(f"call {call} 200 ok" in d.seen, call, d.seen[-3:])
            last = server.requests[-1]
            check(last.method == method and last.query == {"fieldManager": "e", "force": "true"}, last.target)
            if kind != "-":
                check(last.headers["content-type"] == kind)


@case
def retries_of_requests():
    again = fail(503, headers={"Retry_After": "0"})
    with Server() as server, Driver(server.url) as d:
        server.script(again, fail(429, headers={"Retry_After": "1"}), text(200, "{}", content_type="application/json"))
        check(d.request("GET", "/apis/x/v1/things")["result"] == "ok")
        check(len(server.requests) == 3 and server.requests[2].at - server.requests[1].at >= 0.95)
        # a write is not sent again: who asked is told when; no header, no retry; a read that was cut is
        server.script(fail(503, headers={"Retry_After": "7"}))
        got = d.request("POST", "/x", body="{}")
        check(got["result"] == "server" and got["retry_after"] == 7, got)
        server.script(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"))
        check(d.request("PATCH", "/x", body="{}")["result"] == "cut")
        check(len(server.requests) == 5, server.log())
        server.script(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), text(200, "{}", content_type="application/json"))
        check(d.request("GET", "/x")["result"] == "ok" and len(server.requests) == 7)
        # neither is one that found its connection closed: a read leaves one that is kept
        server.script(text(200, "{}", content_type="application/json"), raw(b""))
        check(d.request("GET", "/x")["result"] == "ok" and d.request("PATCH", "/x", body="{}")["result"] == "cut")
        check([r.method for r in server.requests[7:]] == ["GET", "PATCH"], server.log())
        del server.requests[7:]
        # ten, and no more; none if it is not wanted
        server.script(*[again] * 11)
        check(d.request("GET", "/x")["result"] == "server" and len(server.requests) == 18, server.log())
        server.script(again)
        check(d.request("GET", "/x", flags=4)["retry_after"] == 0 and len(server.requests) == 19)


@case
def timeouts_and_cancelling():
    with Server() as server, Driver(server.url) as d:
        server.script(hang)
        d.say("timeout 1000")
        got = d.request("PATCH", "/x", body="{}")
        check(got["result"] == "timeout" and got["code"] == 0, got)
        # reflectors that are taken away in each phase: nothing is called any more, nothing leaks
        for steps, phase in (([hang], "listing"), ([items(1), hang], "connecting"), ([items(1), watch()], "watching"), ([fail(500)], "waiting")):
            server.script(*steps)
            d.reflect("backoff=60000 cap=60000")
            until(lambda: d.ask("info")["phase"] == phase and server.steps.empty(), phase)
            d.say("unreflect")
        server.script(items(1, obj("a", 1)), watch())
        d.reflect()
        d.until("added default/a")


@case
def warnings_of_answers():
    with Server() as server, Driver(server.url) as d:
        server.script(text(200, "{}", content_type="application/json",
                           headers={"Warning": '299 - "would violate PodSecurity \\"restricted:latest\\""'}))
        got = d.request("PATCH", "/x", body="{}")
        check(got["warnings"] == ['would violate PodSecurity "restricted:latest"'], got)


@case
def rate_and_limit():
    with Server() as server, Driver(server.url, "20") as d:  # 20/s, burst 2, 8 at once
        server.otherwise = text(200, "{}", content_type="application/json")
        begin = time.monotonic()
        # in one piece: none is answered before the last is asked for
        d.say("\n".join(["request GET /x - - 0"] * 9))
        check(d.until("refused") == "refused -105")
        for _ in range(8):
            d.until("response")
        took = server.requests[-1].at - begin
        check(len(server.requests) == 8 and took >= 0.28, "8 requests, two at once and six at 20/s:", took)
        check(d.ask("stats")["refused"] == 1)


@case
def unix_socket():
    folder = tempfile.mkdtemp(prefix="kube-")
    try:
        with Server(unix=folder + "/sock") as server, Driver(server.url) as d:
            server.script(items(1, obj("a", 1)))
            d.reflect()
            d.until("added default/a")
            check(server.requests[0].headers["host"] == "localhost", server.requests[0].headers)
    finally:
        shutil.rmtree(folder)


@case
def trouble_with_tls_is_known():
    with Server() as server, Driver(server.url) as d:
        server.script(text(502, "tls: failed to verify certificate: x509: certificate signed by unknown authority"))
        d.request("GET", "/x")
        check(d.ask("stats")["tls"] and not d.ask("stats")["contact"])
        server.script(text(200, "{}", content_type="application/json"))
        d.request("GET", "/x")
        check(not d.ask("stats")["tls"])


# ---- the lease -------------------------------------------------------------------------------------------------------

LEASE = "/apis/coordination.k8s.io/v1/namespaces/ops/leases/operator"
TIMES = "9000 6000 100"  # a machine that stalls for some seconds costs nobody the lease


def lease_server():
    server, objects = Server(), Objects()
    server.otherwise = objects.step
    return server, objects


def locked(objects, request):
    with objects.lock:
        return objects.handle(request)


def elect(d, name, times=TIMES, offset=0):
    d.say(f"elect ops operator {name} {times} {offset}")


@case
def one_leader():
    server, objects = lease_server()
    with server, Driver(server.url) as d:
        elect(d, "one")
        d.until("leading")
        spec = objects.objects[LEASE]["spec"]
        check(spec["holderIdentity"] == "one" and spec["leaseDurationSeconds"] == 9 and spec["leaseTransitions"] == 0, spec)
        check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", spec["renewTime"]), spec)
        until(lambda: len(objects.writes) > 4, "renewals")
        # the fast path: no reading before writing
        check([r.method for r in server.requests[:5]] == ["GET", "POST", "PUT", "PUT", "PUT"])
        check(objects.objects[LEASE]["spec"]["acquireTime"] == spec["acquireTime"])
        state = d.ask("lease")
        check(state["leading"] and state["may_write"] and state["alive"] and state["holder"] == "one", state)
        # somebody touches it: the fast path fails, reading helps
        with objects.lock:
            objects.rv += 1
            objects.objects[LEASE]["metadata"].update(resourceVersion=str(objects.rv), labels={"a": "b"})
        count = len(objects.writes)
        until(lambda: len(objects.writes) > count + 1, "renewals go on")
        check(objects.objects[LEASE]["metadata"]["labels"] == {"a": "b"}, "what others put there stays")
        d.say("release")
        check(d.until("released") == "released 1")
        spec = objects.objects[LEASE]["spec"]
        check(spec["holderIdentity"] == "" and spec["leaseDurationSeconds"] == 1 and spec["leaseTransitions"] == 0, spec)
        check(not d.ask("lease")["may_write"])


@case
def hand_over():
    server, objects = lease_server()
    with server, Driver(server.url) as one, Driver(server.url) as two:
        elect(one, "one")
        one.until("leading")
        elect(two, "two")
        two.until("holder one")
        check(not two.ask("lease")["may_write"])
        one.say("release")
        one.until("released 1")
        start = time.monotonic()
        two.until("leading")
        check(objects.objects[LEASE]["spec"]["leaseTransitions"] == 1)
        check(objects.objects[LEASE]["spec"]["leaseDurationSeconds"] == 9)
        check(time.monotonic() - start < 8, "it was given up: nobody waits for its end")


@case
def paused_leader():
    """SIGSTOP: another takes over; woken up, the first one may not write, not even once, and says it lost."""
    server, objects = lease_server()
    with server, Driver(server.url) as one, Driver(server.url) as two:
        one.say("guard 1")
        elect(one, "one")
        one.until("leading")
        check(one.request("PATCH", "/things/x", body="{}")["code"] == 404, "the leader may write")
        elect(two, "two")
        two.until("holder one")
        os.kill(one.process.pid, signal.SIGSTOP)
        # a write is waiting for it when it wakes up, before any timer has run
        one.say("request PATCH /things/x - - 0 {}")
        two.until("leading")
        count = len([r for r in server.requests if r.path == "/things/x"])
        os.kill(one.process.pid, signal.SIGCONT)
        got = json.loads(one.until("response").split(" ", 1)[1])
        check(got["result"] == "not_allowed", got)
        stats = one.ask("stats")
        check(stats["not_allowed"] == 1 and not [line for line in one.seen if line.startswith("call") and "not_allowed" in line],
              "what was not sent is no call:", stats)
        if not any(line.startswith("lost") for line in one.seen):
            one.until("lost")
        check(len([r for r in server.requests if r.path == "/things/x"]) == count)
        check(objects.objects[LEASE]["spec"]["holderIdentity"] == "two")
        state = one.ask("lease")
        check(not state["leading"] and not state["may_write"], state)


@case
def killed_leader():
    server, objects = lease_server()
    with server, Driver(server.url) as two:
        one = Driver(server.url)
        elect(one, "one")
        one.until("leading")
        elect(two, "two")
        two.until("holder one")
        one.process.kill()
        one.process.wait()
        two.until("leading")
        # not before the lease is over, which counts from when its last renewal was seen
        renewed = max(at for at, w in zip(objects.written_at, objects.writes) if w[2]["spec"]["holderIdentity"] == "one")
        check(time.monotonic() - renewed >= 9 - 0.05, time.monotonic() - renewed)
        check(objects.objects[LEASE]["spec"]["leaseTransitions"] == 1)


@case
def api_gone_for_a_leader():
    server, objects = lease_server()
    with server, Driver(server.url) as d:
        elect(d, "one")
        d.until("leading")
        until(lambda: len(objects.writes) > 2, "renewals")
        objects.fail = lambda request: text(500, "dial tcp 127.0.0.1:6443: connect: connection refused")
        line = d.until("lost")
        check("connection refused" in line, line)
        # the last renewal began behind the one before
        took = time.monotonic() - objects.written_at[-2]
        check(took >= 7.5 - 0.05, "too early", took)


@case
def short_trouble_of_a_leader():
    server, objects = lease_server()
    with server, Driver(server.url) as d:
        elect(d, "one")
        d.until("leading")
        left = [6]

        def some(request):
            left[0] -= 1
            return fail(503) if left[0] >= 0 else None
        objects.fail = some
        count = len(objects.writes)
        until(lambda: len(objects.writes) > count + 3, "renewals go on")
        state = d.ask("lease")
        check(not any(line.startswith("lost") for line in d.seen) and state["leading"])
        check(state["last_error"] == "", "what is over is not why the lease is lost, some day:", state)
        check(re.search("lease ops/operator: .*503", d.stderr()), "what stays is said:", d.stderr())


@case
def slow_api_for_a_leader():
    """Each answer takes half of what a renewal is good for, as 5 s of 10 s: it pauses at most, but the lease is kept."""
    server, objects = lease_server()
    with server:
        with Driver(server.url) as d:
            objects.fail = lambda request: slow(2, lambda r, conn: conn.json(*locked(objects, r)))
            elect(d, "one", "16000 4000 500")
            d.until("leading")
            start = time.monotonic()
            while time.monotonic() - start < 10 or len(objects.writes) < 5:
                check(d.ask("lease")["leading"], d.seen[-5:])
                time.sleep(0.1)
            until(lambda: d.ask("lease")["may_write"], "it may write")
            check(not [line for line in d.seen if line.startswith("lost")])
            most = 2 + (time.monotonic() - start) / 2
            check(objects.objects[LEASE]["spec"]["leaseTransitions"] == 0 and len(objects.writes) <= most, len(objects.writes), most)
            objects.fail = None


@case
def clocks_that_jump():
    """The holder's clock is an hour ahead, ours two hours behind: neither matters."""
    server, objects = lease_server()
    with server, Driver(server.url) as one, Driver(server.url) as two:
        elect(one, "one", offset=3600000)
        one.until("leading")
        elect(two, "two", offset=-7200000)
        two.until("holder one")
        # longer than the lease: it is renewed, whatever its times say
        time.sleep(9.5)
        check(one.ask("lease")["leading"] and not two.ask("lease")["leading"])
        one.say("release")
        one.until("released 1")
        two.until("leading")


@case
def deleted_lease():
    server, objects = lease_server()
    with server, Driver(server.url) as d:
        elect(d, "one")
        d.until("leading")
        with objects.lock:
            del objects.objects[LEASE]
        until(lambda: LEASE in objects.objects, "it is made anew")
        check(d.ask("lease")["leading"])


@case
def broken_leases():
    server, objects = lease_server()
    objects.objects[LEASE] = {"kind": "Lease", "metadata": {"resourceVersion": "5"}, "spec": {"holderIdentity": 7}}
    with server, Driver(server.url) as d:
        elect(d, "one")
        until(lambda: "not a string" in d.ask("lease")["last_error"], "it says why")
        with objects.lock:
            objects.objects[LEASE]["spec"] = None
        d.until("leading")


# ---- events ----------------------------------------------------------------------------------------------------------


@case
def events():
    server, objects = lease_server()
    with server, Driver(server.url) as d:
        d.say("event EbpfDump team-a dump Conflict another one is active")
        until(lambda: len(objects.writes) == 1, "the event")
        method, path, value = objects.writes[0]
        check(method == "POST" and re.fullmatch(r"/apis/events.k8s.io/v1/namespaces/team-a/events/dump\.[0-9a-f]{16}", path), path)
        check(value["reason"] == "Conflict" and value["note"] == "another one is active" and value["action"] == "Test"
              and value["type"] == "Normal" and value["reportingInstance"] == "driver"
              and value["regarding"] == {"apiVersion": s.API_VERSION, "kind": "EbpfDump", "namespace": "team-a", "name": "dump", "uid": "uid-1"}
              and re.fullmatch(r"[-\dT:]+\.\d{6}Z", value["eventTime"]), value)
        for _ in range(5):
            d.say("event EbpfDump team-a dump Conflict another one is active")
        check(until(lambda: (lambda e: e if e["seen"] == 6 else None)(d.ask("events")), "counted")["counted"] == 5)
        check(len(objects.writes) == 1, "no more than one patch in 30 s")
        d.say("flush")
        until(lambda: len(objects.writes) == 2, "the series")
        check(objects.writes[1][0] == "PATCH" and objects.writes[1][2]["series"]["count"] == 6, objects.writes[1])
        check(server.requests[-1].headers["content-type"] == "application/merge-patch+json")
        # 25 of one object, then none; another object has its own
        for i in range(40):
            d.say(f"event EbpfDump team-a dump Reason{i} note")
        d.say("event EbpfDump team-b other Reason note")
        end = until(lambda: (lambda e: e if e["pending"] == 0 else None)(d.ask("events")), "sent")
        check(end["created"] == 26 and end["dropped"] == 16, end)
        check(end["seen"] == end["created"] + end["counted"] + end["dropped"] + end["invalid"] + end["failed"], end)


@case
def events_that_are_refused():
    server, objects = lease_server()
    objects.fail = lambda request: fail(403, "Forbidden", details={"causes": [{"reason": "NamespaceTerminating"}]})
    with server, Driver(server.url) as d:
        d.say("event EbpfDump team-a dump Conflict note")
        until(lambda: d.ask("events")["failed"] == 1, "refused")
        objects.fail = None
        # never created, so that the next one is no repetition
        d.say("event EbpfDump team-a dump Conflict note")
        until(lambda: d.ask("events")["created"] == 1, "created")


@case
def events_in_order():
    """A patch does not overtake what it patches."""
    server, objects = lease_server()
    asked = threading.Event()

    def held(request, conn):
        asked.wait(WAIT)
        conn.json(*locked(objects, request))
    objects.fail = lambda request: held if request.method == "POST" else None
    with server, Driver(server.url) as d:
        d.say("event EbpfDump team-a dump Conflict note")
        d.say("event EbpfDump team-a dump Conflict note")
        d.say("flush")
        until(lambda: d.ask("events")["seen"] == 2 and server.requests, "it is being created")
        asked.set()
        until(lambda: d.ask("events")["created"] == 1, "created")
        check([r.method for r in server.requests] == ["POST"], server.log())
        d.say("event EbpfDump team-a dump Conflict note")
        d.say("flush")
        until(lambda: d.ask("events")["patches"] == 1, "patched")
        check(objects.writes[-1][2]["series"]["count"] == 3, objects.writes[-1])


# ---- the proxy's supervisor ------------------------------------------------------------------------------------------

# What kubectl proxy does as far as it matters here: a filter, and everything else to the API server at $UPSTREAM.
FAKE = """#!/usr/bin/env python3
import os, re, signal, socket, sys, threading
flags = dict(a[2:].split("=", 1) for a in sys.argv[2:])
folder = os.path.dirname(os.path.abspath(__file__))
with open(folder + "/starts", "a") as f:
    mask = [l.split()[1] for l in open("/proc/self/status") if l.startswith(("SigBlk", "SigIgn"))]
    f.write(repr({"pid": os.getpid(), "argv": sys.argv[1:], "fds": sorted(os.listdir("/proc/self/fd")), "pgid": os.getpgid(0), "mask": mask}) + "\\n")
print("Starting to serve on 127.0.0.1:" + flags["port"], flush=True)
if os.path.exists(folder + "/broken"):
    print("error: no way", file=sys.stderr, flush=True)
    sys.exit(3)
if os.path.exists(folder + "/stubborn"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while os.path.exists(folder + "/deaf"):
    signal.pause()
def copy(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    for s in (a, b):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
def answer(sock, code, body):
    sock.sendall(b"HTTP/1.1 %d X\\r\\nContent-Type: text/plain\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % (code, len(body)) + body)
    sock.shutdown(socket.SHUT_RDWR)
def serve(sock):
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        data = sock.recv(65536)
        if not data:
            return
        head += data
    path = head.split()[1].decode().split("?")[0]
    if not any(re.search(p, path) for p in flags["accept-paths"].split(",")):
        return answer(sock, 403, b"Forbidden")
    try:
        up = socket.create_connection(("127.0.0.1", int(os.environ["UPSTREAM"])))
    except OSError as e:
        return answer(sock, 500, b"dial tcp: connect: connection refused")
    # one request a connection: a kept one would pass the filter
    up.sendall(head.replace(b"HTTP/1.1\\r\\n", b"HTTP/1.1\\r\\nConnection: close\\r\\n", 1))
    threading.Thread(target=copy, args=(sock, up), daemon=True).start()
    copy(up, sock)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(flags["port"])))
listener.listen(64)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


class Proxy:
    """A scripted API server, and a driver that supervises a proxy to it: the one above, or the real kubectl."""

    def __init__(self, program=None, unix=False):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kube-"))
        self.server = Server()
        upstream = self.server.url.rsplit(":", 1)[1]
        self.port = s.free_port()
        self.program = program
        if not program:
            self.program = self.folder / "kubectl"
            self.program.write_text(FAKE, encoding="utf-8")
            self.program.chmod(0o755)
        config = self.folder / "config"
        config.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "clusters": [{"name": "x", "cluster": {"server": self.server.url}}], "users": [{"name": "x", "user": {}}]}), encoding="utf-8")
        self.url = f"unix:{self.folder}/sock" if unix else f"http://127.0.0.1:{self.port}"
        self.driver = Driver(self.url, env={"UPSTREAM": upstream, "KUBECONFIG": str(config), "HOME": str(self.folder)})

    def __enter__(self):
        return self, self.driver

    def __exit__(self, kind, *rest):
        try:
            self.driver.__exit__(kind, *rest)
        finally:
            self.server.close()
            shutil.rmtree(self.folder)

    def start(self, options=""):
        self.driver.say(f"proxy {self.program} {self.port} {options}")

    def starts(self):
        path = self.folder / "starts"
        return [eval(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@case
def proxy_starts_and_stops():
    with Proxy() as (proxy, d):
        proxy.start()
        d.until("up")
        start = proxy.starts()[0]
        check(start["argv"] == ["proxy", "--address=127.0.0.1", f"--port={proxy.port}",
                                "--reject-methods=^(CONNECT|OPTIONS|TRACE)$", "--accept-paths=^/apis/,^/version$"], start)
        check(start["pgid"] == start["pid"], "a group of its own:", start)
        check(len(start["fds"]) <= 5, "nothing but its output (and what it opened itself):", start)
        check(int(start["mask"][0], 16) == 0, "no signal is blocked:", start)
        d.say("stopproxy")
        d.until("stopped")
        until(lambda: not pathlib.Path(f"/proc/{start['pid']}").exists(), "it is gone and reaped")
        check(d.ask("proxyinfo")["deaths"] == 0)


def life_of_a_proxy(program, unix=False):
    with Proxy(program, unix) as (proxy, d):
        server = proxy.server
        server.script(items(10, obj("a", 1)), watch(event("ADDED", obj("b", 11))))
        server.route = lambda request: text(200, '{"major":"1"}', content_type="application/json") if request.path == "/version" else None
        proxy.start("probe=300 timeout=1500")
        d.until("up")
        d.reflect()
        d.until("added default/b")
        ours = [r for r in server.requests if r.path == s.GROUP]
        check(ours[0].headers["user-agent"].startswith("ebpfdump-operator/"), ours[0].headers)
        check(d.request("GET", "/version")["result"] == "ok")
        check(d.request("GET", "/api/v1/secrets")["result"] == "filtered", "the filter")
        # killed: the watch goes on from the same version, without a list
        server.script(watch(event("ADDED", obj("c", 12))))
        pid = d.ask("proxyinfo")["pid"]
        os.kill(pid, signal.SIGKILL)
        d.until("down killed by signal 9")
        d.until("added default/c")
        info = until(lambda: (lambda i: i if i["up"] else None)(d.ask("proxyinfo")), "up again")
        check(info["deaths"] == 1 and info["starts"] == 2 and info["pid"] != pid, info)
        check(not pathlib.Path(f"/proc/{pid}").exists(), "reaped")
        ours = [str(r) for r in server.requests if r.path == s.GROUP]
        check(ours == ["get", "watch(10)", "watch(11)"], ours)
        # hung: nothing is answered, not even by the proxy itself
        server.script(watch(event("ADDED", obj("d", 13))))
        os.kill(info["pid"], signal.SIGSTOP)
        d.until("down it does not answer")
        d.until("added default/d")
        check(until(lambda: (lambda i: i if i["up"] else None)(d.ask("proxyinfo")), "up again")["hangs"] == 1)
        # an API server that does not answer is no proxy that hangs
        server.otherwise = hang
        server.route = lambda request: None
        d.say("timeout 2000")
        check(d.request("GET", "/version", flags=4)["result"] == "timeout")
        check(d.ask("proxyinfo")["up"] and d.ask("proxyinfo")["hangs"] == 1)
        # and one that is not there neither
        d.say("timeout 0")
        server.close()
        check(d.request("GET", "/version", flags=4)["result"] == "unreachable")
        check(d.ask("proxyinfo")["up"])


@case
def proxy_killed_and_hung():
    life_of_a_proxy(None)


if shutil.which("kubectl"):
    @case
    def kubectl_killed_and_hung():
        life_of_a_proxy(shutil.which("kubectl"))

    @case
    def kubectl_on_a_unix_socket():
        life_of_a_proxy(shutil.which("kubectl"), unix=True)


@case
def proxy_that_cannot_live():
    with Proxy() as (proxy, d):
        (proxy.folder / "broken").touch()
        proxy.start("backoff=50")
        line = d.until("fatal")
        check("exit status 3" in line and "no way" in line, line)
        check(len(proxy.starts()) == 5, len(proxy.starts()))
        d.say("stopproxy")
        d.until("stopped")
    with Server() as server, Driver(server.url) as d:
        d.say("proxy /nowhere/kubectl 8001")
        check("/nowhere/kubectl" in d.until("failed"))


@case
def proxy_that_does_not_listen():
    """Alive, and nobody is there to connect to: it is replaced, as one that hangs."""
    with Proxy() as (proxy, d):
        (proxy.folder / "deaf").touch()
        proxy.start("backoff=50 deaf=700 deaths=100")
        until(lambda: len(proxy.starts()) >= 3, "it is started again")
        (proxy.folder / "deaf").unlink()
        d.until("up")
        info = d.ask("proxyinfo")
        check(info["hangs"] >= 2 and info["deaths"] >= 2 and "it does not listen" in info["last"], info)


@case
def proxy_whose_certificates_are_late():
    """The new authority of the API server reaches the pod after the first restart: another one follows."""
    with Proxy() as (proxy, d):
        server = proxy.server
        server.otherwise = text(502, "tls: failed to verify certificate: x509: certificate signed by unknown authority")
        proxy.start("backoff=50 probe=200 tls=600")
        d.until("up")
        d.reflect()
        until(lambda: len(proxy.starts()) >= 3, "a second restart")
        server.otherwise = items(10)
        until(lambda: not d.ask("stats")["tls"], "it is over")
        starts = len(proxy.starts())
        time.sleep(1.5)
        check(len(proxy.starts()) == starts, "no more restarts")


@case
def proxy_that_does_not_stop():
    with Proxy() as (proxy, d):
        (proxy.folder / "stubborn").touch()
        proxy.start("stop=300")
        d.until("up")
        pid = proxy.starts()[0]["pid"]
        d.say("stopproxy")
        d.until("stopped")
        check(not pathlib.Path(f"/proc/{pid}").exists(), "killed and reaped")


@case
def proxy_dies_with_its_parent():
    with Proxy() as (proxy, d):
        proxy.start()
        d.until("up")
        pid = proxy.starts()[0]["pid"]
        d.process.kill()
        d.process.wait()

        def gone():
            try:
                return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] == "Z"
            except (FileNotFoundError, ProcessLookupError):
                return True
        until(gone, "it is gone")
        d.killed = True


# ---- memory ----------------------------------------------------------------------------------------------------------


def stream_of(count, first=11):
    """Events in pieces of 64 KiB, cut anywhere."""
    names = [f"o{i}" for i in range(50)]
    data = bytearray()
    for i in range(count):
        kind = ("MODIFIED", "MODIFIED", "DELETED", "ADDED")[i // 50 % 4]
        data += event(kind, obj(names[i % 50], first + i, x="x" * 300)).encode()
        if len(data) > 65536:
            yield bytes(data[:65536])
            del data[:65536]
    yield bytes(data)


def flat_memory(count, program, prefix=(), limit_kib=None):
    marks = {}

    def step(request, conn):
        if not request.watch:
            items(10)(request, conn)
            return
        conn.start()
        sent = 0
        for piece in stream_of(count):
            conn.chunk(piece)
            sent += 1
            if limit_kib and sent % 50 == 0:
                marks[sent] = marks["driver"].rss()
        conn.hang()
    with Server() as server:
        server.otherwise = step
        with Driver(server.url, program=program, prefix=prefix) as d:
            marks["driver"] = d
            d.reflect("quiet=1")
            info = until(lambda: (lambda i: i if i["events"] == count else None)(d.ask("info")), "all events", 240)
            # what of DELETED is known, and the rest, adds up
            check(info["skipped"] == 0 and info["watches"] == 1 and info["objects"] == 50, info)
            if limit_kib:
                seen = [v for k, v in sorted((k, v) for k, v in marks.items() if isinstance(k, int))]
                check(len(seen) > 10, len(seen))
                check(max(seen[len(seen) // 2:]) - seen[2] <= limit_kib, "it grows:", seen)


@case
def memory_is_flat():
    """100 000 events; the resident memory of the second half is that of the beginning."""
    flat_memory(100000, DRIVER, limit_kib=512)


@case
def memory_with_asan():
    """100 000 events without an error or a leak."""
    flat_memory(100000, SAN)


@case
def memory_with_valgrind():
    """100 000 events, and no error and no leak that valgrind finds."""
    flat_memory(100000, DRIVER, prefix=("valgrind", "-q", "--leak-check=full", f"--error-exitcode={FOUND}", "--errors-for-leak-kinds=definite,indirect"))


def main():
    wanted = sys.argv[3:]
    cases = [c for c in CASES if not wanted or any(w in c.__name__ for w in wanted)]
    passed = failed = 0

    def run(fn):
        start = time.monotonic()
        try:
            fn()
            return None, time.monotonic() - start
        except Failed as e:
            where = traceback.extract_tb(e.__traceback__)
            line = next((f.lineno for f in reversed(where) if f.name not in ("check", "until")), 0)
            return f"line {line}: {e}", time.monotonic() - start
        except Exception:  # pylint: disable=broad-except
            return traceback.format_exc(), time.monotonic() - start
    # the long one first; the others wait most of the time
    cases.sort(key=lambda c: c.__name__ != "memory_with_valgrind")
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for fn, (problem, seconds) in zip(cases, pool.map(run, cases)):
            if problem:
                failed += 1
                print(f"not ok {fn.__name__} ({seconds:.1f} s)\n    " + problem.rstrip().replace("\n", "\n    "))
            else:
                passed += 1
                print(f"ok {fn.__name__} ({seconds:.1f} s)")
            sys.stdout.flush()
    print(f"{passed} passed, {failed} failed")
    return failed > 0 or passed == 0


if __name__ == "__main__":
    sys.exit(main())
