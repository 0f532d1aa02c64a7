# SPDX-License-Identifier: Apache-2.0
"""A scripted API server: HTTP/1.1 over plain sockets, chunked, so that every byte is the script's.

    with Server() as server:
        server.script(step, step, ...)

Each request takes the next step, a function of (request, conn) that answers as it likes; behind the last one,
`server.otherwise`. With `server.route`, a function of the request that may return a step, some paths are answered apart.
Every request is kept in server.requests.
"""
import json
import pathlib
import queue
import socket
import sys
import threading
import time
import urllib.parse

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
from ports import free_port

GROUP = "/apis/research.dynatrace.com/v1alpha1/ebpfdumps"
API_VERSION = "research.dynatrace.com/v1alpha1"


class Request:
    def __init__(self, method, target, headers, body):
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.path, _, self.query_text = target.partition("?")
        self.query = dict(urllib.parse.parse_qsl(self.query_text, keep_blank_values=True))
        self.at = time.monotonic()

    @property
    def watch(self):
        return self.query.get("watch") == "1"

    def __str__(self):
        return ("watch" if self.watch else self.method.lower()) + (f"({self.query.get('resourceVersion', '')})" if self.watch else "")


class Conn:
    def __init__(self, server, sock):
        self.server, self.sock = server, sock
        self.file = sock.makefile("rb")
        self.open = True

    def read_request(self):
        line = self.file.readline().decode("latin-1").split()
        if len(line) != 3:
            return None
        headers = {}
        while True:
            header = self.file.readline().decode("latin-1").strip()
            if not header:
                break
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        body = self.file.read(int(headers.get("content-length", 0)))
        return Request(line[0], line[1], headers, body)

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            self.open = False
        return self.open

    def answer(self, code, body, content_type="application/json", **headers):
        body = body if isinstance(body, bytes) else body.encode()
        head = [f"HTTP/1.1 {code} X", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
        head += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
        self.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    def json(self, code, value, **headers):
        self.answer(code, json.dumps(value), **headers)

    def start(self):
        self.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")

    def chunk(self, data):
        data = data if isinstance(data, bytes) else data.encode()
        return self.send(b"%x\r\n%s\r\n" % (len(data), data)) if data else True

    def end(self):
        self.send(b"0\r\n\r\n")

    def cut(self):
        """In the middle of whatever there is."""
        self.open = False
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def hang(self):
        """Until the client, or the test, hangs up."""
        try:
            self.sock.settimeout(None)
            self.file.read(1)
        except OSError:
            pass
        self.open = False


class Server:
    def __init__(self, *steps, port=0, unix=None):
        self.requests = []
        self.steps = queue.Queue()
        self.script(*steps)  # before anybody can ask
        self.otherwise = hang_watch
        self.route = lambda request: None
        self.lock = threading.Lock()
        self.conns = set()
        self.closed = False
        if unix:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(unix)
        else:
            self.socket = socket.socket()
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(("127.0.0.1", port or free_port()))
        self.socket.listen(64)
        self.url = f"unix:{unix}" if unix else "http://127.0.0.1:%d" % self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.closed = True
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()
        with self.lock:
            conns = list(self.conns)
        for conn in conns:
            conn.cut()

    def script(self, *steps):
        for step in steps:
            self.steps.put(step)

    def accept(self):
        while not self.closed:
            try:
                sock, _ = self.socket.accept()
            except OSError:
                return
            if sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        conn = Conn(self, sock)
        with self.lock:
            self.conns.add(conn)
        try:
            while conn.open:
                request = conn.read_request()
                if request is None:
                    break
                with self.lock:
                    self.requests.append(request)
                step = self.route(request)
                if step is None:
                    try:
                        step = self.steps.get_nowait()
                    except queue.Empty:
                        step = self.otherwise
                step(request, conn)
                if request.headers.get("connection") == "close":
                    break
        except OSError:
            pass
        finally:
            with self.lock:
                self.conns.discard(conn)
            conn.cut()
            # the thread's own: both must go for the descriptor to
            conn.file.close()
            sock.close()

    def log(self):
        with self.lock:
            return [str(r) for r in self.requests]


# ---- objects ---------------------------------------------------------------------------------------------------------


def obj(name, rv, uid=None, x="", namespace="default", **more):
    return {"apiVersion": API_VERSION, "kind": "EbpfDump",
            "metadata": {"namespace": namespace, "name": name, "uid": uid or "uid-" + name, "resourceVersion": str(rv),
                         "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]},
            "spec": {"x": x}, **more}


def event(kind, value):
    return json.dumps({"type": kind, "object": value}, separators=(",", ":")) + "\n"


def bookmark(rv):
    return event("BOOKMARK", {"apiVersion": API_VERSION, "kind": "EbpfDump", "metadata": {"resourceVersion": str(rv)}})


def status(code, reason="", message="", **more):
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
            "message": message or reason, "metadata": {}, **more}


# ---- steps -----------------------------------------------------------------------------------------------------------


def items(rv, *objects, token=None, kind="EbpfDumpList"):
    """A list, or a page of it."""
    metadata = {"resourceVersion": str(rv)}
    if token:
        metadata["continue"] = token

    def step(_request, conn):
        conn.json(200, {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "items": list(objects)})
    return step


def watch(*pieces, end="hang", delay=0):
    """pieces: texts, each a chunk. end: hang, end (as it should), cut."""
    def step(_request, conn):
        conn.start()
        for piece in pieces:
            if delay:
                time.sleep(delay)
            if not conn.chunk(piece):
                return
        {"hang": conn.hang, "end": conn.end, "cut": conn.cut}[end]()
    return step


def fail(code, reason="", message="", headers=None, **more):
    def step(_request, conn):
        conn.json(code, status(code, reason, message, **more), **(headers or {}))
    return step


def text(code, body, headers=None, content_type="text/plain; charset=utf-8"):
    def step(_request, conn):
        conn.answer(code, body, content_type, **(headers or {}))
    return step


def raw(data, end="cut"):
    """Bytes as they are, in place of an answer."""
    def step(_request, conn):
        conn.send(data)
        {"hang": conn.hang, "cut": conn.cut}[end]()
    return step


def slow(seconds, then):
    def step(request, conn):
        time.sleep(seconds)
        then(request, conn)
    return step


def hang(_request, conn):
    conn.hang()


def hang_watch(request, conn):
    """An empty watch; anything else is not there."""
    if request.watch:
        conn.start()
        conn.hang()
    else:
        conn.json(404, status(404, "NotFound"))


class Objects:
    """Single objects with optimistic locking, at their paths: leases and events."""

    def __init__(self):
        self.lock = threading.Lock()
        self.objects, self.rv = {}, 100
        self.writes, self.written_at = [], []
        self.fail = None  # a function of the request that may return a step

    def step(self, request, conn):
        with self.lock:
            step = self.fail(request) if self.fail else None
            if step is None:
                code, value = self.handle(request)
        if step:
            step(request, conn)
        else:
            conn.json(code, value)

    def handle(self, request):
        path, old = request.path, self.objects.get(request.path)
        if request.method == "GET":
            return (200, old) if old else (404, status(404, "NotFound"))
        value = json.loads(request.body)
        if request.method == "POST":
            path = f"{path}/{value['metadata']['name']}"
            if path in self.objects:
                return 409, status(409, "AlreadyExists")
        elif old is None:
            return 404, status(404, "NotFound")
        elif request.method == "PUT" and value["metadata"].get("resourceVersion") != old["metadata"]["resourceVersion"]:
            return 409, status(409, "Conflict")
        elif request.method == "PATCH":
            value = {**old, **value}
        self.rv += 1
        value["metadata"] = {**value["metadata"], "resourceVersion": str(self.rv)}
        self.objects[path] = value
        self.written_at.append(time.monotonic())
        self.writes.append((request.method, path, value))
        return 201 if request.method == "POST" else 200, value
