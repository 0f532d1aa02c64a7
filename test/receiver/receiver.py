# SPDX-License-Identifier: Apache-2.0
"""What the receiver's tests share (test/page too): the program, and messages to give it."""
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

WAIT = 60  # s: for what must happen; the machine may be busy


def wait_for(what, condition, timeout=WAIT):
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)


def line(message):
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


def seed(**more):
    """The ten keys, as the seed has them."""
    message = {
        "direction": 0, "timing_ms": int(time.time() * 1000), "remote_ip": "10.0.0.1", "remote_port": 4711, "method": "GET",
        "path": "/", "status_code": 0, "version": "1.1", "headers": {"Host": ["a.example"]}, "body": "",
    }
    message.update(more)
    return message


def exchange(number, status=200, method="GET", path=None, host="shop.example", body="", took_us=5000, time_ms=None, **more):
    """A request and its response, as a loader at the server's end writes them."""
    path = path if path is not None else f"/item/{number}"
    client, port = f"10.0.{number // 250 % 250}.{number % 250 + 1}", 1024 + number % 60000
    time_ms = time_ms or int(time.time() * 1000)
    request = seed(
        direction=1, timing_ms=time_ms, remote_ip=client, remote_port=port, method=method, path=path,
        headers={"Host": [host], "User-Agent": ["test/1"]}, src_ip=client, src_port=port, dst_ip="10.9.0.1", dst_port=8080,
        interface="eth0", node="node-a", pid=42, comm="server", seq=2 * number, body_bytes=0, body_truncated=False, gap_bytes=0,
    )
    response = seed(
        direction=0, timing_ms=time_ms + took_us // 1000, remote_ip=client, remote_port=port, method="", path="",
        status_code=status, headers={"Content-Type": ["text/plain"]}, body=body, src_ip="10.9.0.1", src_port=8080, dst_ip=client,
        dst_port=port, interface="eth0", node="node-a", pid=42, comm="server", seq=2 * number + 1, body_bytes=len(body),
        body_truncated=False, gap_bytes=0, latency_us=took_us, request={"method": method, "path": path, "host": host},
    )
    request.update(more.get("request", {}))
    response.update(more.get("response", {}))
    return request, response


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


class Receiver:
    """The program, on a port of its own; its standard output in a file (or where told)."""
    program = None
    directory = None  # of this test

    def __init__(self, *flags, stdout=None, program=None, ready=True):
        self.out = tempfile.NamedTemporaryFile(dir=Receiver.directory, suffix=".out", delete=False)
        self.err = tempfile.NamedTemporaryFile(dir=Receiver.directory, suffix=".err", delete=False)
        self.process = subprocess.Popen(
            [program or Receiver.program, "--listen=127.0.0.1:0", *flags], stdin=subprocess.DEVNULL,
            stdout=self.out if stdout is None else stdout, stderr=self.err)
        self.port = None
        self.kept = threading.local()
        if ready:
            self.port = int(wait_for("listening", self._listening).group(1))

    def _listening(self):
        assert self.process.poll() is None, self.log()
        return re.search(r"listening on port (\d+)", self.log())

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(WAIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                if kind is None:
                    raise
            if kind is None:
                assert self.process.returncode == 0, (self.process.returncode, self.log())
        if kind is not None:
            print(self.log()[-3000:])
        assert "Sanitizer" not in self.log() and "runtime error" not in self.log(), self.log()[-4000:]

    def log(self):
        return pathlib.Path(self.err.name).read_text(errors="replace")

    def lines(self):
        return pathlib.Path(self.out.name).read_text().splitlines()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)

    def ask(self, method, path, body=None, headers=None, connection=None):
        c = connection or self.connect()
        c.request(method, path, body, headers or {})
        r = c.getresponse()
        answer = Answer(r.status, r.headers, r.read())
        if connection is None:
            c.close()
        return answer

    def get(self, path, headers=None):
        return self.ask("GET", path, None, headers)

    def post(self, body, headers=None, connection=None, type="application/json"):
        """Messages (one or a list), or bytes."""
        if isinstance(body, dict):
            body = line(body)
        elif isinstance(body, (list, tuple)):
            body, type = "".join(line(m) + "\n" for m in body), "application/x-ndjson"
        if isinstance(body, str):
            body = body.encode()
        return self.ask("POST", "/ingest", body, {"Content-Type": type, **(headers or {})}, connection)

    def metrics(self, headers=None):
        values = {}
        for text in self.get("/metrics", headers).text.splitlines():
            if not text.startswith("#"):
                name, value = text.rsplit(" ", 1)
                values[name.removeprefix("ebpfdump_receiver_")] = float(value)
        return values

    def rss(self):
        return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{self.process.pid}/status").read_text()).group(1)) * 1024

    def stop(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(WAIT)


tests = []


def test(function):
    tests.append(function)
    return function


def run(words):
    passed = failed = 0
    chosen = [t for t in tests if not words or any(w in t.__name__ for w in words)]
    for t in chosen:
        Receiver.directory = tempfile.mkdtemp(prefix="ebpfdump-receiver-")
        begin = time.monotonic()
        try:
            t()
            print(f"ok {t.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
            passed += 1
        except Exception as e:  # noqa: BLE001: the next test has its own chance
            import traceback
            traceback.print_exc()
            print(f"not ok {t.__name__}: {e}", flush=True)
            failed += 1
        finally:
            shutil.rmtree(Receiver.directory, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def clean_environment():
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["ASAN_OPTIONS"] = "detect_leaks=1:abort_on_error=0"
