#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A file of capture records, made without a kernel: `make.py FILE` writes it.

The format is what docs/REFERENCE.md and bpf/capture.h say. Every conversation below has a path that
names it, so that a line of golden.jsonl tells where it comes from. All is deterministic.
"""
import ipaddress
import struct
import sys

VERSION = 1
DATA, END, CLOCK = 1, 2, 3
EGRESS, INGRESS, BOTH = 0, 1, 2
F_SEQ, F_PACKET, F_FIRST, F_RESET, F_UNREADABLE = 1, 2, 4, 8, 16
AF_INET, AF_INET6 = 2, 10
DATA_MAX = 16384  # of a record; what is sent here is cut into less, so that it may change
SEND_MAX = 16000

# struct capture_record, then what a file begins with: both in the byte order of this machine
RECORD = struct.Struct("=HBBIQQQIIIIIIIHHHHI16s16s16s16s")
HEADER = struct.Struct("=8sIIQ")
assert RECORD.size == 136

MS = 1000000
START_MONO = 1000 * 1000 * MS  # the machine had been up for 1000 s
START_WALL = 1750000000 * 1000 * MS


class Record:
    """One record; the fields are those of struct capture_record."""

    def __init__(self, **fields):
        self.version, self.type, self.direction = VERSION, DATA, EGRESS
        self.time_ns = self.connection = self.cgroup_id = 0
        self.seq = self.length = self.flags = self.pid = self.netns = self.ifindex = 0
        self.family, self.local_port, self.remote_port = 0, 0, 0
        self.local_addr = self.remote_addr = self.comm = self.interface = b""
        self.data = b""
        self.whole = False  # never cut into pieces
        self.__dict__.update(fields)

    def pack(self):
        n = len(self.data)
        head = RECORD.pack(
            self.version, self.type, self.direction, RECORD.size + n, self.time_ns,
            self.connection, self.cgroup_id, self.seq, self.length, n, self.flags, self.pid,
            self.netns, self.ifindex, self.family, self.local_port, self.remote_port, 0, 0,
            self.local_addr, self.remote_addr, self.comm, self.interface)
        return head + self.data + bytes(-n % 8)


class Capture:
    """Records in the order of time: each is a millisecond behind the one before."""

    def __init__(self):
        self.now = START_MONO
        self.records = []
        self.connections = 0

    def clock(self, wall_ns):
        """The wall clock, as it is when the next record comes."""
        self.records.append(Record(type=CLOCK, time_ns=self.now + MS, connection=wall_ns))

    def pass_time(self, ms):
        """Then comes a record of nobody's, so that what waits for the time sees it pass."""
        self.now += ms * MS
        self.client().end()

    def add(self, record):
        self.now += MS
        record.time_ns = self.now
        self.records.append(record)

    def client(self, **more):
        """A connection on which this machine is the client."""
        return Connection(self, False, **more)

    def server(self, **more):
        """A connection on which this machine is the server."""
        return Connection(self, True, **more)

    def pack(self, split=0):
        """The file. split: records of data are cut into pieces of so many bytes."""
        out = [HEADER.pack(b"EBPFDUMP", VERSION, RECORD.size, 0x0102030405060708)]
        for r in self.records:
            out += [piece.pack() for piece in (pieces(r, split) if split else [r])]
        return b"".join(out)


def pieces(record, size):
    n = len(record.data)
    if record.type != DATA or record.whole or n <= size:
        return [record]
    out = []
    for i in range(0, n, size):
        piece = Record(**record.__dict__)
        piece.data = record.data[i:i + size]
        piece.seq = (record.seq + i) % 2**32
        # what was not captured is behind the last piece
        piece.length = len(piece.data) if i + size < n else max(record.length - i, 0)
        if i:
            piece.flags &= ~F_FIRST
        out.append(piece)
    return out


class Connection:
    def __init__(self, capture, is_server, v6=False, first=True, seq=(1000, 5000), pid=4242,
                 comm=b"curl", interface=b"eth0"):
        capture.connections += 1
        n = capture.connections
        self.capture = capture
        self.requests = INGRESS if is_server else EGRESS
        self.seq = {self.requests: seq[0], 1 - self.requests: seq[1]}
        self.first = {EGRESS: first, INGRESS: first}
        here, there = ("2001:db8::1", "2001:db8::2") if v6 else ("10.0.0.1", "10.0.0.2")
        ports = (80, 40000 + n) if is_server else (40000 + n, 80)
        self.fields = dict(
            connection=n, cgroup_id=77, pid=pid, netns=4026531840, ifindex=2,
            family=AF_INET6 if v6 else AF_INET, local_port=ports[0], remote_port=ports[1],
            local_addr=ipaddress.ip_address(here).packed,
            remote_addr=ipaddress.ip_address(there).packed, comm=comm, interface=interface)

    def send(self, direction, data, skipped=0, flags=0, at=None):
        """Bytes that passed; `skipped` more behind them were not captured. at: other than next."""
        seq = self.seq[direction] if at is None else at
        while True:
            now, data = data[:SEND_MAX], data[SEND_MAX:]
            length = len(now) + (0 if data else skipped)
            first = F_FIRST if self.first[direction] else 0
            self.capture.add(Record(
                direction=direction, seq=seq % 2**32, length=length, data=now,
                flags=F_SEQ | first | flags, **self.fields))
            self.first[direction] = False
            seq += length
            if at is None:
                self.seq[direction] = seq
            if not data:
                return

    def request(self, data, **more):
        self.send(self.requests, data, **more)

    def response(self, data, **more):
        self.send(1 - self.requests, data, **more)

    def lose(self, direction, n):
        """n bytes pass unseen."""
        self.seq[direction] += n

    def end(self, direction=BOTH, flags=0):
        known = direction != BOTH
        self.capture.add(Record(
            type=END, direction=direction, seq=self.seq[direction] % 2**32 if known else 0,
            flags=flags | (F_SEQ if known else 0), **self.fields))

    def request_end(self, **more):
        self.end(self.requests, **more)

    def response_end(self, **more):
        self.end(1 - self.requests, **more)

    def exchange(self, path, status=b"200 OK", body=b"", method=b"GET", head=b"", host=b"a.test"):
        """The plain case: a request without a body, a response with a length."""
        self.request(method + b" " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        self.response(b"HTTP/1.1 " + status + b"\r\n" + head +
                      b"Content-Length: %d\r\n\r\n" % len(body) + body)


def well_formed(c):
    x = c.client()
    x.request(b"GET /basic?q=1&r=%20 HTTP/1.1\r\nHost: www.example.com\r\nuser-agent: curl/7.88.1\r\n"
              b"ACCEPT: */*\r\nx-forwarded-for: 10.1.1.1\r\nX-Forwarded-For:10.1.1.2  \r\n"
              b"X-Empty:\r\n\r\n")
    x.response(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n")
    x.end()

    x = c.server(comm=b"nginx", pid=808)
    x.exchange(b"/keep-alive/1", body=b"one")
    x.exchange(b"/keep-alive/2", status=b"404 Not Found", body=b"none")
    x.exchange(b"/keep-alive/3", method=b"DELETE", status=b"500 Internal Server Error")
    x.end()

    x = c.client(v6=True, interface=b"lo")
    x.exchange(b"/v6", body=b"six", host=b"[2001:db8::2]:80")
    x.end()

    x = c.server()
    x.request(b"GET /http10/close HTTP/1.0\r\n\r\n")
    x.response(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<p>until")
    x.response(b" the end</p>")
    x.response_end()
    x.request_end()

    x = c.server()
    for n in b"12":
        x.request(b"GET /http10/keep-alive/%c HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" % n)
        x.response(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n%c" % n)
    x.end()

    x = c.client()
    x.request(b"".join(b"GET /pipeline/%c HTTP/1.1\r\nHost: p.test\r\n\r\n" % n for n in b"123"))
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
               b"HTTP/1.1 204 No Content\r\n\r\n"
               b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n3\r\n0\r\n\r\n")
    x.end()

    x = c.client()
    x.request(b"POST /chunked HTTP/1.1\r\nHost: c.test\r\nTransfer-Encoding: chunked\r\n\r\n"
              b"5;name=value;q=\"a;b\"\r\nHello\r\n")
    x.request(b"0007\r\n, chunk\r\n")
    x.request(b"1\r\ns\r\n0\r\nX-Trailer: yes\r\n\r\n")
    x.response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\nA\r\n0123456")
    x.response(b"789\r\n0\r\n")
    x.response(b"Digest: x\r\n\r\n")
    x.end()

    x = c.server()
    x.request(b"HEAD /head HTTP/1.1\r\nHost: h.test\r\n\r\n")
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    x.exchange(b"/head/next", body=b"next")
    x.end()

    x = c.client()
    x.request(b"POST /continue HTTP/1.1\r\nHost: e.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    x.response(b"HTTP/1.1 100 Continue\r\n\r\n")
    x.request(b"data")
    x.response(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
    x.response(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    x.exchange(b"/continue/next", body=b"x")
    x.end()

    x = c.client()
    x.request(b"GET /304 HTTP/1.1\r\nHost: n.test\r\n\r\n")
    x.response(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 512\r\n\r\n")
    x.exchange(b"/304/next", body=b"y")
    x.end()

    x = c.server()
    x.request(b"GET /upgrade HTTP/1.1\r\nHost: w.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    x.response(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi")
    x.request(b"GET /not-a-message HTTP/1.1\r\nHost: tunnelled\r\n\r\n")
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    x.end()

    x = c.client()
    x.request(b"CONNECT tunnel.test:443 HTTP/1.1\r\nHost: tunnel.test:443\r\n\r\n")
    x.response(b"HTTP/1.1 200 Connection established\r\n\r\n")
    x.request(b"\x16\x03\x01\x02\x00\x01\x00")
    x.response(b"HTTP/1.1 200 OK\r\nX: inside the tunnel\r\n\r\n")
    x.end()

    x = c.client()
    x.request(b"CONNECT refused.test:443 HTTP/1.1\r\nHost: refused.test:443\r\n\r\n")
    x.response(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno")
    x.exchange(b"/after-407", body=b"z")
    x.end()

    x = c.client()
    x.exchange(b"*", method=b"OPTIONS", head=b"Allow: GET, HEAD\r\n")
    x.exchange(b"http://proxied.test/absolute?x#y", body=b"abs", host=b"proxied.test")
    x.exchange(b"/unknown-method", method=b"FROBNICATE", status=b"405 Method Not Allowed")
    x.request(b"PUT /put HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3, 3\r\n\r\nput")
    x.response(b"HTTP/1.1 200\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok")
    x.end()

    # the body is still on its way when it is refused
    x = c.server()
    x.request(b"POST /early-413 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n01234")
    x.response(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
    x.request(b"56789")
    x.end()

    # empty lines between messages; sequence numbers that wrap around
    x = c.client(seq=(2**32 - 20, 2**32 - 60))
    x.request(b"\r\n\r\nGET /wrap/1 HTTP/1.1\r\nHost: a.test\r\n\r\n")
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\nabcdefghijklmnopqrstuvwxyz")
    x.exchange(b"/wrap/2", body=b"behind it")
    x.end()

    # several connections at once
    xs = [c.client() for _ in range(3)]
    for n, x in enumerate(xs):
        x.request(b"GET /interleaved/%d HTTP/1.1\r\nHos" % n)
    for x in xs:
        x.request(b"t: i.test\r\n\r\n")
    for n, x in reversed(list(enumerate(xs))):
        x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%d" % n)
    for x in xs:
        x.response(b"!")
    for x in xs:
        x.end()


def bytes_of_all_kinds(c):
    x = c.client()
    x.exchange(b"/binary", body=bytes(range(256)), head=b"Content-Type: application/octet-stream\r\n")
    x.exchange(b"/utf-8", body="žluťoučký kůň 漢字 \U0001f600".encode())
    x.exchange(b"/not-utf-8", body=b"caf\xe9")
    x.exchange(b"/controls", body=b"tab\there \"quoted\" back\\slash \x1b[1mbold\x1b[0m\x08\x0b\x0c\r\n")
    x.exchange(b"/nul", body=b"a\0b")
    x.exchange(b"/no-body")
    # 4096 bytes are kept: the limit cuts a character in two
    x.exchange(b"/body-limit", body=b"x" * 4095 + "é".encode() + b"tail")
    x.exchange(b"/body-limit/binary", body=b"\xff" * 5000)
    x.exchange(b"/body-limit/exactly", body=b"e" * 4096)
    # what takes more room in JSON than the line has
    x.exchange(b"/line-limit", body=b"\x1b" * 4096)
    # a body of many records, larger than what is kept of it
    x.exchange(b"/large", body=b"0123456789abcdef" * 3000)
    x.end()

    x = c.server()
    x.request(b"GET /latin-1/caf\xe9 HTTP/1.1\r\nHost: a.test\r\nX-Latin-1: na\xefve \xa9\r\n"
              b"X-Utf-8: " + "naïve ©".encode() + b"\r\n"
              b"X-Json: \"a\\b\"\tc\r\nwww-authenticate: x\r\nETag: \"1\"\r\nx_under-score.dot: 1\r\n\r\n")
    x.response(b"HTTP/1.1 200 Tr\xe8s bien\r\nSet-Cookie: a=1\r\nContent-Length: 2\r\nset-cookie: b=2\r\n\r\nok")
    x.end()

    # a process of which nothing is known, a name of 15 bytes that are no UTF-8
    x = c.client(pid=0, comm=b"", interface=b"")
    x.exchange(b"/nobody")
    x.end()
    x = c.client(comm=b"\xff\"\\\n\x01 name here", interface=b"veth1234567890a")
    x.exchange(b"/odd-names")
    x.end()


def long_heads(c):
    x = c.server()
    x.request(b"GET /long/one-value HTTP/1.1\r\nHost: l.test\r\nCookie: " + b"c" * 60000 +
              b"\r\nX-Last: kept\r\n\r\n")
    x.response(b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n\r\n")
    x.request(b"GET /long/many-values HTTP/1.1\r\nHost: l.test\r\n" +
              b"".join(b"X-%03d: %s\r\n" % (n, b"v" * 200) for n in range(200)) + b"\r\n")
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    x.request(b"GET /long/path/" + b"p" * 30000 + b" HTTP/1.1\r\nHost: l.test\r\n\r\n")
    x.response(b"HTTP/1.1 414 URI Too Long\r\nContent-Length: 0\r\n\r\n")
    # 256 header fields are kept
    x.request(b"GET /long/fields HTTP/1.1\r\nHost: l.test\r\n" +
              b"".join(b"f%d: 1\r\n" % n for n in range(300)) + b"\r\n")
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    x.end()

    # longer than the limit of a head: as far as it goes, then the next message
    x = c.server()
    x.request(b"GET /long/endless HTTP/1.1\r\nHost: l.test\r\nX: " + b"e" * 100000)
    x.request(b"\r\n\r\n")
    x.response(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    x.exchange(b"/long/next")
    x.end()


def faults(c):
    def bad(path, head, body=b"", start=None):
        """A bad request, its answer, and a good exchange on the same connection."""
        x = c.server()
        x.request((start or b"GET " + path + b" HTTP/1.1") + b"\r\nHost: f.test\r\n" + head + b"\r\n" + body)
        x.response(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad")
        x.exchange(path + b"/next", body=b"good")
        x.end()

    bad(b"/fault/lengths", b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello")
    bad(b"/fault/lengths/text", b"Content-Length: 5\r\nContent-Length: 11\r\n", b"hello world")
    bad(b"/fault/length", b"Content-Length: 0x10\r\n", b"0123456789abcdef")
    bad(b"/fault/length/negative", b"Content-Length: -1\r\n")
    bad(b"/fault/length/huge", b"Content-Length: 99999999999999999999999999\r\n")
    bad(b"/fault/length-and-chunked", b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"1\r\nx\r\n0\r\n\r\n")
    bad(b"/fault/not-last-chunked", b"Transfer-Encoding: chunked, gzip\r\n", b"1\r\nx\r\n0\r\n\r\n")
    bad(b"/fault/unknown-coding", b"Transfer-Encoding: xchunked\r\n")
    bad(b"/fault/chunk", b"Transfer-Encoding: chunked\r\n", b"2\r\nok\r\nzz\r\nnot a chunk\r\n")
    bad(b"/fault/chunk-end", b"Transfer-Encoding: chunked\r\n", b"2\r\nokay\r\n0\r\n\r\n")
    bad(b"/fault/chunk-lf", b"Transfer-Encoding: chunked\r\n", b"2\nok\n0\n\n")
    bad(b"/fault/chunk-huge", b"Transfer-Encoding: chunked\r\n", b"fffffffffffffffff\r\nx\r\n0\r\n\r\n")
    bad(b"/fault/nul", b"X-Nul: a\0b\r\n")
    bad(b"/fault/bare-cr", b"X-Cr: a\rb\r\n")
    bad(b"/fault/space-before-colon", b"X-Space : a\r\n")
    bad(b"/fault/no-colon", b"no colon here\r\n")
    bad(b"/fault/no-name", b": value\r\n")
    bad(b"/fault/folding", b"X-Folded: one\r\n two\r\n\tthree\r\n")
    bad(b"/fault/two-hosts", b"Host: other.test\r\n")
    bad(b"/fault/version", b"", start=b"GET /fault/version HTTP/1.2")
    bad(b"/fault/version2", b"", start=b"GET /fault/version2 HTTP/3.0")
    bad(b"/fault/spaces", b"", start=b"GET  /fault/spaces  HTTP/1.1")
    bad(b"/fault/target", b"", start=b"GET fault/target HTTP/1.1")

    x = c.server()
    x.request(b"GET /fault/no-host HTTP/1.1\r\n\r\n")
    x.response(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    x.end()
    x = c.server()
    x.request(b"GET /fault/http-0.9\r\n\r\n")
    x.response(b"<p>old</p>")
    x.end()
    x = c.client()
    x.exchange(b"/fault/status", status=b"20 OK")
    x.exchange(b"/fault/status/next", body=b"good")
    x.end()

    # tolerated, and no fault in a head: bare LF (between chunks it is one, see above)
    x = c.server()
    x.request(b"POST /bare-lf HTTP/1.1\nHost: f.test\nContent-Length: 2\n\nok")
    x.response(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok")
    x.end()


def lost_bytes(c):
    # more than is captured of one call
    x = c.client()
    x.request(b"PUT /lost/limit HTTP/1.1\r\nHost: g.test\r\nContent-Length: 100000\r\n\r\n" + b"a" * 100,
              skipped=99900)
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    x.exchange(b"/lost/limit/next", body=b"in step")
    x.end()

    # the whole body; then the rest of a body and the message behind it
    x = c.server()
    x.request(b"PUT /lost/body HTTP/1.1\r\nHost: g.test\r\nContent-Length: 10\r\n\r\n", skipped=10)
    x.response(b"HTTP/1.1 204 No Content\r\n\r\n")
    x.request(b"PUT /lost/more-than-body HTTP/1.1\r\nHost: g.test\r\nContent-Length: 10\r\n\r\n01234",
              skipped=105)
    x.response(b"HTTP/1.1 204 No Content\r\n\r\n" * 2)
    x.exchange(b"/lost/more-than-body/next", body=b"in step")
    x.end()

    # sendfile: the length is all that is known
    x = c.server()
    x.request(b"GET /lost/sendfile HTTP/1.1\r\nHost: g.test\r\n\r\n")
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n")
    x.response(b"", skipped=65536, flags=F_UNREADABLE)
    x.response(b"", skipped=4464, flags=F_UNREADABLE)
    x.exchange(b"/lost/sendfile/next", body=b"in step")
    x.end()

    # a record that the ring buffer had no room for, in a body
    x = c.client()
    x.request(b"GET /lost/record HTTP/1.1\r\nHost: g.test\r\n\r\n")
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n0123456789")
    x.lose(INGRESS, 10)
    x.response(b"abcdefghij")
    x.exchange(b"/lost/record/next", body=b"in step")
    x.end()

    # in a chunk, then over the end of one: what follows cannot be told
    x = c.client()
    x.request(b"GET /lost/in-chunk HTTP/1.1\r\nHost: g.test\r\n\r\n")
    x.response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n01234")
    x.lose(INGRESS, 10)
    x.response(b"fghij\r\n0\r\n\r\n")
    x.request(b"GET /lost/over-chunks HTTP/1.1\r\nHost: g.test\r\n\r\n")
    x.response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n")
    x.lose(INGRESS, 12)
    x.response(b"xyz\r\n0\r\n\r\n")
    x.exchange(b"/lost/over-chunks/next", body=b"in step")
    x.end()

    # in the head
    x = c.server()
    x.request(b"GET /lost/head HTTP/1.1\r\nHost: g.test\r\nX-Half: of the val")
    x.lose(INGRESS, 50)
    x.request(b"rest: of the head\r\n\r\n")
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    x.exchange(b"/lost/head/next", body=b"in step")
    x.end()

    # whole messages
    x = c.client()
    x.exchange(b"/lost/message/1", body=b"1")
    x.lose(EGRESS, 60)
    x.lose(INGRESS, 60)
    x.exchange(b"/lost/message/3", body=b"3")
    x.end()

    # repeated: a call again after it took only a part; a retransmission of a whole record
    x = c.client()
    x.request(b"POST /repeated HTTP/1.1\r\nHost: r.test\r\nContent-Length: 10\r\n\r\n01234")
    x.request(b"01234567", at=x.seq[EGRESS] - 5)
    x.seq[EGRESS] += 3
    x.request(b"34567", at=x.seq[EGRESS] - 5)
    x.request(b"89")
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    x.end()


def packets(c):
    # in another order, and some of them twice
    x = c.client()
    x.request(b"GET /packets HTTP/1.1\r\nHost: p.test\r\n\r\n")
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\nabcdefghijklmnopqrstuvwxyz"
    base = x.seq[INGRESS]
    for i in (0, 20, 10, 40, 30, 10, 50, 60):
        x.response(whole[i:i + 10], at=base + i, flags=F_PACKET)
    x.end()

    # the first one comes last
    x = c.server()
    whole = b"POST /packets/first-last HTTP/1.1\r\nHost: p.test\r\nContent-Length: 5\r\n\r\nhello"
    base = x.seq[INGRESS]
    x.first[INGRESS] = False
    for i in (40, 20, 60):
        x.request(whole[i:i + 20], at=base + i, flags=F_PACKET)
    x.request(whole[:20], at=base, flags=F_PACKET | F_FIRST)
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    x.end()

    # one that never comes: after a second the rest goes on without it
    x = c.client()
    x.request(b"GET /packets/missing HTTP/1.1\r\nHost: p.test\r\n\r\n")
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n0123456789", flags=F_PACKET)
    x.lose(INGRESS, 10)
    x.response(b"abcdefghij", flags=F_PACKET)
    c.pass_time(1500)
    x.exchange(b"/packets/missing/next", body=b"in step")
    x.end()


def ends(c):
    def cut(path, response, flags=0):
        x = c.client()
        x.request(b"GET " + path + b" HTTP/1.1\r\nHost: e.test\r\n\r\n")
        x.response(response)
        return x

    cut(b"/end/length", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234").end()
    cut(b"/end/chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n").response_end()
    cut(b"/end/head", b"HTTP/1.1 200 OK\r\nServer: half").end()
    cut(b"/end/close", b"HTTP/1.1 200 OK\r\n\r\nall of it").response_end()
    cut(b"/reset/close", b"HTTP/1.1 200 OK\r\n\r\nmaybe not all").end(flags=F_RESET)
    cut(b"/reset/length", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234").end(flags=F_RESET)
    cut(b"/reset/complete", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n01234").end(flags=F_RESET)

    # the end is further on than what was seen
    x = cut(b"/end/beyond", b"HTTP/1.1 200 OK\r\n\r\nseen")
    x.lose(INGRESS, 6)
    x.response_end()

    # a request that is never answered; a connection that says nothing; one that nobody knows
    x = c.client()
    x.request(b"GET /end/unanswered HTTP/1.1\r\nHost: e.test\r\n\r\n")
    x.end()
    c.client().end()
    c.client().end(EGRESS, flags=F_RESET)

    # half closed: the response comes when the requests are over
    x = c.server()
    x.request(b"POST /end/half HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")
    x.request_end()
    x.response(b"HTTP/1.0 200 OK\r\n\r\nhalf closed")
    x.response_end()


def in_the_middle(c):
    # open before the loader started: the rest of a body, then messages
    x = c.client(first=False)
    x.response(b"the rest of a body, which is text\n")
    x.exchange(b"/middle/next", body=b"found")
    x.end()

    # a response of which nobody saw the request; it may have been HEAD
    x = c.client(first=False)
    x.response(b"HTTP/1.1 200 OK\r\nX-Path: /middle/response\r\nContent-Length: 4\r\n\r\nlone")
    x.exchange(b"/middle/response/next", body=b"paired")
    x.end()

    # it was HEAD: the record where its body should be begins with the next response
    x = c.client(first=False)
    x.response(b"HTTP/1.1 200 OK\r\nX-Path: /middle/head\r\nContent-Length: 400\r\n\r\n")
    x.exchange(b"/middle/head/next", body=b"told apart")
    c.records[-1].whole = True
    x.end()

    # records that contradict themselves are refused, the rest is not harmed
    x = c.client()
    x.request(b"GET /contradiction HTTP/1.1\r\nHost: m.test\r\n\r\n")
    for fields in ({"comm": b"sixteen bytes!!!"}, {"family": 99}, {"flags": 0}, {"connection": 0}):
        c.add(Record(direction=INGRESS, seq=x.seq[INGRESS], length=7, data=b"garbage",
                     **{"flags": F_SEQ, **x.fields, **fields}))
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    x.end()


def clocks(c):
    # the wall clock is set back by an hour while the response is awaited
    x = c.client()
    x.request(b"GET /clock/step HTTP/1.1\r\nHost: t.test\r\n\r\n")
    c.clock(START_WALL - 3600 * 1000 * MS)
    x.response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    x.end()
    c.clock(START_WALL + 60 * 1000 * MS)

    # idle for longer than two hours: given up
    x = c.client()
    x.request(b"POST /clock/idle HTTP/1.1\r\nHost: t.test\r\nContent-Length: 10\r\n\r\n01234")
    c.pass_time(3 * 3600 * 1000)

    # what is unfinished when the file ends
    x = c.client()
    x.exchange(b"/clock/late", body=b"late")
    x.request(b"POST /unfinished HTTP/1.1\r\nHost: t.test\r\nContent-Length: 10\r\n\r\n01234")
    x = c.client()
    x.request(b"GET /unfinished/head HTTP/1.1\r\nHost: t.te")


def capture():
    c = Capture()
    c.clock(START_WALL)
    for part in (well_formed, bytes_of_all_kinds, long_heads, faults, lost_bytes, packets, ends,
                 in_the_middle, clocks):
        part(c)
    return c


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make.py FILE")
    with open(sys.argv[1], "wb") as out:
        out.write(capture().pack())
