# SPDX-License-Identifier: Apache-2.0
"""
harness: the loader as a user starts it, hosts for the programs it watches, and tests as functions.

A test is a function marked @test. It gets a Test: a token that is in the path of each of its requests (others use the
machine as well), two hosts (network namespaces joined by a cable), and ways to start programs; all of it is gone when
the test is over. Nothing depends on how fast the machine is: what is waited for comes, or does not within LIMIT.
"""
import atexit
import base64
import contextlib
import ctypes
import errno
import functools
import http.client
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid

HERE = pathlib.Path(__file__).resolve().parent
TREE = HERE.parent.parent
sys.path.append(str(HERE.parent))

from ports import free_port  # noqa: E402,F401

PYTHON = "/usr/bin/python3"
# For whatever is waited for. Only a test that fails ever waits so long.
LIMIT = 60


class Failure(Exception):
    """A check that does not hold."""


def check(holds, what):
    if not holds:
        raise Failure(what() if callable(what) else what)


def equal(got, want, what):
    if got != want:
        raise Failure(f"{what}: got {short(got)}, expected {short(want)}")


def short(value):
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 400 else f"{text[:250]} ... {text[-120:]} ({len(text)} characters)"


def until(condition, what, limit=LIMIT):
    """Waits until condition() is true, and returns what it is."""
    end = time.monotonic() + limit
    pause = 0.002
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"waited in vain for: {what() if callable(what) else what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


# ---- hosts: network namespaces ----

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_PREFIX = "ebpfdump-native-"

# What the hosts call their devices: with QUIET, a loader shows the tests' traffic only, whatever else this machine does.
DEVICE, LOOPBACK = (f"{kind}{random.getrandbits(40):x}" for kind in "el")
QUIET = ("--interface", DEVICE, "--interface", LOOPBACK)


def _ip(*lines, netns=None):
    command = ["ip"] + (["-n", netns] if netns else []) + ["-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines), text=True, capture_output=True)
    if done.returncode:
        raise Failure(f"ip: {done.stderr.strip()}")


class Host:
    """A network namespace with an address on its end of a cable, and a loopback device."""

    def __init__(self, name, ip4, ip6):
        self.name, self.ip4, self.ip6 = name, ip4, ip6

    @contextlib.contextmanager
    def inside(self):
        """What this thread opens or starts, meanwhile, is on this host."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.name}") as here:
            if _libc.setns(here.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns {self.name}")
            try:
                yield
            finally:
                if _libc.setns(home.fileno(), _CLONE_NEWNET):
                    os._exit(70)  # a thread that is lost in a namespace

    def socket(self, family=socket.AF_INET):
        with self.inside():
            return socket.socket(family, socket.SOCK_STREAM)

    def connect(self, address, port):
        s = self.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        s.settimeout(LIMIT)
        s.connect((address, port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def client(self, address, port):
        """An http.client whose connection is made from here."""
        c = http.client.HTTPConnection(address, port, timeout=LIMIT)
        c.sock = self.connect(address, port)
        return c

    def popen(self, argv, **options):
        with self.inside():
            return subprocess.Popen(argv, **options)


class Container:
    """
    Control groups and log directories as a runtime and a kubelet make them, with this machine's real cgroup v2. `wrap` starts a
    program in it. logs: that machine's /var/log.
    """

    def __init__(self, logs, namespace=None, pod=None, name=None):
        root = [line.split()[1] for line in open("/proc/mounts") if line.split()[2] == "cgroup2"]
        check(root, "no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
        self.logs, self.namespace, self.pod, self.name = pathlib.Path(logs), namespace, pod, name
        self.id, self.uid = os.urandom(32).hex(), str(uuid.uuid4())
        if pod:
            slices = "kubepods.slice", "kubepods-burstable.slice", f"kubepods-burstable-pod{self.uid.replace('-', '_')}.slice"
            (self.logs / "pods" / f"{namespace}_{pod}_{self.uid}" / name).mkdir(parents=True)
            (self.logs / "containers").mkdir(exist_ok=True)
        else:
            slices = "system.slice",
        self.dirs = [pathlib.Path(root[0]).joinpath(*slices[:n + 1]) for n in range(len(slices))]
        self.dirs.append(self.dirs[-1] / f"{'cri-containerd' if pod else 'docker'}-{self.id}.scope")
        self.dirs[-1].mkdir(parents=True)
        self.wrap = "sh", "-c", 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"', "sh", self.dirs[-1]

    def link(self):
        """What the kubelet does once it has started it."""
        target = self.logs / "pods" / f"{self.namespace}_{self.pod}_{self.uid}" / self.name / "0.log"
        (self.logs / "containers" / f"{self.pod}_{self.namespace}_{self.name}-{self.id}.log").symlink_to(target)

    def close(self):
        """Its programs have ended: their cgroup may take a moment to know it."""
        until(self._empty, f"{self.dirs[-1]} to be empty")
        for directory in reversed(self.dirs[:-1]):
            with contextlib.suppress(OSError):  # others are in it
                directory.rmdir()

    def _empty(self):
        try:
            self.dirs[-1].rmdir()
        except OSError as e:
            return e.errno == errno.ENOENT
        return True


class Net:
    """Two hosts and a cable."""

    numbers = iter(range(1 << 30))

    def __init__(self, device=DEVICE, loopback=LOOPBACK):
        number = next(Net.numbers)
        a, b = random.randrange(1, 250), random.randrange(1, 250)
        names = [f"{_PREFIX}{os.getpid()}-{number}{end}" for end in "sc"]
        self.server = Host(names[0], f"10.{a}.{b}.1", f"fd00:{a:x}:{b:x}::1")
        self.client = Host(names[1], f"10.{a}.{b}.2", f"fd00:{a:x}:{b:x}::2")
        try:
            _ip(f"netns add {names[0]}", f"netns add {names[1]}",
                f"link add {device} netns {names[0]} type veth peer name {device} netns {names[1]}")
            for host in self.server, self.client:
                _ip(*[f"link set lo name {loopback}"] * (loopback != "lo"), f"link set {loopback} up", f"addr add {host.ip4}/24 dev {device}",
                    f"addr add {host.ip6}/64 dev {device} nodad", f"link set {device} up", netns=host.name)
        except BaseException:
            self.close()
            raise

    def close(self):
        for host in self.server, self.client:
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True)


def remove_stale_hosts():
    """Those of runs that were killed."""
    for path in pathlib.Path("/run/netns").glob(f"{_PREFIX}*"):
        owner = path.name[len(_PREFIX):].split("-")[0]
        if not os.path.exists(f"/proc/{owner}") or owner == str(os.getpid()):
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True)


# ---- messages ----

SEED_KEYS = {"direction": int, "timing_ms": int, "remote_ip": str, "remote_port": int, "method": str, "path": str,
             "status_code": int, "version": str, "headers": dict, "body": str}
OTHER_KEYS = {"src_ip": str, "src_port": int, "dst_ip": str, "dst_port": int, "interface": str, "node": str,
              "pid": int, "comm": str, "seq": int, "body_bytes": int, "body_truncated": bool, "gap_bytes": int}
MORE_KEYS = {"namespace": str, "pod": str, "container": str, "exchange_id": str, "body_encoding": str, "error": str, "headers_truncated": bool, "latency_us": int, "request": dict}

_SCHEMA_PATH = TREE / "docs" / "networkdump.schema.json"
_SCHEMA = json.loads(_SCHEMA_PATH.read_text()) if _SCHEMA_PATH.exists() else None
_SCHEMA_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool,
                 "number": (int, float), "null": type(None)}


def _violations(value, schema, root, where="$"):
    """What the part of JSON Schema that ours uses says against it."""
    if "$ref" in schema:
        target = root
        for step in schema["$ref"].lstrip("#/").split("/"):
            target = target[step]
        yield from _violations(value, target, root, where)
    kinds = schema.get("type")
    if kinds is not None:
        kinds = kinds if isinstance(kinds, list) else [kinds]
        if not any(isinstance(value, _SCHEMA_TYPES[k]) and (k == "boolean") == isinstance(value, bool) for k in kinds):
            yield f"{where} is no {' or '.join(kinds)}: {short(value)}"
            return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} is none of {schema['enum']}: {short(value)}"
    if "const" in schema and value != schema["const"]:
        yield f"{where} is not {schema['const']}: {short(value)}"
    if "minimum" in schema and value < schema["minimum"] or "maximum" in schema and value > schema["maximum"]:
        yield f"{where} is out of bounds: {value}"
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        yield f"{where} does not match {schema['pattern']}: {short(value)}"
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{where} has too few items"
        for i, item in enumerate(value):
            yield from _violations(item, schema.get("items", {}), root, f"{where}[{i}]")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        for key in schema.get("required", []):
            if key not in value:
                yield f"{where}.{key} is missing"
        for key, item in value.items():
            rest = schema.get("additionalProperties", True)
            if key in known:
                yield from _violations(item, known[key], root, f"{where}.{key}")
            elif rest is False:
                yield f"{where}.{key} is not in the schema"
            elif isinstance(rest, dict):
                yield from _violations(item, rest, root, f"{where}.{key}")


def _no_duplicates(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"a key occurs twice: {[k for k, _ in pairs]}")
    return found


def _no_number(text):
    raise ValueError(f"{text} is no JSON")


def parse_line(line, limit=16384):
    """A line of output as a message; raises Failure for whatever is not as documented."""
    check(line.endswith(b"\n"), lambda: f"a line without its end: {short(line)}")
    check(len(line) <= limit, lambda: f"a line of {len(line)} bytes: {short(line)}")
    try:
        text = line.decode("utf-8")
        m = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_number)
    except ValueError as e:
        raise Failure(f"no JSON: {e}: {short(line)}") from e
    check(isinstance(m, dict), lambda: f"no object: {short(line)}")
    check(not re.search("[\x00-\x09\x0b-\x1f\x7f]", text), lambda: f"a control character as such: {short(line)}")
    equal(list(m)[:10], list(SEED_KEYS), "the first ten keys")
    wanted = {**SEED_KEYS, **OTHER_KEYS}
    for key, kind in wanted.items():
        check(key in m, lambda key=key: f"no key {key}: {short(line)}")
    for key, value in m.items():
        kind = wanted.get(key) or MORE_KEYS.get(key)
        check(kind, lambda key=key: f"what is the key {key}? {short(line)}")
        check(type(value) is kind, lambda key=key: f"{key} is no {kind.__name__}: {short(line)}")
    for name, values in m["headers"].items():
        check(type(values) is list and values and all(type(v) is str for v in values),
              lambda name=name: f"header {name} is no list of strings: {short(line)}")
    check(m["direction"] in (0, 1), lambda: f"direction: {short(line)}")
    check(m["gap_bytes"] >= 0 and m["body_bytes"] >= 0 and 0 < m["src_port"] < 65536 and 0 < m["dst_port"] < 65536,
          lambda: f"numbers: {short(line)}")
    if m["status_code"]:
        check(m["method"] == "" and m["path"] == "", lambda: f"a response with method or path: {short(line)}")
        client = m["dst_ip"], m["dst_port"]
    else:
        check("request" not in m and "latency_us" not in m, lambda: f"a request that answers: {short(line)}")
        client = m["src_ip"], m["src_port"]
    equal((m["remote_ip"], m["remote_port"]), client, f"the client in {short(line)}")
    if "request" in m:
        equal({k: type(v) for k, v in m["request"].items()}, {"method": str, "path": str, "host": str},
              f"request of {short(line)}")
        check("latency_us" in m and m["latency_us"] >= 0, lambda: f"no latency: {short(line)}")
    check(m.get("body_encoding", "base64") == "base64", lambda: f"body_encoding: {short(line)}")
    check(m.get("headers_truncated", True) is True, lambda: f"headers_truncated: {short(line)}")
    if _SCHEMA:
        wrong = list(_violations(m, _SCHEMA, _SCHEMA))
        check(not wrong, lambda: f"not as in {_SCHEMA_PATH.name}: {wrong[:3]} {short(line)}")
    return m


def body_of(m):
    return base64.b64decode(m["body"], validate=True) if m.get("body_encoding") else m["body"].encode()


def is_response(m):
    return m["status_code"] != 0


def path_of(m):
    """Of a request, or of the request that a response answers."""
    return m.get("request", {}).get("path", "") if is_response(m) else m["path"]


class Exchange:
    """The messages about one path, by kind and direction."""

    def __init__(self, messages):
        self.all = messages
        pick = lambda response, direction: [m for m in messages if
                                            is_response(m) == response and m["direction"] == direction]
        self.request_out, self.request_in = pick(False, 0), pick(False, 1)
        self.response_out, self.response_in = pick(True, 0), pick(True, 1)
        self.requests = self.request_out + self.request_in
        self.responses = self.response_out + self.response_in

    def counts(self):
        return tuple(map(len, (self.request_out, self.request_in, self.response_out, self.response_in)))


# ---- metrics ----

_SAMPLE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$')
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"(?:,|$)')


class Metrics:
    def __init__(self, text):
        self.text = text
        self.samples = []
        for line in text.splitlines():
            if line.startswith("#") or not line:
                continue
            match = _SAMPLE.match(line)
            check(match, f"a sample that is none: {line}")
            value = float(match[3])
            self.samples.append((match[1], dict(_LABEL.findall(match[2] or "")),
                                 int(value) if value.is_integer() else value))

    def sum(self, name, **labels):
        found = [v for n, have, v in self.samples if
                 n == name and all(have.get(k) == want for k, want in labels.items())]
        check(found, f"/metrics has no {name} {labels or ''}")
        return sum(found)


def ledger_gaps(m):
    """The sums at the head of cmd/loader/ledger.c that do not hold, as texts."""
    gaps = []

    def holds(what, left, right):
        if left != right:
            gaps.append(f"{what}: {left} is not {right} ({left - right:+d})")

    for program in "egress", "ingress", "state", "destroy":
        holds(f"bytes of {program}: seen = captured + skipped",
              m.sum("ebpfdump_kernel_seen_bytes_total", program=program),
              m.sum("ebpfdump_kernel_captured_bytes_total", program=program) +
              m.sum("ebpfdump_kernel_skipped_bytes_total", program=program))
    read = m.sum("ebpfdump_records_read_total")
    holds("records: submitted = read + lost", m.sum("ebpfdump_records_submitted_total"),
          read + m.sum("ebpfdump_records_lost_total"))
    holds("ring buffer: empty", m.sum("ebpfdump_ring_waiting_bytes"), 0)
    holds("records: read = those that flow took", read, m.sum("ebpfdump_flow_records_total"))
    holds("bytes: captured = those that flow took", m.sum("ebpfdump_kernel_captured_bytes_total"),
          m.sum("ebpfdump_flow_bytes_total"))
    holds("bytes of flow: taken = parsed + repeated + unparsed + left out + unfinished", m.sum("ebpfdump_flow_bytes_total"),
          m.sum("ebpfdump_flow_parsed_bytes_total") + m.sum("ebpfdump_flow_repeated_bytes_total") +
          m.sum("ebpfdump_flow_unparsed_bytes_total") + m.sum("ebpfdump_flow_left_out_bytes_total") +
          m.sum("ebpfdump_flow_unfinished_bytes"))
    holds("messages: parsed = emitted + filtered + dropped", m.sum("ebpfdump_messages_parsed_total"),
          m.sum("ebpfdump_messages_emitted_total") + m.sum("ebpfdump_messages_filtered_total") +
          m.sum("ebpfdump_messages_dropped_total"))
    holds("delivery: emitted = delivered + dropped + queued", m.sum("ebpfdump_messages_emitted_total"),
          m.sum("ebpfdump_output_delivered_total") + m.sum("ebpfdump_output_dropped_total") +
          m.sum("ebpfdump_output_queued"))
    return gaps


# ---- the loader ----

class Loader:
    """
    The program under test. `lines`: what it wrote, as parsed messages; each was checked. With stdout given, what it
    writes is the test's own business. flags may hold a --listen of their own: then port is None.
    """

    program = str(TREE / "build" / "ebpfdump-loader")

    def __init__(self, *flags, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, wrap=(), env=None, raw=False,
                 lossy=False, line_bytes=16384, listen=True):
        self.port = free_port() if listen else None
        self.lock = threading.Condition()
        self.lines, self.raw_lines, self.log, self.wrong = [], [], [], []
        self.raw, self.lossy, self.line_bytes = raw, lossy, line_bytes
        argv = [*wrap, Loader.program, *flags]
        if listen:
            argv += ["--listen", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE,
                                        env={**os.environ, **(env or {})})
        self.threads = [threading.Thread(target=self._read_log, daemon=True)]
        if stdout == subprocess.PIPE:
            self.threads.append(threading.Thread(target=self._read_lines, daemon=True))
        for thread in self.threads:
            thread.start()

    def _read_log(self):
        for line in self.process.stderr:
            with self.lock:
                self.log.append(line)

    def _read_lines(self):
        seq = None
        for line in self.process.stdout:
            m = None
            try:
                if not self.raw:
                    m = parse_line(line, self.line_bytes)
                    if seq is not None:
                        check(m["seq"] > seq if self.lossy else m["seq"] == seq + 1,
                              f"seq {m['seq']} behind {seq}")
                    seq = m["seq"]
            except Failure as e:
                with self.lock:
                    self.wrong.append(str(e))
            with self.lock:
                self.raw_lines.append(line)
                if m:
                    self.lines.append(m)
                self.lock.notify_all()

    def log_text(self):
        with self.lock:
            return b"".join(self.log).decode(errors="replace")

    def get(self, path, method="GET", limit=LIMIT):
        """Once more where the loop had no time for it, as on a machine that stalls."""
        for _ in range(10):
            answer = self._get(path, method, limit)
            if answer[1] != b"the event loop does not answer\n":
                break
        return answer

    def _get(self, path, method, limit):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=limit)
        try:
            c.request(method, path)
            r = c.getresponse()
            return r.status, r.read(), dict(r.getheaders())
        finally:
            c.close()

    def metrics(self):
        """As of now: what /metrics answers may be 100 ms old."""
        time.sleep(0.11)
        status, body, _ = self.get("/metrics")
        equal(status, 200, "/metrics")
        return Metrics(body.decode())

    def is_ready(self):
        if self.process.poll() is not None:
            raise Failure(f"the loader ended with {self.process.returncode}: {self.log_text()}")
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def ready(self):
        until(self.is_ready, lambda: f"the loader to be ready; it says: {self.log_text()}")
        return self

    def alive(self):
        check(self.process.poll() is None,
              lambda: f"the loader ended with {self.process.returncode}: {short(self.log_text())}")

    def select(self, condition):
        with self.lock:
            return [m for m in self.lines if condition(m)]

    def wait(self, condition, count, what):
        """At least so many messages for which condition() holds."""
        with self.lock:
            self.lock.wait_for(lambda: self.process.poll() is not None or
                               sum(1 for m in self.lines if condition(m)) >= count, LIMIT)
            found = [m for m in self.lines if condition(m)]
        if len(found) < count:
            self.alive()
            raise Failure(f"{what}: {len(found)} messages instead of {count}: {short(found)}")
        return found

    def exchange(self, path, counts=(1, 1, 1, 1), also=None):
        """
        The messages about this path: so many requests sent and received, responses sent and received, and not one
        more. also: a condition that they must meet.
        """
        mine = lambda m: path_of(m) == path and (not also or also(m))
        with self.lock:
            self.lock.wait_for(lambda: self.process.poll() is not None or all(
                n >= c for n, c in zip(Exchange(list(filter(mine, self.lines))).counts(), counts)), LIMIT)
        self.alive()
        self.fence()
        e = Exchange(self.select(mine))
        if e.counts() != tuple(counts):
            raise Failure(f"{path}: {e.counts()} messages (requests out, in, responses out, in) instead of {counts}: "
                          f"{short(e.all)}")
        if max(e.counts()) == 1:
            ids = {m.get("exchange_id") for m in e.all if not is_response(m) or "request" in m}
            check(len(ids) == 1 and None not in ids, lambda: f"{path}: not one exchange_id: {[(m['direction'], m['status_code'], m.get('exchange_id')) for m in e.all]}")
        return e

    def fence(self):
        """All that happened before has been written when this returns. Only for loaders that show all messages."""
        path = f"/fence-{random.getrandbits(64):x}"
        exchange_by_sockets(path)
        self.wait(lambda m: path_of(m) == path, 4, f"the fence {path}")

    def stop(self, signo=signal.SIGTERM, status=0, pid=None):
        """Ends it as a user would, and checks what is always to be checked at the end."""
        if self.process.poll() is None:
            os.kill(pid or self.process.pid, signo)
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise Failure(f"the loader does not end; it says {short(self.log_text())}") from None
        for thread in self.threads:
            thread.join(LIMIT)
        text = self.log_text()
        equal(self.process.returncode, status, f"exit status; it says {short(text)}")
        check("Sanitizer" not in text and "runtime error" not in text, lambda: f"a sanitizer: {text}")
        self.right()

    def right(self):
        with self.lock:
            check(not self.wrong, lambda: f"{len(self.wrong)} lines are wrong: {short(self.wrong[0])}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for thread in self.threads:
            thread.join(LIMIT)
        for f in self.process.stdout, self.process.stderr:
            if f:
                f.close()


@functools.cache
def somewhere():
    """A host for whom it may concern."""
    net = Net()
    atexit.register(net.close)
    return net.server


def exchange_by_sockets(path, host=None, address="127.0.0.1"):
    """One request and its response on a connection within one host, by this process."""
    with (host or somewhere()).inside():
        listener = socket.create_server((address, 0))
        client = socket.create_connection(listener.getsockname()[:2], timeout=LIMIT)
    with listener, client:
        server, _ = listener.accept()
        with server:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: fence\r\n\r\n".encode())
            read_until(server, b"\r\n\r\n")
            server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            read_until(client, b"\r\n\r\n")


def read_until(sock, mark):
    data = b""
    sock.settimeout(LIMIT)
    while mark not in data:
        more = sock.recv(65536)
        check(more, lambda: f"the connection ended before {mark!r}: {short(data)}")
        data += more
    return data


def read_exactly(sock, count):
    data = bytearray()
    sock.settimeout(LIMIT)
    while len(data) < count:
        more = sock.recv(min(count - len(data), 1 << 20))
        check(more, lambda: f"the connection ended after {len(data)} of {count} bytes")
        data += more
    return bytes(data)


# ---- tests ----

def pattern(size):
    """Text in which no two places look alike."""
    return b"".join(b"%07d\n" % i for i in range(size // 8 + 1))[:size]


class Test:
    def __init__(self, name, loader):
        self.name, self.loader = name, loader
        self.token = f"{random.getrandbits(48):012x}"
        self.stack = contextlib.ExitStack()
        self._net = self._dir = None

    @property
    def net(self):
        if not self._net:
            self._net = self.new_net()
        return self._net

    def use_net(self, device, loopback):
        """The hosts' devices shall be called like this."""
        self._net = self.new_net(device, loopback)

    def new_net(self, *names):
        net = Net(*names)
        self.stack.callback(net.close)
        return net

    @property
    def dir(self):
        if not self._dir:
            self._dir = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="ebpfdump-")))
            self._dir.chmod(0o755)
        return self._dir

    def path(self, name):
        return f"/{self.token}/{name}"

    def start(self, *flags, quiet=True, **options):
        """A loader for this test alone; with quiet, it shows nothing but the tests' own traffic."""
        loader = Loader(*(QUIET if quiet else ()), *flags, **options)
        self.stack.callback(loader.kill)
        return loader

    def container(self, *names):
        container = Container(self.dir / "log", *names)
        self.stack.callback(container.close)
        return container

    def spawn(self, host, argv, **options):
        """A program in the background; killed at the end."""
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.DEVNULL)
        options.setdefault("stderr", subprocess.DEVNULL)
        process = host.popen([str(a) for a in argv], start_new_session=True, **options)

        def end():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for f in process.stdin, process.stdout, process.stderr:
                if f:
                    f.close()
        self.stack.callback(end)
        return process

    def run(self, host, argv, stdin=None, status=0):
        """A program from its start to its end. Returns what it wrote, and its pid."""
        process = host.popen([str(a) for a in argv], stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, errors = process.communicate(stdin, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Failure(f"{' '.join(map(str, argv))} does not end") from None
        if status is not None:
            equal(process.returncode, status, f"{' '.join(map(str, argv))}: {short(errors)}")
        return out, process.pid

    def curl(self, *args, stdin=None, status=0):
        """curl on the client. Returns what it wrote, and its pid."""
        return self.run(self.net.client, ["curl", "-sS", "--noproxy", "*" if "-x" not in args else "", "--max-time",
                                          LIMIT, *args], stdin, status)

    def listening(self, host, address, port, process):
        def there():
            check(process.poll() is None, f"{process.args[0]} ended with {process.returncode}")
            try:
                host.connect(address, port).close()
                return True
            except OSError:
                return False
        until(there, f"{process.args[0]} to listen at {address}:{port}")

    def python_server(self, port=8000, address=None, host=None):
        """server.py, a process of its own. Returns its base URL and the process."""
        host = host or self.net.server
        address = address or host.ip4
        process = self.spawn(host, [PYTHON, HERE / "server.py", address, port])
        self.listening(host, address, port, process)
        return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}", process

    def serve(self, handler, host=None, address=None, port=0):
        """handler(connection) in a thread for each connection. Returns the port."""
        host = host or self.net.server
        with host.inside():
            listener = socket.create_server((address or host.ip4, port), backlog=128,
                                            family=socket.AF_INET6 if ":" in (address or "") else socket.AF_INET)

        def one(connection):
            with connection, contextlib.suppress(OSError, Failure):
                handler(connection)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        def end():
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        threading.Thread(target=accept, daemon=True).start()
        self.stack.callback(end)
        return listener.getsockname()[1]

    def nginx(self, more="", upstream=None, sendfile="on"):
        """
        nginx on the server, port 80. /text/: a short text; /gzip/ and /: files below `root`; /put/: may be PUT there;
        /proxy/: goes to the upstream (HOST:PORT). Returns the folder of its files, and the pid of its worker.
        """
        root = self.dir / "root"
        root.mkdir()
        (root / "put").mkdir()
        subprocess.run(["chmod", "-R", "777", str(self.dir)], check=True)
        temp = "".join(f"{kind}_temp_path {self.dir}/tmp-{kind};" for kind in
                       ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        proxy = "" if not upstream else """
            location /proxy/ { proxy_pass http://up/; proxy_http_version 1.1; proxy_set_header Connection ""; }"""
        block = "" if not upstream else f"upstream up {{ server {upstream}; keepalive 8; }}"
        (self.dir / "nginx.conf").write_text(f"""
            daemon off; worker_processes 1; error_log {self.dir}/error.log; pid {self.dir}/nginx.pid;
            events {{ worker_connections 1024; }}
            http {{
              {temp} access_log off; sendfile {sendfile}; keepalive_requests 100000; client_max_body_size 64m;
              default_type text/plain; {block}
              server {{
                listen 80; listen [::]:80; root {root};
                location /text/ {{ return 200 "text from nginx\\n"; }}
                location /gzip/ {{ gzip on; gzip_min_length 1; gzip_types *; gzip_http_version 1.0; alias {root}/; }}
                location /put/ {{ dav_methods PUT; create_full_put_path on; }}
                {proxy} {more}
              }}
            }}""")
        process = self.spawn(self.net.server, ["nginx", "-e", self.dir / "error.log", "-c", self.dir / "nginx.conf"])
        self.listening(self.net.server, "127.0.0.1", 80, process)
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        worker = until(lambda: children.read_text().split(), "nginx's worker")
        return root, int(worker[0])

    def done(self):
        self.stack.close()


TESTS = []


def test(function=None, *, shared=None, **options):
    """
    Marks a test. shared: flags, beside QUIET, of a loader that runs already when the test begins (t.loader) and is
    shared with the tests beside it that want the same. None: the test starts its own, with t.start().
    """
    def mark(f):
        TESTS.append((f, None if shared is None else tuple(shared), options))
        return f
    return mark(function) if function else mark


def _report(name, run):
    """Runs it; says how it went. Returns whether it passed."""
    began = time.monotonic()
    try:
        run()
    except Failure as e:
        print(f"not ok {name}: {e}", flush=True)
        return False
    except Exception as e:
        print(f"not ok {name}: {type(e).__name__}: {e}", flush=True)
        traceback.print_exc(file=sys.stdout)
        return False
    print(f"ok {name} ({time.monotonic() - began:.1f} s)", flush=True)
    return True


def run_tests(only):
    passed = failed = 0
    loader, shared = None, None

    def count(name, run):
        nonlocal passed, failed
        if _report(name, run):
            passed += 1
        else:
            failed += 1

    def end_loader():
        nonlocal loader
        if loader:
            try:
                count(f"{' '.join(['loader', *shared])} ends as it should", loader.stop)
            finally:
                loader.kill()
                loader = None

    def one(function, options):
        nonlocal loader
        t = Test(function.__name__, loader)
        try:
            if shared is not None and not loader:
                loader = t.loader = Loader(*QUIET, *shared, **options)
                loader.ready()
            function(t)
            if loader:
                loader.alive()
                loader.right()
        finally:
            t.done()
            if loader and loader.process.poll() is not None:
                loader.kill()
                loader = None

    somewhere()
    chosen = [x for x in TESTS if not only or any(word in x[0].__name__ for word in only)]
    try:
        for function, wants, options in chosen:
            if wants != shared:
                end_loader()
                shared = wants
            count(function.__name__, lambda: one(function, options))
        end_loader()
    finally:
        if loader:
            loader.kill()
        remove_stale_hosts()
    print(f"{passed} passed, {failed} failed", flush=True)
    return 0 if failed == 0 and passed else 1
