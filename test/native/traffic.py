# SPDX-License-Identifier: Apache-2.0
"""What real programs say to each other, as the loader shows it. One loader with the default flags watches all."""
import gzip
import hashlib
import os
import socket
import subprocess
import threading
import time
import urllib.request

from harness import (DEVICE, LIMIT, LOOPBACK, PYTHON, Exchange, body_of, check, equal, is_response, path_of,
                     pattern, read_exactly, read_until, test)

MIB = 1 << 20
DEFAULT_BODY = 4096


def each(messages, **expected):
    for m in messages:
        for key, value in expected.items():
            equal(m.get(key), value, f"{key} of {m}")


def whole(m, body):
    """The message shows this body, as far as the default limit goes, and its full length."""
    equal(m["body_bytes"], len(body), f"body_bytes of {path_of(m)}, direction {m['direction']}")
    equal(body_of(m), body[:DEFAULT_BODY], f"body of {path_of(m)}, direction {m['direction']}")
    equal(m["body_truncated"], len(body) > DEFAULT_BODY, "body_truncated")
    check("error" not in m, f"error: {m.get('error')}")


def by_address(m, client, server, server_port):
    """The addresses of a message between the two, whichever way it goes."""
    ends = (m["src_ip"], m["dst_ip"])
    equal(ends, (server.ip4, client.ip4) if is_response(m) else (client.ip4, server.ip4), "src_ip, dst_ip")
    equal(m["src_port" if is_response(m) else "dst_port"], server_port, "the server's port")
    equal((m["remote_ip"], m["remote_port"]),
          (client.ip4, m["dst_port" if is_response(m) else "src_port"]), "remote_ip, remote_port")


@test
def every_key(t):
    """With the default flags alone: what the machine's other programs say shows as well."""
    t.use_net("eth0", "lo")
    loader = t.start(quiet=False, lossy=True).ready()
    _, worker = t.nginx()
    path = f"/text{t.path('hello?a=b&c=%20')}"
    began = time.time() * 1000
    out, pid = t.curl("-A", "curl/under-test", "-H", "x-TWO: 1", "-H", "X-Two: 2", "-H", "x-empty;",
                      "-d", "söme=text", f"http://{t.net.server.ip4}{path}")
    ended = time.time() * 1000
    equal(out, b"text from nginx\n", "what curl got")
    e = loader.exchange(path)
    loader.stop()
    for m in e.all:
        by_address(m, t.net.client, t.net.server, 80)
        equal(m["version"], "1.1", "version")
        equal(m["interface"], "eth0", "interface")
        equal(m["node"], socket.gethostname(), "node")
        equal(m["gap_bytes"], 0, "gap_bytes")
        equal(m["body_truncated"], False, "body_truncated")
        check(began - 1000 <= m["timing_ms"] <= ended + 1000, f"timing_ms {m['timing_ms']} not in {began}..{ended}")
        check("error" not in m and "body_encoding" not in m and "headers_truncated" not in m, f"more keys: {m}")
    for m in e.requests:
        each([m], method="POST", path=path, status_code=0, body="söme=text", body_bytes=10)
        equal(m["headers"], {"Host": [t.net.server.ip4], "User-Agent": ["curl/under-test"], "Accept": ["*/*"],
                             "X-Two": ["1", "2"], "X-Empty": [""], "Content-Length": ["10"],
                             "Content-Type": ["application/x-www-form-urlencoded"]}, "the request's headers")
    for m in e.responses:
        each([m], status_code=200, body="text from nginx\n", body_bytes=16,
             request={"method": "POST", "path": path, "host": t.net.server.ip4})
        equal(m["headers"]["Content-Length"], ["16"], "Content-Length")
        equal(m["headers"]["Server"][0].split("/")[0], "nginx", "Server")
        check(m["latency_us"] <= (ended - began + 1000) * 1000, f"latency_us {m['latency_us']}")
    each(e.request_out, direction=0, comm="curl", pid=pid)
    each(e.response_in, direction=1, comm="curl", pid=pid)
    each(e.response_out, direction=0, comm="nginx", pid=worker)
    # Ingress is seen as packets here, before anybody reads: the first one's reader may be unknown yet.
    for m in e.request_in:
        check((m["comm"], m["pid"]) in (("nginx", worker), ("", 0)), f"who received it: {m['comm']} {m['pid']}")
    seqs = [m["seq"] for m in e.all]
    equal(len(set(seqs)), 4, "different seq")


@test(shared=())
def curl_keep_alive(t):
    t.nginx()
    paths = [f"/text{t.path(i)}" for i in range(30)]
    t.curl(*[f"http://{t.net.server.ip4}{p}" for p in paths])
    exchanges = [t.loader.exchange(p) for p in paths]
    ports = {m["remote_port"] for e in exchanges for m in e.all}
    equal(len(ports), 1, "connections")
    for e, path in zip(exchanges, paths):
        for m in e.responses:
            equal((m["request"]["method"], m["request"]["path"]), ("GET", path), "request")
            equal(m["body"], "text from nginx\n", "body")
    # From the second message on, who reads the connection is known.
    each([m for e in exchanges[1:] for m in e.request_in], comm="nginx")


@test(shared=())
def curl_parallel_to_python_module(t):
    """python3 -m http.server: HTTP/1.0, a connection for each request."""
    (t.dir / "page.txt").write_bytes(pattern(3000))
    server = t.spawn(t.net.server, [PYTHON, "-m", "http.server", "-b", t.net.server.ip4, "-d", t.dir, "8001"])
    t.listening(t.net.server, t.net.server.ip4, 8001, server)
    paths = [f"/page.txt?{t.token}-{i}" for i in range(8)]
    args = []
    for p in paths:
        args += ["-o", os.devnull, f"http://{t.net.server.ip4}:8001{p}"]
    t.curl("-Z", *args)
    for p in paths:
        e = t.loader.exchange(p)
        for m in e.responses:
            whole(m, pattern(3000))
            equal(m["version"], "1.0", "version")
        each(e.response_out, pid=server.pid)


@test(shared=())
def python_clients_to_nginx(t):
    root, _ = t.nginx(sendfile="off")
    (root / "file").write_bytes(pattern(20000))
    c = t.net.client.client(t.net.server.ip4, 80)
    for i in range(5):
        c.request("GET", f"/file?{t.token}-{i}", headers={"X-Number": str(i)})
        equal(c.getresponse().read(), pattern(20000), "what the client got")
    c.close()
    with t.net.client.inside():
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        equal(opener.open(f"http://{t.net.server.ip4}/file?{t.token}-urllib", timeout=LIMIT).read(), pattern(20000),
              "what urllib got")
    for i in [*range(5), "urllib"]:
        e = t.loader.exchange(f"/file?{t.token}-{i}")
        for m in e.responses:
            whole(m, pattern(20000))
            equal(m["gap_bytes"], 0, "gap_bytes")
        if i != "urllib":
            each(e.requests, method="GET")
            equal([m["headers"]["X-Number"] for m in e.requests], [[str(i)]] * 2, "X-Number")


@test(shared=())
def reverse_proxy(t):
    """Both legs, and who speaks on which; the second leg is reused."""
    base, python = t.python_server(8000, "127.0.0.1")
    _, worker = t.nginx(upstream="127.0.0.1:8000")
    url = f"http://{t.net.server.ip4}/proxy{t.path('x')}?size=2500&chunks=1&n="
    out, pid = t.curl(url + "1", url + "2")
    equal(out, pattern(2500) * 2, "what curl got")
    for n in "12":
        query = f"x?size=2500&chunks=1&n={n}"
        outer, inner = t.loader.exchange(f"/proxy{t.path(query)}"), t.loader.exchange(t.path(query))
        for m in outer.all:
            by_address(m, t.net.client, t.net.server, 80)
        each(outer.all, interface=DEVICE)
        each(inner.all, interface=LOOPBACK)
        each(outer.request_out, comm="curl", pid=pid)
        each(outer.response_out, comm="nginx", pid=worker)
        each(inner.request_out, comm="nginx", pid=worker)
        each(inner.response_out, pid=python.pid)
        for m in outer.responses + inner.responses:
            whole(m, pattern(2500))
            equal(m["headers"]["Transfer-Encoding"], ["chunked"], "Transfer-Encoding")
        for m in outer.responses:
            equal(m["request"]["host"], t.net.server.ip4, "host of the outer leg")
        for m in inner.responses:
            equal(m["request"]["host"], "up", "host of the inner leg")


@test(shared=())
def pipelining(t):
    t.nginx()
    paths = [f"/text{t.path(i)}" for i in range(60)]
    s = t.net.client.connect(t.net.server.ip4, 80)
    with s:
        s.sendall(b"".join(f"GET {p} HTTP/1.1\r\nHost: pipe\r\nX-Id: {i}\r\n\r\n".encode()
                           for i, p in enumerate(paths)))
        data = b""
        while data.count(b"text from nginx\n") < len(paths):
            more = s.recv(65536)
            check(more, "nginx closed the connection")
            data += more
    for i, p in enumerate(paths):
        e = t.loader.exchange(p)
        each(e.responses, body="text from nginx\n", request={"method": "GET", "path": p, "host": "pipe"})
        each([{"id": m["headers"]["X-Id"]} for m in e.requests], id=[str(i)])


@test(shared=())
def chunked_up(t):
    base, _ = t.python_server()
    root, _ = t.nginx()
    body = pattern(100000)
    # curl -T - sends chunks as its standard input comes.
    out, _ = t.curl("-T", "-", f"{base}{t.path('curl')}", stdin=body)
    equal(out.decode().strip(), hashlib.sha256(body).hexdigest(), "what the server received")
    t.curl("-X", "POST", "-H", "Transfer-Encoding: chunked", "-H", "Expect:", "--data-binary", "@-",
           f"{base}{t.path('post')}", stdin=body)
    t.curl("-T", "-", "-H", "Expect:", f"http://{t.net.server.ip4}/put{t.path('nginx')}", stdin=body)
    equal((root / "put" / t.token / "nginx").read_bytes(), body, "what nginx stored")
    finals = lambda m: m["status_code"] != 100
    for path in t.path("curl"), t.path("post"), f"/put{t.path('nginx')}":
        e = t.loader.exchange(path, also=finals)
        for m in e.requests:
            whole(m, body)
            equal(m["headers"]["Transfer-Encoding"], ["chunked"], "Transfer-Encoding")


@test(shared=())
def chunked_down(t):
    """Small and large, with extensions and trailers; and by one write for each chunk."""
    base, _ = t.python_server()
    for size in 0, 1, 999, 1000, 1001, 50000:
        path = t.path(f"x?chunks=1&size={size}")
        out, _ = t.curl(f"{base}{path}")
        equal(out, pattern(size), "what curl got")
        for m in t.loader.exchange(path).responses:
            whole(m, pattern(size))
            equal(m["gap_bytes"], 0, "gap_bytes")


@test(shared=())
def ten_mib(t):
    """Up and down, by length. The body's beginning is there, its length exact."""
    size = 10 * MIB
    big = pattern(size)
    base, _ = t.python_server()
    root, _ = t.nginx(sendfile="off")
    (root / "big").write_bytes(big)
    url = f"http://{t.net.server.ip4}"
    for where in f"{base}{t.path(f'down?size={size}')}", f"{url}/big?{t.token}":
        out, _ = t.curl(where)
        check(out == big, "curl got something else")
        for m in t.loader.exchange(where[where.index("/", 7):]).responses:
            whole(m, big)
            check(m["gap_bytes"] <= size, f"gap_bytes {m['gap_bytes']}")
    for where in f"{base}{t.path('up')}", f"{url}/put{t.path('up')}":
        out, _ = t.curl("-T", "-", "-H", "Expect:", "-H", f"Content-Length: {size}", "-H", "Transfer-Encoding:",
                        where, stdin=big)
        for m in t.loader.exchange(where[where.index("/", 7):]).requests:
            whole(m, big)
            equal(m["headers"].get("Content-Length"), [str(size)], "Content-Length")


@test(shared=())
def nginx_sendfile(t):
    """What sendfile sends has no address to be read from: a gap of the right length. The receiver's side has it all."""
    root, _ = t.nginx()
    for size in 1, 1000, 60000, 3 * MIB:
        (root / "file").write_bytes(pattern(size))
        path = f"/file?{t.token}-{size}"
        # the one behind it is in step again
        out, _ = t.curl(f"http://{t.net.server.ip4}{path}", f"http://{t.net.server.ip4}/text{path}")
        equal(out, pattern(size) + b"text from nginx\n", "what curl got")
        e = t.loader.exchange(path)
        each(e.response_out, body="", body_bytes=size, gap_bytes=size, body_truncated=True, status_code=200)
        check("error" not in e.response_out[0], f"error: {e.response_out[0]}")
        whole(e.response_in[0], pattern(size))
        each(t.loader.exchange(f"/text{path}").responses, body="text from nginx\n", gap_bytes=0)


@test(shared=())
def ipv6(t):
    root, worker = t.nginx(sendfile="off")
    (root / "file").write_bytes(pattern(5000))
    path = f"/file?{t.token}"
    out, pid = t.curl("-g", f"http://[{t.net.server.ip6}]{path}")
    equal(out, pattern(5000), "what curl got")
    e = t.loader.exchange(path)
    for m in e.all:
        ends = (m["src_ip"], m["dst_ip"])
        want = (t.net.client.ip6, t.net.server.ip6)
        equal(ends, want[::-1] if is_response(m) else want, "addresses")
        equal(m["remote_ip"], t.net.client.ip6, "remote_ip")
        equal(m["interface"], DEVICE, "interface")
    for m in e.responses:
        whole(m, pattern(5000))
        equal(m["request"]["host"], f"[{t.net.server.ip6}]", "host")
    each(e.request_out, pid=pid)
    each(e.response_out, pid=worker)


@test(shared=())
def ipv4_mapped(t):
    """A server that listens on :: is spoken to by IPv4: shown as IPv4 at both ends."""
    base, _ = t.python_server(8000, "::")
    path = t.path("mapped")
    t.curl(f"http://{t.net.server.ip4}:8000{path}")
    for m in t.loader.exchange(path).all:
        by_address(m, t.net.client, t.net.server, 8000)


@test(shared=())
def gzip_bodies(t):
    root, _ = t.nginx()
    (root / "file").write_bytes(pattern(9000))
    path = f"/gzip/file?{t.token}"
    out, _ = t.curl("--compressed", f"http://{t.net.server.ip4}{path}")
    equal(out, pattern(9000), "what curl got")
    e = t.loader.exchange(path)
    for m in e.responses:
        equal(m["headers"]["Content-Encoding"], ["gzip"], "Content-Encoding")
        equal(m.get("body_encoding"), "base64", "body_encoding")
        equal(m["gap_bytes"], 0, "gap_bytes")
        check(m["body_bytes"] < DEFAULT_BODY, f"{m['body_bytes']} bytes are more than the test allows for")
        equal(gzip.decompress(body_of(m)), pattern(9000), "the body, unpacked")


@test(shared=())
def binary_bodies(t):
    base, _ = t.python_server()
    for name, body in (("bytes", bytes(range(256)) * 4), ("latin1", "grüße".encode("latin-1")),
                       ("nul", b"text\0text"), ("empty", b""), ("utf8", "gr\u00fc\u00dfe \u65e5\U0001f600".encode()),
                       ("cut", b"x" * (DEFAULT_BODY - 1) + "\u65e5\u672c".encode() * 10)):
        path = t.path(f"{name}?echo=1")
        out, _ = t.curl("-H", "Expect:", "--data-binary", "@-", f"{base}{path}", stdin=body)
        equal(out, body, "what curl got")
        for m in t.loader.exchange(path).all:
            equal(m["body_bytes"], len(body), f"body_bytes of {name}")
            if name == "cut":
                # the limit falls into a character: text all the same
                equal(m["body"], "x" * (DEFAULT_BODY - 1), "the text before the cut")
                equal(m["body_truncated"], True, "body_truncated")
            else:
                equal(body_of(m), body, f"body of {name}")
            equal(m.get("body_encoding"), "base64" if name in ("bytes", "latin1", "nul") else None,
                  f"body_encoding of {name}")


@test(shared=())
def no_bodies(t):
    """HEAD, 304, 206, 204, 416: each followed by another exchange on the connection, which shows that it is in step."""
    root, _ = t.nginx("location /none/ { return 204; }", sendfile="off")
    (root / "file").write_bytes(pattern(7000))
    url = f"http://{t.net.server.ip4}"
    s = t.net.client.client(t.net.server.ip4, 80)
    s.request("GET", f"/file?{t.token}-etag")
    r = s.getresponse()
    r.read()
    etag = r.headers["ETag"]
    cases = {
        "head": ("HEAD", "/file", {}, 200, b"", 7000),
        "304": ("GET", "/file", {"If-None-Match": etag}, 304, b"", None),
        "206": ("GET", "/file", {"Range": "bytes=100-299"}, 206, pattern(300)[100:], 200),
        "204": ("GET", "/none/", {}, 204, b"", None),
        "416": ("GET", "/file", {"Range": "bytes=9000-"}, 416, None, None),
    }
    for name, (method, path, headers, status, body, length) in cases.items():
        path = f"{path}?{t.token}-{name}"
        s.request(method, path, headers=headers)
        got = s.getresponse().read()
        s.request("GET", f"/text{t.path('behind-' + name)}")
        s.getresponse().read()
        e = t.loader.exchange(path)
        each(e.requests, method=method)
        for m in e.responses:
            each([m], status_code=status, gap_bytes=0, body_bytes=len(got))
            equal(body_of(m), got if body is None else body, f"body of {name}")
            equal(m["request"]["method"], method, "request.method")
            if length is not None:
                equal(m["headers"]["Content-Length"], [str(length)], "Content-Length")
        each(t.loader.exchange(f"/text{t.path('behind-' + name)}").responses, status_code=200, body="text from nginx\n")
    out, _ = t.curl("-I", f"{url}/file?{t.token}-curl-head")
    each(t.loader.exchange(f"/file?{t.token}-curl-head").responses, status_code=200, body="", body_bytes=0)
    # several ranges: multipart/byteranges
    out, _ = t.curl("-r", "0-9,100-109", f"{url}/file?{t.token}-two")
    for m in t.loader.exchange(f"/file?{t.token}-two").responses:
        whole(m, out)
        equal(m["status_code"], 206, "status")


@test(shared=())
def expect_100_continue(t):
    base, _ = t.python_server()
    t.nginx()
    body = pattern(300000)
    for base, path in (base, t.path("python")), (f"http://{t.net.server.ip4}", f"/put{t.path('nginx')}"):
        t.curl("-H", "Expect: 100-continue", "--expect100-timeout", LIMIT, "-T", "-", "-H",
               f"Content-Length: {len(body)}", "-H", "Transfer-Encoding:", f"{base}{path}", stdin=body)
        e = t.loader.exchange(path, (1, 1, 2, 2))
        for m in e.requests:
            whole(m, body)
            equal(m["headers"]["Expect"], ["100-continue"], "Expect")
        for both in e.response_out, e.response_in:
            equal([m["status_code"] for m in both][0], 100, "the first status")
            check(both[1]["status_code"] in (200, 201), f"the second status: {both[1]['status_code']}")
            equal([m["body_bytes"] for m in both][0], 0, "body_bytes of 100")
            check(both[0]["seq"] < both[1]["seq"], "100 comes first")


@test(shared=())
def refused_100_continue(t):
    """The server answers 4xx instead of 100: the body is never sent, the connection ends."""
    port = t.serve(lambda c: (read_until(c, b"\r\n\r\n"),
                              c.sendall(b"HTTP/1.1 413 No\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")))
    path = t.path("refused")
    t.curl("-H", "Expect: 100-continue", "--expect100-timeout", LIMIT, "--data-binary", "@-",
           f"http://{t.net.server.ip4}:{port}{path}", stdin=pattern(50000))
    e = t.loader.exchange(path)
    each(e.responses, status_code=413, body="no\n")
    each(e.requests, body="", method="POST")
    for m in e.requests:
        check("error" in m, f"the body that never came is not told: {m}")


@test(shared=())
def websocket(t):
    """Behind 101 nothing is HTTP, even if it looks so."""
    inner = f"GET {t.path('inside')} HTTP/1.1\r\nHost: inside\r\n\r\n".encode()
    answer = b"HTTP/1.1 200 OK\r\nX-Token: " + t.token.encode() + b"\r\nContent-Length: 0\r\n\r\n"

    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

    def server(c):
        read_until(c, b"\r\n\r\n")
        c.sendall(switch + answer)
        for _ in range(3):
            read_exactly(c, len(inner))
            c.sendall(answer)
    port = t.serve(server)
    with t.net.client.connect(t.net.server.ip4, port) as s:
        s.sendall(f"GET {t.path('chat')} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        equal(read_exactly(s, len(switch + answer)), switch + answer, "what the server said")
        for _ in range(3):
            s.sendall(inner)
            read_exactly(s, len(answer))
    e = t.loader.exchange(t.path("chat"))
    each(e.responses, status_code=101, body_bytes=0)
    for m in e.responses:
        equal(m["headers"]["Upgrade"], ["websocket"], "Upgrade")
    on_it = t.loader.select(lambda m: port in (m["src_port"], m["dst_port"]) and
                            t.net.server.ip4 in (m["src_ip"], m["dst_ip"]))
    equal(len(on_it), 4, "messages on the connection")


def tiny_proxy(t):
    """Forwards absolute-form requests and CONNECT, a connection for each. Returns its port."""
    def pump(a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def proxy(c):
        head = read_until(c, b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        where = target if method == "CONNECT" else target.split("/")[2]
        host, port = where.rsplit(":", 1)
        with t.net.server.connect(host, int(port)) as up:
            if method == "CONNECT":
                c.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                up.sendall(head.replace(target.encode(), b"/" + "/".join(target.split("/")[3:]).encode(), 1))
            back = threading.Thread(target=pump, args=(up, c))
            back.start()
            pump(c, up)
            back.join()
    return t.serve(proxy)


@test(shared=())
def connect_through_proxy(t):
    base, _ = t.python_server(8000)
    port = tiny_proxy(t)
    path = t.path("inside")
    target = f"{t.net.server.ip4}:8000"
    t.curl("-p", "-x", f"http://{t.net.server.ip4}:{port}", f"{base}{path}")
    on_proxy = lambda m: m["src_port" if is_response(m) else "dst_port"] == port
    e = t.loader.exchange(target, also=on_proxy)
    each(e.requests, method="CONNECT", path=target)
    each(e.responses, status_code=200, body_bytes=0)
    # The inner exchange shows where it is plain, between proxy and server, and nowhere else.
    inner = t.loader.exchange(path)
    for m in inner.all:
        check(not on_proxy(m), f"parsed inside of the tunnel: {m}")
    each(inner.all, interface=LOOPBACK)


@test(shared=())
def absolute_form(t):
    base, _ = t.python_server(8000)
    port = tiny_proxy(t)
    url = f"{base}{t.path('absolute')}"
    t.curl("-x", f"http://{t.net.server.ip4}:{port}", url)
    e = t.loader.exchange(url)
    each(e.requests, path=url, method="GET")
    for m in e.all:
        by_address(m, t.net.client, t.net.server, port)
    t.loader.exchange(t.path("absolute"))


@test(shared=())
def http_1_0(t):
    base, _ = t.python_server()
    t.nginx(sendfile="off")
    t.curl("-0", f"http://{t.net.server.ip4}/text{t.path('old')}")
    for m in t.loader.exchange(f"/text{t.path('old')}").all:
        equal(m["version"], "1.1" if is_response(m) else "1.0", "version")
    # a body that only the close delimits
    path = t.path("close?close=1&size=30000")
    out, _ = t.curl("-0", f"{base}{path}")
    for m in t.loader.exchange(path).responses:
        whole(m, out)
        equal(m["headers"]["Connection"], ["close"], "Connection")
    # keep-alive by header: two on one connection
    with t.net.client.connect(t.net.server.ip4, 80) as s:
        for name in "ab":
            s.sendall(f"GET /text{t.path(name)} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode())
            read_until(s, b"text from nginx\n")
    ports = {m["remote_port"] for name in "ab" for m in t.loader.exchange(f"/text{t.path(name)}").all}
    equal(len(ports), 1, "connections")


@test(shared=())
def methods(t):
    base, _ = t.python_server()
    for method in "GET PUT DELETE PATCH TRACE OPTIONS PROPFIND MKCOL REPORT SEARCH VERSION-CONTROL".split():
        path = t.path(method)
        t.curl("-X", method, f"{base}{path}")
        e = t.loader.exchange(path)
        each(e.requests, method=method)
        each([m["request"] for m in e.responses], method=method)
    # unregistered ones, on a connection that is known to be HTTP
    args = []
    for method in "FOO", "PURGE", "M-SEARCH", "x":
        args += ["--next", "-sS", "-X", method, f"{base}{t.path(method)}"]
    t.curl(f"{base}{t.path('first')}", *args)
    for method in "FOO", "PURGE", "M-SEARCH", "x":
        e = t.loader.exchange(t.path(method))
        each(e.requests, method=method)
    # One that begins a connection tells nobody that it is HTTP: the response does. What it answers was not seen.
    t.curl("-X", "BREW", "-H", f"X-Id: {t.token}-brew", f"{base}{t.path('BREW')}")
    t.loader.fence()
    brewed = Exchange(t.loader.select(lambda m: m["headers"].get("X-Id") == [f"{t.token}-brew"]))
    equal(brewed.counts()[2:], (1, 1), "responses to an unregistered method that comes first")
    t.curl("-X", "OPTIONS", "--request-target", "*", "-H", f"Host: {t.token}", f"{base}/")
    mine = lambda m: m["headers"].get("Host") == [t.token] or m.get("request", {}).get("host") == t.token
    e = t.loader.exchange("*", also=mine)
    each(e.requests, method="OPTIONS", path="*")


@test(shared=())
def busybox(t):
    """Its httpd and wget write as they like: small writes, HTTP/1.1 without much."""
    (t.dir / "page").write_bytes(pattern(9000))
    server = t.spawn(t.net.server, ["busybox", "httpd", "-f", "-p", f"{t.net.server.ip4}:8002", "-h", t.dir])
    t.listening(t.net.server, t.net.server.ip4, 8002, server)
    path = f"/page?{t.token}"
    out, pid = t.run(t.net.client, ["busybox", "wget", "-Y", "off", "-q", "-O", "-",
                                    f"http://{t.net.server.ip4}:8002{path}"])
    equal(out, pattern(9000), "what wget got")
    e = t.loader.exchange(path)
    each(e.request_out, comm="busybox", pid=pid)
    whole(e.response_in[0], pattern(9000))
    m = e.response_out[0]
    # It may use sendfile: then its own side is a gap.
    equal(m["body_bytes"], 9000, "body_bytes")
    check(m["gap_bytes"] == 9000 and m["body"] == "" or body_of(m) == pattern(DEFAULT_BODY), f"its body: {m}")


@test(shared=())
def tls_and_raw_beside(t):
    """Nothing of them shows, and HTTP goes on."""
    key, cert = t.dir / "key", t.dir / "cert"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
                    "-keyout", key, "-out", cert], check=True, capture_output=True)
    root, _ = t.nginx(f"listen 443 ssl; ssl_certificate {cert}; ssl_certificate_key {key};")
    tls = t.spawn(t.net.server, ["openssl", "s_server", "-accept", "4433", "-key", key, "-cert", cert, "-www"])
    t.listening(t.net.server, t.net.server.ip4, 4433, tls)
    raw = t.spawn(t.net.server, ["socat", "TCP-LISTEN:7777,fork,reuseaddr", "EXEC:cat"])
    t.listening(t.net.server, t.net.server.ip4, 7777, raw)
    ip = t.net.server.ip4
    for i in range(3):
        equal(t.curl("-k", f"https://{ip}/text{t.path('tls')}")[0], b"text from nginx\n", "curl by TLS")
        check(b"Ciphers supported" in t.curl("-k", f"https://{ip}:4433{t.path('tls')}")[0], "s_server")
        t.run(t.net.client, ["openssl", "s_client", "-connect", f"{ip}:443", "-quiet", "-no_ign_eof"],
              f"GET /text{t.path('tls')} HTTP/1.0\r\n\r\n".encode(), None)
        # text of another protocol, in which HTTP occurs, and bytes
        talk = f"HELO me\r\nGET {t.path('raw')} HTTP/1.1\r\nHost: h\r\n\r\n".encode() + bytes(range(256)) * 100
        out, _ = t.run(t.net.client, ["socat", "-t", LIMIT, "-", f"TCP:{ip}:7777"], talk)
        equal(out, talk, "the echo")
        t.curl(f"http://{ip}/text{t.path(f'plain-{i}')}")
        t.loader.exchange(f"/text{t.path(f'plain-{i}')}")
    for port in 443, 4433, 7777:
        shown = t.loader.select(lambda m: ip in (m["src_ip"], m["dst_ip"]) and port in (m["src_port"], m["dst_port"]))
        check(not shown, lambda: f"messages at port {port}: {shown}")
    for name in "tls", "raw":
        check(not t.loader.select(lambda m: t.path(name) in path_of(m)), f"{name} shows")


@test(shared=())
def slow_reader(t):
    base, _ = t.python_server()
    with t.net.client.connect(t.net.server.ip4, 8000) as s:
        path = t.path("slow?size=700")
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        data = b""
        while not data.endswith(pattern(700)):
            data += s.recv(1)
            time.sleep(0.001)
        # and one whose window closes: nothing is read until the server cannot send any more
        other = t.path(f"stuck?size={4 * MIB}")
        s.sendall(f"GET {other} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        t.loader.fence()
        check(not t.loader.select(lambda m: is_response(m) and path_of(m) == other and m["direction"] == 1),
              "a response that has not been received is shown as received")
        head = read_until(s, b"\r\n\r\n")
        read_exactly(s, 4 * MIB - len(head.split(b"\r\n\r\n", 1)[1]))
    for m in t.loader.exchange(path).responses:
        whole(m, pattern(700))
    for m in t.loader.exchange(other).responses:
        whole(m, pattern(4 * MIB))


@test(shared=())
def trickling_client(t):
    """A byte at a time, each in a packet of its own; two requests, the second behind the first's body."""
    base, _ = t.python_server()
    path, other = t.path("drip?echo=1"), t.path("drop")
    request = (f"POST {path} HTTP/1.1\r\nHost: drip\r\nContent-Length: 20\r\nX-One:\r\nx-one: 1\r\n\r\n".encode() +
               pattern(20) + f"GET {other} HTTP/1.1\r\nHost: drip\r\n\r\n".encode())
    with t.net.client.connect(t.net.server.ip4, 8000) as s:
        for i in range(len(request)):
            s.sendall(request[i:i + 1])
            time.sleep(0.001)
        data = b""
        while data.count(b"HTTP/1.1 200") < 2 or not data.endswith(b"\n"):
            data += s.recv(65536)
    e = t.loader.exchange(path)
    for m in e.all:
        whole(m, pattern(20))
    for m in e.requests:
        equal(m["headers"]["X-One"], ["", "1"], "X-One")
    t.loader.exchange(other)


@test
def large_head(t):
    """
    60 KiB of headers in one send. With enough captured of a call all of it is taken, and the line is cut to 16 KiB and
    says so. With the default, it is reported as far as it goes.
    """
    got = []

    def server(c):
        got.append(read_until(c, b"\r\n\r\n"))
        c.sendall(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-Answer-%d: %s\r\n" % (i, b"a" * 990) for i in range(55)) +
                  b"Content-Length: 5000\r\n\r\n" + pattern(5000))
    port = t.serve(server)
    exact = t.start("--capture-bytes", "128K").ready()
    default = t.start().ready()
    args = []
    for i in range(55):
        args += ["-H", f"X-Big-{i}: {'b' * 1000}"]
    t.curl(*args, "-o", os.devnull, f"http://{t.net.server.ip4}:{port}{t.path('p' * 3000)}")
    check(len(got[0]) > 55000, "the server got less")
    on_it = lambda m: port in (m["src_port"], m["dst_port"]) and t.net.server.ip4 in (m["src_ip"], m["dst_ip"])
    for loader in exact, default:
        loader.wait(on_it, 4, "messages with large heads")
        loader.stop()
        equal(Exchange(loader.select(on_it)).counts(), (1, 1, 1, 1), "messages with large heads")
    for m in exact.select(on_it):
        check("error" not in m, lambda: f"error: {m['error']}")
        equal(m.get("headers_truncated"), True, "headers_truncated")
        equal(m["gap_bytes"], 0, "gap_bytes")
        big = [n for n in m["headers"] if n.startswith("X-Answer-" if is_response(m) else "X-Big-")]
        equal(len(big), 55, "headers that are there, shortened")
        if is_response(m):
            each([m], body_bytes=5000, body_truncated=True, status_code=200)
    for m in default.select(on_it):
        if not is_response(m) or m["direction"] == 0:
            check("bytes of the head are missing" in m.get("error", ""), lambda: f"error: {m.get('error')}")
            check(m["gap_bytes"] > 0, "gap_bytes")
        big = [n for n in m["headers"] if n.startswith("X-Answer-" if is_response(m) else "X-Big-")]
        check(len(big) >= 10, f"headers that are there: {len(big)}")


@test(shared=())
def faults_on_the_wire(t):
    """What nginx refuses is shown as it was, with what is wrong."""
    t.nginx()
    cases = {
        "lengths": "Content-Length: 3\r\nContent-Length: 4\r\n",
        "smuggle": "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "space": "Bad Name : x\r\n",
        "length": "Content-Length: -1\r\n",
        "nul": "X-Nul: a\0b\r\n",
    }
    for name, header in cases.items():
        path = f"/text{t.path(name)}"
        with t.net.client.connect(t.net.server.ip4, 80) as s:
            s.sendall(f"POST {path} HTTP/1.1\r\nHost: h\r\n{header}\r\nabc".encode())
            s.shutdown(socket.SHUT_WR)
            while s.recv(65536):
                pass
        e = t.loader.exchange(path)
        for m in e.requests:
            check(m.get("error"), lambda: f"{name} is not called wrong: {m}")
        equal(e.request_out[0].get("error"), e.request_in[0].get("error"), f"error of {name} at both ends")


@test
def open_before_the_loader(t):
    """A connection that is there already is picked up at its next message; an idle one, too."""
    base, server = t.python_server()
    c, idle = t.net.client.client(t.net.server.ip4, 8000), t.net.client.client(t.net.server.ip4, 8000)
    c.request("GET", t.path("before"))
    c.getresponse().read()
    loader = t.start().ready()
    for i in range(3):
        c.request("POST", t.path(f"after-{i}?echo=1"), body=pattern(1000 * i))
        equal(c.getresponse().read(), pattern(1000 * i), "the answer")
        idle.request("GET", t.path(f"idle-{i}"))
        idle.getresponse().read()
    for i in range(3):
        e = loader.exchange(t.path(f"after-{i}?echo=1"))
        for m in e.all:
            whole(m, pattern(1000 * i))
        each(e.response_out, pid=server.pid)
        loader.exchange(t.path(f"idle-{i}"))
    check(not loader.select(lambda m: path_of(m) == t.path("before")), "what came before the loader")
    loader.stop()


@test
def large_chunked_bodies(t):
    """
    10 MiB in chunks of 1000 bytes. With enough captured of each call, their length is exact; with the default the bytes
    that are left out may hold chunk sizes, too: then it is told that the end cannot be, and the next message is in step.
    """
    size = 10 * MIB
    base, _ = t.python_server()
    exact = t.start("--capture-bytes", "1M", "--ring-bytes", "256M").ready()
    default = t.start("--ring-bytes", "64M").ready()
    path, behind = t.path(f"x?chunks=1&size={size}"), t.path("behind")
    out, _ = t.curl(f"{base}{path}", f"{base}{behind}")
    check(out.startswith(pattern(size)), "curl got something else")
    for m in exact.exchange(path).responses:
        whole(m, pattern(size))
        equal(m["gap_bytes"], 0, "gap_bytes")
    e = default.exchange(path)
    # the server sends each chunk by a call of its own
    whole(e.response_out[0], pattern(size))
    m = e.response_in[0]
    equal(body_of(m), pattern(DEFAULT_BODY), "the beginning of the body")
    # how much comes in a piece, and is cut, is the kernel's: what is left out may also be of the chunks' bytes alone
    if "error" in m:
        check("end cannot be told" in m["error"] and m["gap_bytes"] > 0, f"error: {m['error']}, gap_bytes: {m['gap_bytes']}")
    else:
        whole(m, pattern(size))
    for loader in exact, default:
        each(loader.exchange(behind).responses, status_code=200)
        loader.stop()


CHECKED = ("--body-bytes", "64K", "--line-bytes", "512K", "--ring-bytes", "128M", "--output-buffer", "256M")


@test(shared=CHECKED, line_bytes=512 << 10)
def sixty_four_connections(t):
    """Each body carries its own checksum: no byte of one is in another, no message is missing or there twice."""
    from server import summed
    base, _ = t.python_server()
    connections, each_sends = 64, 12
    failed = []

    def client(number):
        try:
            c = t.net.client.client(t.net.server.ip4, 8000)
            for i in range(each_sends):
                identity = t.path(f"{number}/{i}?sum=1" + ("&chunks=1" if (number + i) % 3 == 0 else ""))
                body = summed(40000)
                # http.client sends an iterable as chunks
                c.request("POST", identity, iter([body[:500], body[500:]]) if i % 4 == 0 and len(body) > 500 else body,
                          {"X-Id": identity}, encode_chunked=i % 4 == 0 and len(body) > 500)
                answer = c.getresponse().read()
                equal(hashlib.sha256(answer[64:]).hexdigest().encode(), answer[:64], "what the client got")
            c.close()
        except Exception as e:
            failed.append(e)
    threads = [threading.Thread(target=client, args=(i,)) for i in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(not failed, lambda: f"{len(failed)} clients failed: {failed[0]!r}")
    count = connections * each_sends
    mine = lambda m: path_of(m).startswith(f"/{t.token}/")
    t.loader.wait(mine, 4 * count, "messages of all connections")
    t.loader.fence()
    found = t.loader.select(mine)
    equal(Exchange(found).counts(), (count,) * 4, "messages: requests out, in, responses out, in")
    equal(len({(path_of(m), is_response(m), m["direction"]) for m in found}), 4 * count, "different ones")
    by_connection = {}
    for m in found:
        equal(m["headers"]["X-Id"], [path_of(m)], "the header is another message's")
        equal(m["gap_bytes"], 0, "gap_bytes")
        equal(m["body_truncated"], False, "body_truncated")
        check("error" not in m, lambda m=m: f"error: {m['error']}")
        body = body_of(m)
        equal(len(body), m["body_bytes"], "body_bytes")
        equal(hashlib.sha256(body[64:]).hexdigest().encode(), body[:64], f"the checksum in {path_of(m)}")
        by_connection.setdefault(m["remote_port"], set()).add(path_of(m).split("/")[2])
    equal(len(by_connection), connections, "connections")
    check(all(len(numbers) == 1 for numbers in by_connection.values()), "a path on another's connection")
