#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
usage: run.py PROGRAM SANITIZED [WORD...]

ebpfdump-callback from outside: what it takes and refuses, who may, what it keeps when clients and disks fail it. Runs the
tests whose names contain one of the words, or all. All but those for large amounts use the program with sanitizers.
"""
import contextlib
import gzip
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from receiver import Receiver, clean_environment, exchange, line, run, seed, test, wait_for  # noqa: E402

NDJSON = "application/x-ndjson"
fast = None  # the program without sanitizers


def curl(receiver, *args, data=None):
    """Status and body, as curl has them."""
    out = subprocess.run(["curl", "-sS", "-m", "60", "-w", "\n%{http_code}", *args, receiver.url("/ingest")], input=data,
                         capture_output=True, check=True).stdout.decode()
    body, status = out.rsplit("\n", 1)
    return int(status), body


def printed(receiver, count):
    wait_for(f"{count} lines", lambda: len(receiver.lines()) >= count)
    assert len(receiver.lines()) == count, len(receiver.lines())
    return receiver.lines()


# ---- what it takes ----


@test
def curl_single_lines_array_chunked_gzip():
    messages = [line(m) for i in range(3) for m in exchange(i, body='he said "hi"\n\u00e9\U0001F600\x7f')]
    one, lines = messages[0].encode(), "\n".join(messages).encode() + b"\n"
    js, nd = ["-H", "Content-Type: application/json"], ["-H", f"Content-Type: {NDJSON}; charset=utf-8"]
    read = ["--data-binary", "@-"]
    packed, chunked = ["-H", "Content-Encoding: gzip"], ["-H", "Transfer-Encoding: chunked"]
    with Receiver() as r:
        expected = []
        for args, data, count in [
            (js, one, 1), (js, one + b"\n", 1), (nd, lines, 6), (nd, lines[:-1], 6), (js, ("[" + ",".join(messages) + "]").encode(), 6),
            (nd + chunked, lines, 6), (nd + packed, gzip.compress(lines), 6), (nd + packed + chunked, gzip.compress(lines), 6),
            (js, json.dumps(json.loads(messages[0]), indent=2, ensure_ascii=False).encode(), 1),
            (nd + ["-H", "Expect: 100-continue"], lines, 6), (nd + ["--http1.0"], lines, 6), (js, b"[]", 0),
        ]:
            status, body = curl(r, *args, *read, data=data)
            assert status == 200 and json.loads(body) == {"messages": count}, (args, status, body)
            expected += messages[:count]
        assert printed(r, len(expected)) == expected
        m = r.metrics()
        assert m["messages_total"] == len(expected) and m["requests_total"] == 12 and m["received_bytes_total"] > 0, m


@test
def unknown_keys_and_order_are_kept():
    text = '{"zzz":{"a":[1,{"b":null}]},"body":"\\u0041\\/","headers":{},"version":"","status_code":0,"path":"/","method":"M",' \
           '"remote_port":0,"remote_ip":"","timing_ms":0,"direction":0,"big":123456789012345678901234567890.10e5}'
    with Receiver() as r:
        assert r.post(text).status == 200
        assert printed(r, 1) == [text]


@test
def as_large_as_may_be():
    body = ("".join(line(m) + "\n" for i in range(10) for m in exchange(i, body="x" * 1500)) * 2000).encode()[:64 << 20]
    body = body[:body.rindex(b"\n") + 1]
    count = body.count(b"\n")
    with Receiver(program=fast) as r:
        before = r.rss()
        assert r.post(body, type=NDJSON).json == {"messages": count}
        assert r.post(gzip.compress(body, 1), {"Content-Encoding": "gzip"}, type=NDJSON).json == {"messages": count}
        wait_for("all is out", lambda: os.path.getsize(r.out.name) == 2 * len(body))
        # the bodies are gone again, the output's buffer is what it is, the page has its messages
        wait_for("memory is given back", lambda: r.metrics()["receiving_bytes"] == 0)
        assert r.rss() - before < (128 + 128 + 64) << 20, r.rss()
        assert r.post(body + body, type=NDJSON).status == 413


# ---- what it refuses ----


@test
def wrong_bodies_say_where():
    good = line(seed())
    cases = [
        (b"", 400, "line 1, column 1: there is no message"),
        (b"{", 400, "line 1, column 2: it ends too early"),
        (b"nonsense", 400, "line 1, column 1: a message must be a JSON object"),
        ((good + "\n" + good[:-1]).encode(), 400, "line 2, column"),
        ((good + "\n\n" + line(seed(status_code="200"))).encode(), 400, ": `status_code` must be a number"),
        ((good + good).encode(), 400, "line 1, column"),
        (line({k: v for k, v in seed().items() if k != "body"}).encode(), 400, "`body` is missing"),
        (b"[" + good.encode() + b",{}]", 400, "`direction` is missing"),
        (good.encode()[:-1] + b",\"x\":" + b"[" * 100000, 400, "nested too deeply"),
        (good.encode().replace(b"a.example", b"\xff"), 400, "not UTF-8"),
    ]
    with Receiver() as r:
        c = r.connect()
        for body, status, text in cases:
            answer = r.post(body, connection=c)
            assert answer.status == status and text in answer.text, (body[:100], answer.status, answer.text)
            assert answer.text.endswith("\n") and answer.text.count("\n") == 1
        # on the same connection
        assert r.post(good, connection=c).status == 200
        assert printed(r, 1) == [good]
        m = r.metrics()
        assert m['refused_total{reason="syntax"}'] == len(cases) and m["messages_total"] == 1, m
        assert m["connections_total"] == 2, m


@test
def wrong_types_and_sizes():
    good = line(seed()).encode()
    with Receiver("--body-bytes=64K", "--memory-bytes=1M") as r:
        for type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/jsonx"]:
            answer = r.post(good, type=type)
            assert answer.status == 415 and "application/json" in answer.headers["Accept"], (type, answer.status)
        answer = r.ask("POST", "/ingest", good)
        assert answer.status == 415
        for encoding in ["br", "deflate", "gzip, gzip"]:
            answer = r.post(good, {"Content-Encoding": encoding})
            assert answer.status == 415 and answer.headers["Accept-Encoding"] == "gzip", encoding
        assert r.post(good, {"Content-Encoding": "identity"}).status == 200
        assert "gzip" in r.post(good, {"Content-Encoding": "gzip"}).text
        assert r.post(gzip.compress(good)[:-9], {"Content-Encoding": "gzip"}).status == 400
        large = line(seed(body="x" * 65536)).encode()
        assert r.post(large).status == 413
        assert curl(r, "-H", "Content-Type: application/json", "-H", "Transfer-Encoding: chunked", "--data-binary", "@-", data=large)[0] == 413
        assert curl(r, "-H", "Content-Type: application/json", "-H", "Expect: 100-continue", "--data-binary", "@-", data=large)[0] == 413
        bomb = gzip.compress(line(seed(body="x" * (200 << 20))).encode())
        before = r.rss()
        answer = r.post(bomb[:60000], {"Content-Encoding": "gzip"})
        assert answer.status == 413, answer.text
        small = gzip.compress(line(seed(body="x" * (8 << 20))).encode())
        assert r.post(small, {"Content-Encoding": "gzip"}).status == 413
        assert r.rss() - before < 32 << 20
        assert r.post(good, {"Idempotency-Key": "k" * 256}).status == 400
        for method, path, status, allow in [
            ("GET", "/ingest", 405, "POST"), ("PUT", "/ingest", 405, "POST"), ("OPTIONS", "/ingest", 405, "POST"),
            ("POST", "/", 405, "GET, HEAD"), ("DELETE", "/api/exchanges", 405, "GET, HEAD"), ("GET", "/api/session", 405, "POST"),
            ("GET", "/nowhere", 404, None), ("GET", "/api/nowhere", 404, None), ("GET", "/api/exchanges/0", 404, None),
            ("GET", "/api/exchanges/77", 404, None), ("GET", "/api/exchanges/x", 404, None), ("GET", "/../etc/passwd", 404, None),
        ]:
            answer = r.ask(method, path)
            assert answer.status == status and answer.headers["Allow"] == allow, (method, path, answer.status)
        assert len(printed(r, 1)) == 1


@test
def garbage_on_the_wire():
    random.seed(7)
    good = line(seed()).encode()
    head = b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    pieces = [b"\0" * 5000, b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"a" * 200000, b"\r\n" * 3000, head + b"Content-Length: -1\r\n\r\n",
              head + b"Content-Length: 10\r\nContent-Length: 20\r\n\r\n", head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
              head + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", head + b"X: " + b"y" * 100000 + b"\r\n\r\n",
              head + b"Content-Length: 100\r\n\r\n" + good[:50]]
    with Receiver() as r:
        for i in range(200):
            data = bytearray(random.choice(pieces) + (good if i % 2 else b""))
            for _ in range(random.randrange(4)):
                data[random.randrange(len(data))] = random.randrange(256)
            with socket.create_connection(("127.0.0.1", r.port)) as s:
                s.settimeout(0.02)
                try:
                    s.sendall(data)
                    s.recv(100)
                except OSError:
                    pass
        assert r.post(good).status == 200
        wait_for("bodies given up", lambda: r.metrics()["receiving_bytes"] == 0)
        assert r.metrics()["aborted_total"] > 0


# ---- once ----


@test
def idempotency_keys():
    with Receiver("--idempotency-keys=16") as r:
        batch = [m for i in range(5) for m in exchange(i)]
        assert r.post(batch, {"Idempotency-Key": "a"}).json == {"messages": 10}
        assert r.post(batch, {"Idempotency-Key": "a"}).json == {"messages": 10, "duplicate": True}
        # refused: not taken, so that it can come again
        assert r.post(b"{}", {"Idempotency-Key": "b"}).status == 400
        assert r.post(batch, {"Idempotency-Key": "b"}).json == {"messages": 10}
        for i in range(16):
            r.post(batch[:1], {"Idempotency-Key": f"c{i}"})
        assert r.post(batch, {"Idempotency-Key": "a"}).json == {"messages": 10}
        printed(r, 46)
        m = r.metrics()
        assert m["messages_total"] == 46 and m["duplicates_total"] == 10, m


@test
def many_at_once():
    per, threads = 120, 8
    with Receiver() as r:
        def send(t):
            c = r.connect()
            for i in range(per):
                batch = [seed(path=f"/{t}/{i}/{k}", method="M") for k in range(1 + i % 7)]
                headers = {"Idempotency-Key": f"{t}-{i}"}
                assert r.post(batch, headers, c).json == {"messages": len(batch)}
                if i % 5 == 0:
                    assert r.post(batch, headers, c).json["duplicate"]
        workers = [threading.Thread(target=send, args=(t,)) for t in range(threads)]
        for w in workers:
            w.start()
        for w in workers:
            w.join()
        expected = sorted(f"/{t}/{i}/{k}" for t in range(threads) for i in range(per) for k in range(1 + i % 7))
        paths = [json.loads(text)["path"] for text in printed(r, len(expected))]
        assert sorted(paths) == expected
        # messages of one POST stand together, and those of a connection in order
        batches = [p.rsplit("/", 1) for p in paths]
        for before, (batch, k) in zip([("", "-1")] + batches, batches):
            assert (k == "0") if before[0] != batch else int(k) == int(before[1]) + 1, (before, batch, k)
        for t in range(threads):
            order = [int(p.split("/")[2]) for p in paths if p.startswith(f"/{t}/")]
            assert order == sorted(order)


# ---- who may ----


@test
def token():
    path = pathlib.Path(Receiver.directory, "token")
    path.write_text("s3cret-0ne\n")
    with Receiver(f"--token-file={path}", "--log-level=debug") as r:
        right, wrong = {"Authorization": "Bearer s3cret-0ne"}, {"Authorization": "Bearer s3cret-0nf"}
        for headers in [{}, wrong, {"Authorization": "Basic s3cret-0ne"}, {"Cookie": "ebpfdump=" + "0" * 64}]:
            answer = r.post(seed(), headers)
            assert answer.status == 401 and "Bearer" in answer.headers["WWW-Authenticate"], answer.status
            for api in ["/api/exchanges", "/api/exchanges/1", "/api/stream"]:
                assert r.get(api, headers).status == 401
            assert r.ask("POST", "/api/session", b"", headers).status == 401
        assert r.post(seed(), right).status == 200
        assert r.get("/api/exchanges", right).json["exchanges"][0]["id"] == 1
        for path_, status in [("/", 200), ("/page.js", 200), ("/healthz", 200), ("/metrics", 200)]:
            assert r.get(path_).status == status
        session = r.ask("POST", "/api/session", b"", right)
        assert session.status == 204
        cookie = session.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "s3cret" not in cookie
        cookie = {"Cookie": "other=1; " + cookie.split(";")[0]}
        assert r.get("/api/exchanges", cookie).status == 200
        # a cookie does not send messages: another site's page must not either
        assert r.post(seed(), cookie).status == 401
        # as a Secret changes
        new = pathlib.Path(Receiver.directory, "new")
        new.write_text("s3cret-tw0")
        new.rename(path)
        wait_for("the new token", lambda: r.post(seed(), {"Authorization": "Bearer s3cret-tw0"}).status == 200)
        assert r.post(seed(), right).status == 401 and r.get("/api/exchanges", cookie).status == 401
        assert "s3cret" not in r.log() and "s3cret" not in r.get("/metrics").text
        assert r.metrics()['refused_total{reason="token"}'] > 4


@test
def signature():
    path = pathlib.Path(Receiver.directory, "key")
    path.write_text("k3y\n")
    body = "".join(line(m) + "\n" for m in exchange(1)).encode()

    def sign(data, key=b"k3y"):
        return {"X-Ebpfdump-Signature": "sha256=" + hmac.new(key, data, hashlib.sha256).hexdigest()}
    with Receiver(f"--hmac-file={path}") as r:
        assert r.post(body, sign(body), type=NDJSON).status == 200
        packed = gzip.compress(body)
        assert r.post(packed, {**sign(packed), "Content-Encoding": "gzip"}, type=NDJSON).status == 200
        for headers in [{}, sign(body, b"k3z"), sign(body[1:]), {"X-Ebpfdump-Signature": "sha256="}, {"X-Ebpfdump-Signature": "x"}]:
            answer = r.post(body, headers, type=NDJSON)
            assert answer.status == 401 and "Signature" in answer.text
        assert r.post(packed, {**sign(body), "Content-Encoding": "gzip"}, type=NDJSON).status == 401
        assert r.metrics()['refused_total{reason="signature"}'] == 6
        printed(r, 4)


@test
def other_sites():
    with Receiver() as r:
        for headers in [{"Host": "evil.example"}, {"Host": f"evil.example:{r.port}"}, {"Origin": "http://evil.example"},
                        {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
                        {"Host": "127.0.0.1.evil.example"}, {"Origin": f"http://127.0.0.1:{r.port + 1}"}]:
            assert r.post(seed(), headers).status == 403, headers
            for path in ["/api/exchanges", "/api/stream", "/metrics"]:
                assert r.get(path, headers).status == 403, (headers, path)
        assert r.get("/", {"Host": "evil.example"}).status == 403
        for headers in [{"Host": "localhost"}, {"Host": "127.9.9.9:1"}, {"Host": "[::1]:8090"}, {"Sec-Fetch-Site": "none"},
                        {"Origin": f"http://127.0.0.1:{r.port}", "Sec-Fetch-Site": "same-origin"}]:
            assert r.post(seed(), headers).status == 200, headers
        assert r.get("/", {"Sec-Fetch-Site": "cross-site"}).status == 200
        for path in ["/", "/page.js", "/api/exchanges", "/nowhere"]:
            h = r.get(path).headers
            assert "default-src 'none'" in h["Content-Security-Policy"] and "unsafe" not in h["Content-Security-Policy"]
            assert h["X-Content-Type-Options"] == "nosniff" and h["Cache-Control"] == "no-store"
            assert h["Cross-Origin-Resource-Policy"] == "same-origin" and "Access-Control-Allow-Origin" not in h
    with Receiver("--host=dump.example", "--host=other.example") as r:
        for host, status in [("Dump.Example", 200), ("other.example:8090", 200), ("localhost", 200), ("third.example", 403)]:
            assert r.post(seed(), {"Host": host}).status == status, host


# ---- where it goes ----


def files_of(directory):
    return sorted(p for p in pathlib.Path(directory).iterdir() if p.name.startswith("messages-"))


@test
def files_rotate():
    directory = pathlib.Path(Receiver.directory, "out")
    directory.mkdir()
    flags = [f"--dir={directory}", "--file-bytes=10K", "--files=4"]
    with Receiver(*flags) as r:
        for i in range(100):
            assert r.post([seed(path=f"/{i}/{k}") for k in range(5)]).status == 200
        assert r.lines() == []
        files = files_of(directory)
        assert len(files) == 4 and all(p.stat().st_size <= 10240 for p in files), files
        assert all(p.stat().st_mode & 0o777 == 0o640 & ~os.umask(os.umask(0)) for p in files)
        paths = [json.loads(text)["path"] for p in files for text in p.read_text().splitlines()]
        every = [f"/{i}/{k}" for i in range(100) for k in range(5)]
        assert paths == every[-len(paths):] and len(paths) > 100
        m = r.metrics()
        assert m["files_begun_total"] - m["files_removed_total"] == 3, m
        other = Receiver(*flags, ready=False)
        assert other.process.wait(60) == 1 and "another receiver" in other.log()
    before = files_of(directory)
    with Receiver(*flags) as r:
        assert r.post(seed(path="/last")).status == 200
        assert json.loads(files_of(directory)[-1].read_text().splitlines()[-1])["path"] == "/last"
        assert files_of(directory)[-2:] in (before[-2:], [before[-1], files_of(directory)[-1]])


@test
def killed_at_any_moment():
    """What was acknowledged is in the files, whole; a new start goes on."""
    directory = pathlib.Path(Receiver.directory, "out")
    directory.mkdir()
    random.seed(3)
    acknowledged, number = set(), 0
    for life in range(60):
        if life >= 6 and len(acknowledged) > 20:
            break
        r = Receiver(f"--dir={directory}", "--file-bytes=64K", "--files=1000", program=fast)
        killer = threading.Timer(0.05 + random.random() * 0.3, r.process.kill)
        killer.start()
        try:
            c = r.connect()
            while True:
                number += 1
                batch = [seed(path=f"/{number}/{k}") for k in range(20)]
                if r.post(batch, connection=c).status == 200:
                    acknowledged.add(number)
        except (OSError, http.client.HTTPException):
            pass
        killer.join()
        r.process.wait()
    found = set()
    for p in files_of(directory):
        for text in p.read_text().splitlines():
            try:
                found.add(json.loads(text)["path"])
            except ValueError:
                pass  # torn, and never acknowledged
    assert len(acknowledged) > 20
    missing = [n for n in acknowledged for k in range(20) if f"/{n}/{k}" not in found]
    assert not missing, missing[:10]


@test
def slow_reader():
    """429 while standard output is slow; all that was acknowledged comes out."""
    ours, theirs = os.pipe()
    with Receiver("--output-buffer=80K", "--body-bytes=64K", stdout=theirs) as r:
        os.close(theirs)
        batch = [seed(body="x" * 1000, path=f"/{k}") for k in range(20)]
        taken = 0
        for _ in range(100):
            answer = r.post(batch)
            if answer.status != 200:
                break
            taken += 20
        assert answer.status == 429 and answer.headers["Retry-After"] == "1", answer.status
        assert taken > 0 and r.metrics()["output_queued"] > 0
        # as a whole or not at all; a smaller one may find room
        lines = 0
        os.set_blocking(ours, False)

        def drain():
            nonlocal lines
            try:
                lines += os.read(ours, 1 << 16).count(b"\n")
            except BlockingIOError:
                pass
            return lines >= taken
        wait_for("all that was taken", drain)
        assert lines == taken
        # it counts behind its write, which the reader may be faster than
        wait_for("nothing is queued", lambda: r.metrics()["output_queued"] == 0)
        assert r.post(batch).status == 200
        wait_for("more", lambda: drain() and lines == taken + 20)
        m = r.metrics()
        assert m["messages_total"] == taken + 20 and m['refused_total{reason="output"}'] >= 1 and m["output_lost_total"] == 0
        os.close(ours)
        with contextlib.suppress(OSError, http.client.HTTPException):  # it may be gone before it answers
            r.post(batch)
        assert r.process.wait(60) == 1 and "closed by its reader" in r.log()


@test
def full_disk():
    with open("/dev/full", "wb") as full, Receiver("--body-bytes=64K", "--output-buffer=128K", stdout=full) as r:
        batch = [seed(body="x" * 1000) for _ in range(20)]
        statuses = [r.post(batch).status for _ in range(20)]
        assert statuses[0] == 200 and statuses[-1] == 429, statuses
        wait_for("unhealthy", lambda: r.get("/healthz").status == 503)
        assert "No space left" in r.get("/healthz").text and r.metrics()["output_error"] == 1
        # acknowledged, and never out: said, and no success
        r.process.send_signal(signal.SIGTERM)
        assert r.process.wait(60) == 1 and "could not be written" in r.log()


@test
def terminated_under_load():
    for _ in range(3):
        with Receiver() as r:
            acknowledged = []

            def send(t):
                try:
                    c = r.connect()
                    for i in range(100000):
                        if r.post([seed(path=f"/{t}/{i}")], connection=c).status == 200:
                            acknowledged.append(f"/{t}/{i}")
                except (OSError, http.client.HTTPException):
                    pass
            stream = r.connect()
            stream.request("GET", "/api/stream")
            stream.getresponse()
            workers = [threading.Thread(target=send, args=(t,)) for t in range(4)]
            for w in workers:
                w.start()
            wait_for("some", lambda: len(acknowledged) > 100)
            begin = time.monotonic()
            assert r.stop() == 0
            assert time.monotonic() - begin < 30
            for w in workers:
                w.join()
            paths = [json.loads(text)["path"] for text in r.lines()]
            assert set(acknowledged) <= set(paths) and len(paths) == len(set(paths)), (len(acknowledged), len(paths))
            assert f"{len(paths)} messages taken" in r.log()


# ---- rude clients ----


def gone(s):
    """Whether the other side has closed."""
    s.settimeout(0.01)
    try:
        return s.recv(1000) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@test
def whisperers():
    """Who sends a byte now and then keeps nothing open."""
    head = b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"
    with Receiver("--request-timeout=1s", "--connections=24", "--streams=4") as r:
        socks = [socket.create_connection(("127.0.0.1", r.port)) for _ in range(20)]
        for i, s in enumerate(socks):
            s.sendall(head if i % 2 else b"GET /hea")
        left = list(socks)

        def whisper():
            for s in list(left):
                if gone(s):
                    left.remove(s)
                    continue
                try:
                    s.sendall(b"a")
                except OSError:
                    left.remove(s)
            return not left
        wait_for("all are closed", whisper)
        wait_for("counted", lambda: r.metrics()["connections_timed_out_total"] >= 20)
        assert r.metrics()["receiving_bytes"] == 0
        for s in socks:
            s.close()


@test
def more_connections_than_places():
    with Receiver("--connections=8", "--streams=2", "--request-timeout=1s", "--threads=1") as r:
        socks = [socket.create_connection(("127.0.0.1", r.port)) for _ in range(16)]
        # who comes later is served when those who say nothing are gone
        assert r.post(seed()).status == 200
        for s in socks:
            s.close()


@test
def half_sent_bodies_hold_no_memory_for_ever():
    good = line(seed()).encode()
    head = b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500000\r\n\r\n"
    with Receiver("--body-bytes=512K", "--memory-bytes=1M", "--request-timeout=3s") as r:
        socks = []

        def too_much():
            # anew, where the machine stalled for as long as a request may take
            if any(gone(s) for s in socks) or not socks:
                for s in socks:
                    s.close()
                socks[:] = [socket.create_connection(("127.0.0.1", r.port)) for _ in range(6)]
                with contextlib.suppress(OSError):
                    for s in socks:
                        s.sendall(head + b" " * 200000)
            return r.post(good + b" " * 300000).status == 429
        wait_for("too much", too_much)
        answer = r.post(good + b" " * 300000)
        assert answer.status == 200 or answer.headers["Retry-After"] == "1"
        wait_for("room again", lambda: r.post(good + b" " * 300000).status == 200)
        assert r.metrics()['refused_total{reason="memory"}'] >= 1
        for s in socks:
            s.close()


# ---- what it shows ----


class Stream:
    """Server-sent events, in a thread."""

    def __init__(self, r, query="", headers=None):
        self.connection = r.connect()
        self.connection.request("GET", "/api/stream" + query, headers=headers or {})
        self.answer = self.connection.getresponse()
        self.events, self.ended = [], False
        self.thread = threading.Thread(target=self.read, daemon=True)
        if self.answer.status == 200:
            self.thread.start()

    def read(self):
        event = {}
        try:
            while True:
                text = self.answer.readline().decode().rstrip("\n")
                if text:
                    key, value = text.split(": ", 1)
                    event[key] = value
                elif event:
                    self.events.append(event)
                    event = {}
                else:
                    break
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            pass
        self.ended = True

    def rows(self):
        return [row for e in list(self.events) if "event" not in e for row in json.loads(e["data"])]

    def last_id(self):
        return [e["id"] for e in self.events if "id" in e][-1]

    def close(self):
        try:
            self.connection.sock.shutdown(socket.SHUT_RDWR)
        except (OSError, AttributeError):
            pass
        self.thread.join(10)


@test
def stream_is_live():
    with Receiver("--streams=2") as r:
        r.post([m for i in range(5) for m in exchange(i)])
        s = Stream(r)
        wait_for("the past", lambda: len(s.rows()) == 5)
        assert s.answer.headers["Content-Type"] == "text/event-stream"
        errors = Stream(r, "?status=error&path=item")
        assert r.get("/api/stream").status == 503 and r.metrics()["streams_refused_total"] == 1
        request, response = exchange(10, 503)
        r.post(request)
        wait_for("the request", lambda: [x for x in s.rows() if x["path"] == "/item/10" and x["status"] == 0])
        r.post(response)
        row = wait_for("the response", lambda: [x for x in s.rows() if x["path"] == "/item/10" and x["status"] == 503])[0]
        assert row["latency_us"] == 5000 and row["method"] == "GET" and row["host"] == "shop.example"
        assert row["client"] == "10.0.0.11:1034" and row["server"] == "10.9.0.1:8080" and row["seen"] == "server"
        wait_for("the error", lambda: errors.rows())
        assert [x["status"] for x in errors.rows()] == [503]
        assert wait_for("totals", lambda: [e for e in s.events if e.get("event") == "totals"])
        # it goes on where it was
        last = s.last_id()
        s.close()
        r.post([m for i in range(20, 23) for m in exchange(i)])
        again = wait_for("a place", lambda: (lambda a: a if a.answer.status == 200 else None)(Stream(r, "", {"Last-Event-ID": last})))
        wait_for("what was missed", lambda: len(again.rows()) >= 3)
        assert {x["path"] for x in again.rows()} == {f"/item/{i}" for i in range(20, 23)}
        again.close()
        errors.close()
        for query in ["?status=9000", "?nonsense=1", "?limit=x", "?seen=me", "?path=" + "x" * 300]:
            assert r.get("/api/stream" + query).status == 400, query
        other = wait_for("a place", lambda: (lambda a: a if a.answer.status == 200 else None)(Stream(r, "?limit=2", {"Last-Event-ID": "0123456789abcdef-3"})))
        wait_for("all that is kept, of a receiver that it does not know", lambda: len(other.rows()) == 2)
        other.close()
        wait_for("no streams", lambda: r.metrics()["streams"] == 0)


@test
def stream_that_nobody_reads():
    # the buffer of standard output is touched as a whole sooner or later: a small one
    with Receiver("--keep=500", "--body-bytes=1M", "--output-buffer=16M", program=fast) as r:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        s.connect(("127.0.0.1", r.port))
        s.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        batch = [m for i in range(500) for m in exchange(i, path="/" + "long" * 100)]
        before = r.rss()
        # until the sockets' buffers take no more rows; a slow machine may keep up for a while
        for _ in range(1000):
            rows = r.metrics()["stream_rows_total"]
            for _ in range(20):
                while (status := r.post(batch).status) == 429:
                    time.sleep(0.05)
                assert status == 200
            time.sleep(0.3)  # ticks, in which more would be sent
            if 0 < rows == r.metrics()["stream_rows_total"]:
                break
        else:
            raise AssertionError("it is never full")
        assert r.rss() - before < 64 << 20, (r.rss() - before, r.metrics())
        # when it reads again it is told what it missed, and is back in the present. What it was told before it was
        # full is still in the sockets' buffers, and may be little.
        told = 0
        s.settimeout(10)
        end = time.monotonic() + 60
        lines = s.makefile("rb")
        while told < 10000:
            assert time.monotonic() < end, (told, r.metrics())
            text = lines.readline()
            assert text
            if text == b"event: lost\n":
                told += int(lines.readline().removeprefix(b"data: "))
        wait_for("counted", lambda: r.metrics()["stream_lost_total"] >= told)
        s.close()


@test
def api_and_filters():
    with Receiver() as r:
        messages = []
        for i in range(40):
            method = "POST" if i % 4 == 0 else "GET"
            status = [200, 301, 404, 500][i % 4]
            messages += exchange(i, status, method, host=f"h{i % 2}.example", body=f"needle-{i}" if i % 10 == 0 else "hay")
        r.post(messages)

        def ids(query):
            return [int(x["path"].split("/")[-1]) for x in r.get("/api/exchanges?" + query).json["exchanges"]]
        assert ids("") == list(range(39, -1, -1))
        assert ids("limit=3") == [39, 38, 37] and ids("limit=0") == []
        assert ids("limit=3&before=38") == [36, 35, 34]
        assert ids("method=post&limit=100") == list(range(36, -1, -4))
        assert ids("status=4xx") == list(range(38, -1, -4)) and ids("status=404") == ids("status=4xx") == ids("status=4")
        assert set(ids("status=error")) == {i for i in range(40) if i % 4 >= 2}
        assert ids("host=H1") == list(range(39, 0, -2))
        assert ids("path=item/3") == [39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 3]
        assert ids("q=NEEDLE-3") == [30] and ids("q=needle&method=get") == [30, 10]
        assert ids("seen=client") == [] and len(ids("seen=server")) == 40 and len(ids("node=node-a")) == 40
        one = r.get("/api/exchanges?limit=1").json["exchanges"][0]
        assert line(one["request"]) == line(messages[-2]) and line(one["response"]) == line(messages[-1])
        assert "request" not in r.get("/api/exchanges?limit=1&messages=false").json["exchanges"][0]
        assert r.get(f"/api/exchanges/{one['id']}").json == one
        answer = r.get("/api/exchanges?format=ndjson&limit=2")
        assert answer.text.splitlines() == [line(m) for m in messages[-4:]] and "attachment" in answer.headers["Content-Disposition"]
        # answers page by page hold all there is, once
        whole = r.get("/api/exchanges?format=ndjson&limit=10000").text.splitlines()
        assert whole == [line(m) for m in messages]
        for query in ["limit=-1", "limit=1x", "status=1000", "format=xml", "messages=maybe", "before=x", "what=1"]:
            answer = r.get("/api/exchanges?" + query)
            assert answer.status == 400 and query.split("=")[0] in answer.text, query
        assert r.ask("HEAD", "/api/exchanges").status == 200


@test
def keeps_the_newest():
    with Receiver("--keep=100", "--keep-bytes=1M") as r:
        for i in range(0, 1000, 50):
            r.post([m for k in range(i, i + 50) for m in exchange(k)])
        m = r.metrics()
        assert m["kept_messages"] <= 100 and m["kept_exchanges"] == 50 and m["paired_total"] == 1000, m
        assert m["forgotten_total"] + m["kept_messages"] == 2000
        r.post([seed(body="x" * 100000, path=f"/{i}") for i in range(30)])
        m = r.metrics()
        assert m["kept_bytes"] <= 1 << 20 and m["kept_messages"] >= 9, m
        r.post(seed(body="y" * (3 << 20)))
        assert r.metrics()["kept_messages"] == 1
        assert len(r.get("/api/exchanges").json["exchanges"]) == 1


@test
def metrics_and_health():
    with Receiver() as r:
        assert r.get("/healthz").text == "ok\n"
        r.post(seed())
        page = r.get("/metrics")
        assert page.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        promtool = shutil.which("promtool")
        if promtool:
            check = subprocess.run([promtool, "check", "metrics"], input=page.body, capture_output=True, check=False)
            assert check.returncode == 0, check.stderr.decode() + check.stdout.decode()
        m = r.metrics()
        assert m['answers_total{class="2xx"}'] >= 3 and m["connections_total"] >= 3


# ---- the command line ----


@test
def command_line():
    def call(*args, program=None):
        return subprocess.run([program or Receiver.program, *args], capture_output=True, text=True, timeout=60, check=False)
    shown = call("--help")
    assert shown.returncode == 0 and "--listen HOST:PORT" in shown.stdout and "127.0.0.1:8090" in shown.stdout and not shown.stderr
    assert call("--version").stdout.startswith("ebpfdump-callback ")
    assert "| `--keep-bytes SIZE` |" in call("--reference").stdout
    for args in [["--nonsense"], ["--keep=0"], ["--listen="], ["x"], ["--keep"], ["--body-bytes=10G"], ["--dir="], ["--connections=4"]]:
        wrong = call(*args)
        assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and wrong.stderr.startswith("ebpfdump-callback: "), (args, wrong)
    with Receiver() as r:
        for args, text in [([f"--listen=127.0.0.1:{r.port}"], "Address already in use"),
                           (["--dir=/nonexistent/x"], "/nonexistent/x"), (["--token-file=/nonexistent"], "--token-file: /nonexistent"),
                           (["--listen=no.such.host.invalid:1"], "no.such.host.invalid")]:
            failed = call("--listen=127.0.0.1:0", *args)
            assert failed.returncode == 1 and text in failed.stderr and failed.stderr.count("\n") == 1, (args, failed.stderr)


def main():
    global fast
    if len(sys.argv) < 3:
        sys.exit(__doc__.strip())
    clean_environment()
    fast = os.path.abspath(sys.argv[1])
    Receiver.program = os.path.abspath(sys.argv[2])
    sys.exit(run(sys.argv[3:]))


if __name__ == "__main__":
    main()
