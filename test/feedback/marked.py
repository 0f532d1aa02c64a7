# SPDX-License-Identifier: Apache-2.0
"""marked: traffic with markers that this file makes, and what a loader that knows the key shows of it."""
import atexit
import os
import shutil
import socket
import tempfile
import time

import markers
from harness import Loader, check, equal, is_response, ledger_gaps, path_of, read_until, test, until
from site_ import Site

KEY = os.urandom(31) + b"k"  # newlines at the end would not count
_DIR = tempfile.mkdtemp(prefix="ebpfdump-feedback-")
atexit.register(shutil.rmtree, _DIR, ignore_errors=True)
KEY_FILE = os.path.join(_DIR, "key")
with open(KEY_FILE, "wb") as f:
    os.fchmod(f.fileno(), 0o600)
    f.write(KEY)
# Loaders that know the key; one that never has enough of relayed markers.
KNOWS = ("--marker-key-file", KEY_FILE)
PATIENT = (*KNOWS, "--relayed-rate", "60000")


def request(path, *fields, method="GET", body=b""):
    head = [f"{method} {path} HTTP/1.1", "Host: marked", *fields]
    if body or method == "POST":
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def answer(body=b"ok", *fields):
    return "\r\n".join(["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields, "", ""]).encode() + body


def serve(connection, reply=None):
    """Answers requests one by one; reply(connection) makes the answer."""
    rest = b""
    while True:
        while b"\r\n\r\n" not in rest:
            more = connection.recv(65536)
            if not more:
                return
            rest += more
        head, rest = rest.split(b"\r\n\r\n", 1)
        length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if
                       line.lower().startswith(b"content-length:")), 0)
        while len(rest) < length:
            rest += connection.recv(65536)
        rest = rest[length:]
        connection.sendall(reply(connection) if reply else answer())


def ask(sock, data):
    sock.sendall(data)
    head = read_until(sock, b"\r\n\r\n")
    head, body = head.split(b"\r\n\r\n", 1)
    length = int(next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")))
    while len(body) < length:
        body += sock.recv(65536)
    return body


def marker_field(value):
    return f"{markers.NAME}: {value}"


def mark(sock, key=KEY, when=None):
    return marker_field(markers.by_seq(key, sock, when))


def counts(loader):
    m = loader.metrics()
    return {r: m.sum("ebpfdump_markers_total", result=r) for r in ("accepted", "wrong", "old", "copied")}


def grown(loader, before):
    after = counts(loader)
    return {k: after[k] - before[k] for k in after if after[k] != before[k]}


def dropped(loader, reason):
    return loader.metrics().sum("ebpfdump_messages_dropped_total", reason=reason)


def own_bytes(loader):
    return loader.metrics().sum("ebpfdump_kernel_skipped_bytes_total", reason="own")


def seen_of(loader, token):
    """What the loader shows of these paths, in order."""
    loader.fence()
    return [("response" if is_response(m) else "request", m["direction"], path_of(m).split("/")[-1])
            for m in loader.select(lambda m: f"/{token}/" in path_of(m))]


def ledger(loader):
    until(lambda: not ledger_gaps(loader.metrics()), lambda: f"the ledger: {ledger_gaps(loader.metrics())}", 20)


EVERY = [("request", 0), ("request", 1), ("response", 0), ("response", 1)]


def whole(name):
    return sorted((*e, name) for e in EVERY)


@test(shared=PATIENT)
def marked_is_ignored(t):
    """From the marker on, both ends, both directions; what came before and what is beside it is shown."""
    port = t.serve(serve)
    before, own = counts(t.loader), own_bytes(t.loader)
    with t.net.client.connect(t.net.server.ip4, port) as s, t.net.client.connect(t.net.server.ip4, port) as other:
        ask(s, request(t.path("before")))
        ask(s, request(t.path("hidden"), mark(s), method="POST", body=b"x" * 100000))
        ask(other, request(t.path("beside")))
        t.loader.fence()
        for _ in range(20):
            ask(s, request(t.path("hidden"), method="POST", body=b"y" * 1000))
        ask(s, request(t.path("hidden"), mark(s)))
        ask(other, request(t.path("beside2")))
    equal(sorted(seen_of(t.loader, t.token)), sorted(whole("before") + whole("beside") + whole("beside2")), "what is shown")
    equal(grown(t.loader, before), {"accepted": 2}, "markers")  # one for each end; then the kernel knows
    check(own_bytes(t.loader) - own > 2 * 20 * 1000, "the kernel side does not skip it")
    ledger(t.loader)


@test(shared=PATIENT)
def marked_pieces(t):
    """The head comes in pieces, the marker late in it; two requests in one write; IPv6."""
    port = t.serve(serve)
    port6 = t.serve(serve, address=t.net.server.ip6)
    before = counts(t.loader)
    with t.net.client.connect(t.net.server.ip4, port) as s:
        data = request(t.path("hidden"), *[f"X-{i}: {'v' * 50}" for i in range(40)], mark(s), method="POST", body=b"b" * 50)
        for i in range(0, len(data), 97):
            s.sendall(data[i:i + 97])
            time.sleep(0.001)
        read_until(s, b"ok")
    with t.net.client.connect(t.net.server.ip6, port6) as s:
        first = request(t.path("shown"))
        value = markers.make(KEY, "s", ((markers.next_seq(s) + len(first)) & 0xffffffff).to_bytes(4, "big"))
        s.sendall(first + request(t.path("hidden"), marker_field(value)))
        data = b""
        while data.count(b"ok") < 2:
            data += s.recv(4096)
    shown = seen_of(t.loader, t.token)
    # the answer to the first one comes behind the marker
    equal([x for x in sorted(shown) if x[0] == "request"], [("request", 0, "shown"), ("request", 1, "shown")], "requests shown")
    equal(grown(t.loader, before), {"accepted": 4}, "markers")
    ledger(t.loader)


@test(shared=PATIENT)
def marked_answer(t):
    """A server that cannot learn sequence numbers says where it is by the connection's ends."""
    port = t.serve(lambda c: serve(c, lambda c: answer(b"ok", marker_field(markers.by_ends(KEY, c)))))
    before = counts(t.loader)
    with t.net.client.connect(t.net.server.ip4, port) as s:
        ask(s, request(t.path("first")))
        t.loader.fence()
        for _ in range(5):
            ask(s, request(t.path("hidden")))
    # the request was shown before it could be known
    equal(sorted(seen_of(t.loader, t.token)), [("request", 0, "first"), ("request", 1, "first")], "what is shown")
    equal(grown(t.loader, before), {"accepted": 2}, "markers")
    ledger(t.loader)


@test(shared=PATIENT)
def others_are_shown(t):
    """Nobody hides: wrong keys, old ones, copies to another connection and later on the same one, garbage."""
    port = t.serve(serve)
    old = int(time.time()) - 301
    cases = {
        "wrong": lambda s: mark(s, key=os.urandom(32)),
        "old": lambda s: mark(s, when=old),
        "ahead": lambda s: mark(s, when=int(time.time()) + 330),
        "copied": lambda s: marker_field(stolen),
        "elsewhere": lambda s: marker_field(markers.make(KEY, "a", bytes(36))),
        "late": lambda s: marker_field(markers.make(KEY, "s", ((markers.next_seq(s) + 1) & 0xffffffff).to_bytes(4, "big"))),
        "garbage": lambda s: marker_field("1"),
        "empty": lambda s: marker_field(""),
        "long": lambda s: marker_field("1;s;" + "7" * 20000),
    }
    with t.net.client.connect(t.net.server.ip4, port) as s:
        stolen = markers.by_seq(KEY, s)
        before = counts(t.loader)
        ask(s, request(t.path("hidden"), marker_field(stolen)))
        equal(grown(t.loader, before), {"accepted": 2}, "the marker that is then copied")
    want = {"wrong": "wrong", "old": "old", "ahead": "old", "copied": "copied", "elsewhere": "copied", "late": "copied",
            "garbage": "wrong", "empty": "wrong", "long": "wrong"}
    for name, make in cases.items():
        with t.net.client.connect(t.net.server.ip4, port) as s:
            before = counts(t.loader)
            ask(s, request(t.path(name), make(s)))
            t.loader.exchange(t.path(name))
            equal(grown(t.loader, before), {want[name]: 2}, name)
    # several fields: one that holds is enough, wherever it stands
    with t.net.client.connect(t.net.server.ip4, port) as s:
        before = counts(t.loader)
        ask(s, request(t.path("hidden"), marker_field("1"), marker_field(stolen), mark(s)))
        equal(grown(t.loader, before), {"wrong": 2, "copied": 2, "accepted": 2}, "several")
    equal(len([x for x in seen_of(t.loader, t.token) if x[2] == "hidden"]), 0, "hidden ones that are shown")
    ledger(t.loader)


@test(shared=PATIENT)
def forged_seq(t):
    """The same sequence number on another connection, made by force (TCP_REPAIR): a marker counts once."""
    port = t.serve(serve)
    with t.net.client.connect(t.net.server.ip4, port) as s:
        seq = markers.next_seq(s)
        stolen = markers.by_seq(KEY, s)
        ask(s, request(t.path("hidden"), marker_field(stolen)))
    s = t.net.client.socket()
    with s:
        s.setsockopt(socket.IPPROTO_TCP, 19, 1)
        s.setsockopt(socket.IPPROTO_TCP, 20, 2)
        # the SYN takes one
        s.setsockopt(socket.IPPROTO_TCP, 21, (seq - 1) & 0xffffffff if seq - 1 < 1 << 31 else seq - 1 - (1 << 32))
        s.setsockopt(socket.IPPROTO_TCP, 19, -1)
        s.connect((t.net.server.ip4, port))
        got = markers.next_seq(s)
        if got != seq:
            # this kernel draws its own: as good as any other connection
            print(f"# sequence number {got} instead of {seq}")
        before = counts(t.loader)
        ask(s, request(t.path("copied"), marker_field(stolen)))
        t.loader.exchange(t.path("copied"))
        equal(grown(t.loader, before), {"copied": 2}, "markers")


@test(shared=PATIENT)
def translated(t):
    """Addresses are translated on the way (nftables): the sequence number is not. The ends are."""
    site = Site(nat=True)
    t.stack.callback(site.close)
    peers = []
    port = t.serve(lambda c: (peers.append(c.getpeername()), serve(c)), host=site.c)
    before = counts(t.loader)
    with site.a.connect(site.public, port) as s:
        ask(s, request(t.path("shown")))
        ask(s, request(t.path("hidden"), mark(s), method="POST", body=b"x" * 1000))
        ask(s, request(t.path("hidden")))
        check(peers[0] != s.getsockname() and peers[0][0] == site.inside_address, f"nothing is translated: {peers}")
    equal(grown(t.loader, before), {"accepted": 2}, "markers")
    before = counts(t.loader)
    with site.b.connect(site.public, port) as s:
        ask(s, request(t.path("ends"), marker_field(markers.by_ends(KEY, s))))
        t.loader.exchange(t.path("ends"), (0, 1, 1, 0))  # its own end knows it
    equal(grown(t.loader, before), {"accepted": 1, "copied": 1}, "markers")
    equal(sorted(seen_of(t.loader, t.token)), sorted(whole("shown") + [("request", 1, "ends"), ("response", 0, "ends")]),
          "what is shown")
    ledger(t.loader)


@test(shared=PATIENT)
def in_the_midst(t):
    """A connection that was open before the loader, in the midst of a POST: known at its next one."""
    port = t.serve(serve)
    with t.net.client.connect(t.net.server.ip4, port) as s:
        data = request(t.path("hidden"), mark(s), method="POST", body=b"z" * 20000)
        s.sendall(data[:10000])
        late = t.start(*PATIENT).ready()
        s.sendall(data[10000:])
        read_until(s, b"ok")
        before = counts(late)
        ask(s, request(t.path("hidden"), mark(s)))
        equal(grown(late, before), {"accepted": 2}, "markers")
        ask(s, request(t.path("hidden")))
    equal(seen_of(late, t.token), [], "what is shown")
    late.stop()


def receiver(t, host, *flags, wrap=()):
    """ebpfdump-callback on this host; returns its port."""
    port = 8090
    out = open(t.dir / f"received-{host.name}", "wb")
    process = t.spawn(host, [*wrap, Loader.program.replace("ebpfdump-loader", "ebpfdump-callback"), "--listen",
                             f"{host.ip4}:{port}", "--host", host.ip4, *flags], stdout=out, stderr=open(t.dir / "receiver.log", "wb"))
    out.close()
    t.listening(host, host.ip4, port, process)
    return port


def our_receiver(t, kind, *wrap):
    port = receiver(t, t.net.server, *KNOWS, wrap=wrap)
    before = counts(t.loader)
    with t.net.client.connect(t.net.server.ip4, port) as s:
        s.sendall(request("/healthz?" + t.token))
        head = read_until(s, b"\r\n\r\n").decode()
        check(f"{markers.NAME}: 1;{kind};" in head, lambda: f"the answer has no such marker: {head}")
        t.loader.fence()
        for path in "/healthz", "/metrics", "/api/exchanges", "/":
            ask(s, request(f"{path}?{t.token}"))
    with t.net.client.connect(t.net.server.ip4, port) as s:
        ask(s, request(f"/ingest?{t.token}", "Content-Type: application/json", method="POST", body=b'{"direction":0}'))
    mine = lambda m: t.token in path_of(m)
    t.loader.fence()
    equal(sorted(m["method"] + " " + m["path"].split("?")[0] for m in t.loader.select(mine)),
          ["GET /healthz", "GET /healthz", "POST /ingest", "POST /ingest"], "what is shown: what came before the answers")
    equal(grown(t.loader, before), {"accepted": 4}, "markers")
    ledger(t.loader)


@test(shared=PATIENT)
def receiver_is_known(t):
    """Our receiver's page, API and answers, by sequence numbers."""
    our_receiver(t, "s")


@test(shared=PATIENT)
def receiver_without_capability(t):
    """The same as in a pod that has no CAP_NET_ADMIN: by the connection's ends."""
    our_receiver(t, "a", "setpriv", "--bounding-set", "-net_admin")


@test
def relayed(t):
    """A proxy hands markers on: a few are shown, the rest and their answers are left out. One who repeats is shown."""
    port = t.serve(serve, host=t.net.client)
    t.nginx(upstream=f"{t.net.client.ip4}:{port}")
    loader = t.start(*KNOWS).ready()
    path = t.path("p")  # behind the proxy
    began = time.monotonic()
    with t.net.client.connect(t.net.server.ip4, 80) as s:
        for _ in range(100):
            ask(s, request(f"/proxy{path}", mark(s), method="POST", body=b"{}"))
    loader.fence()
    shown = loader.select(lambda m: path_of(m).endswith(path))
    few = len([m for m in shown if not is_response(m)])
    most = 10 + int((time.monotonic() - began) / 6)
    check(10 <= few <= most, f"{few} requests are shown: ten at once, and ten a minute, are {most}")
    equal(len(shown), 2 * few, "messages shown")
    equal({path_of(m) for m in shown}, {path}, "paths shown: behind the proxy alone")
    equal(dropped(loader, "relayed"), 2 * (200 - few), "messages dropped as relayed")
    equal(counts(loader), {"accepted": 2, "wrong": 0, "old": 0, "copied": 200}, "markers")
    check("an HTTP proxy between" in loader.log_text(), "nothing is said of it")
    # the same marker again and again is no proxy's work: left out so often as a proxy might try again, then shown
    with t.net.client.connect(t.net.server.ip4, 80) as s:
        stolen = markers.make(KEY, "s", b"\0\0\0\0")
        for _ in range(20):
            ask(s, request("/text/" + t.token, marker_field(stolen)))
    loader.fence()
    again = loader.select(lambda m: path_of(m) == "/text/" + t.token and not is_response(m))
    equal(len(again), 2 * (20 - 8), "requests shown of one who repeats")
    # without a marker all is as ever
    with t.net.client.connect(t.net.server.ip4, 80) as s:
        ask(s, request(f"/proxy{t.path('q')}"))
    loader.exchange(f"/proxy{t.path('q')}")
    loader.exchange(t.path("q"))
    ledger(loader)
    loader.stop()


@test
def key_comes_late(t):
    """No crash loop by configuration: the file comes when it comes, and changes when it changes."""
    path = t.dir / "key"
    port = t.serve(serve)
    loader = t.start("--marker-key-file", path).ready()
    check("--marker-key-file" in loader.log_text() and "No such file" in loader.log_text(), loader.log_text)
    equal(loader.metrics().sum("ebpfdump_marker_key_file_ok"), 0, "key in use")
    with t.net.client.connect(t.net.server.ip4, port) as s:
        ask(s, request(t.path("unknown"), mark(s)))
        loader.exchange(t.path("unknown"))
        equal(counts(loader)["wrong"], 2, "wrong markers")
        path.write_bytes(KEY + b"\n")
        until(lambda: loader.metrics().sum("ebpfdump_marker_key_file_ok") == 1, "the key to be found")
        ask(s, request(t.path("hidden"), mark(s)))
        equal(counts(loader)["accepted"], 2, "accepted markers")
    check("is open to others" in loader.log_text(), "nothing is said of its mode")
    # the next key: both count now
    path.unlink()
    path.write_bytes(KEY[::-1])
    until(lambda: "the new key is accepted" in loader.log_text(), "the new key")
    for key in KEY, KEY[::-1]:
        with t.net.client.connect(t.net.server.ip4, port) as s:
            ask(s, request(t.path("hidden"), mark(s, key=key)))
    equal(counts(loader), {"accepted": 6, "wrong": 2, "old": 0, "copied": 0}, "markers")
    equal(len([x for x in seen_of(loader, t.token) if x[2] == "hidden"]), 0, "hidden ones that are shown")
    log = loader.log_text()
    for secret in KEY, KEY[::-1]:
        check(secret not in log.encode(errors="surrogateescape") and secret.hex() not in log, "the key is in the log")
    loader.stop()
