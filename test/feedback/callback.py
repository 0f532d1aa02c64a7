# SPDX-License-Identifier: Apache-2.0
"""
callback: two loaders on hosts of their own, each of which sees all that all hosts send and receive, POST it to a receiver
that they see as well. Whatever is between them, the receiver gets the workload's messages, and then there is silence.
"""
import itertools
import json
import subprocess
import time

import markers
from harness import DEVICE, HERE, LIMIT, PYTHON, QUIET, Loader, check, equal, is_response, ledger_gaps, path_of, short, test, until
from marked import KNOWS, ask, receiver, request, serve
from site_ import Site


class Distant(Loader):
    """A loader on another host."""

    def __init__(self, host, *flags):
        self.host = host
        with host.inside():
            super().__init__(*QUIET, "--node", host.name, *flags)

    def _get(self, path, method, limit):
        c = self.host.client("127.0.0.1", self.port)
        try:
            c.request(method, path)
            r = c.getresponse()
            return r.status, r.read(), dict(r.getheaders())
        finally:
            c.close()

    def ready(self):
        """Without a request: the other loader would see it."""
        until(lambda: "capturing" in self.log_text() or self.process.poll() is not None,
              lambda: f"the loader to be ready; it says: {self.log_text()}")
        self.alive()
        return self


def new_site(t, **options):
    site = Site(**options)
    t.stack.callback(site.close)
    return site


def loaders(t, site, url, *flags):
    both = []
    for host in site.a, site.b:
        loader = Distant(host, "--callback", url, *flags)
        t.stack.callback(loader.kill)
        both.append(loader)
    for loader in both:
        loader.ready()
    return both


def workload(t, site, count, body=b""):
    """Requests from a to b, on a few connections."""
    port = t.serve(serve, host=site.b)
    for first in range(0, count, 250):
        with site.a.connect(site.b.ip4, port) as s:
            for i in range(first, min(first + 250, count)):
                ask(s, request(t.path(f"w{i}"), method="POST" if body else "GET", body=body))
    return [t.path(f"w{i}") for i in range(count)]


def messages(path):
    """What our receiver wrote, one message a line."""
    with open(path, "rb") as f:
        return [json.loads(line) for line in f.read().split(b"\n")[:-1]]


def packets(site):
    """So many have passed the hosts' devices."""
    count = 0
    for host in site.hosts:
        out = subprocess.run(["ip", "-n", host.name, "-s", "-j", "link", "show", DEVICE], capture_output=True, text=True)
        stats = json.loads(out.stdout)[0]["stats64"]
        count += stats["rx"]["packets"] + stats["tx"]["packets"]
    return count


def silence(site, what):
    """No more is sent, for longer than a message needs to make the next. What stays is a neighbour that is asked for."""
    def quiet():
        before, began = packets(site), time.monotonic()
        time.sleep(1)
        # a machine that stands still is silent, too
        return packets(site) - before < 12 and time.monotonic() - began < 1.5
    until(quiet, f"silence after {what}", 30)


def end(both):
    for loader in both:
        until(lambda: not ledger_gaps(loader.metrics()), lambda: f"the ledger: {ledger_gaps(loader.metrics())}", 20)
        loader.stop()


def known(both):
    """They knew each other's traffic, all of it at once."""
    for loader in both:
        m = loader.metrics()
        check(m.sum("ebpfdump_markers_total", result="accepted") > 0, "no marker was seen: the test shows nothing")
        equal(m.sum("ebpfdump_markers_total") - m.sum("ebpfdump_markers_total", result="accepted"), 0, "other markers")


def total(both, name, **labels):
    return sum(loader.metrics().sum(name, **labels) for loader in both)


def check_received(got, paths):
    """Exactly these, the same of each, from both loaders."""
    per, others, want = {}, [], set(paths)
    for m in got:
        if path_of(m) in want:
            per.setdefault((m["node"], path_of(m)), []).append((is_response(m), m["direction"]))
        else:
            others.append(m)
    check(not others, lambda: f"{len(others)} messages of something else: {short(others[:3])}")
    equal(len(per), 2 * len(paths), "exchanges that came, from two loaders")
    shapes = {tuple(sorted(kinds)) for kinds in per.values()}
    equal(len(shapes), 1, f"ways in which exchanges came: {shapes}")
    kinds = shapes.pop()
    # both ends of each message, or, where the loader joins them, one
    check(kinds == ((False, 0), (False, 1), (True, 0), (True, 1)) or
          (len(kinds) == 2 and not kinds[0][0] and kinds[1][0]), lambda: f"an exchange is {kinds}")


def to_ours(t, nat, count, *flags, receiver_flags=KNOWS):
    site = new_site(t, nat=nat)
    port = receiver(t, site.c, *receiver_flags, *(("--host", site.public) if nat else ()))
    both = loaders(t, site, f"http://{site.public}:{port}/ingest", *KNOWS, *flags)
    paths = workload(t, site, count)
    out = t.dir / f"received-{site.c.name}"
    until(lambda: out.read_bytes().count(b"\n") >= 4 * count, lambda: f"{4 * count} messages: there are {len(messages(out))}")
    silence(site, "the workload")
    got = messages(out)
    check_received(got, paths)
    equal(total(both, "ebpfdump_output_delivered_total"), len(got), "messages delivered")
    known(both)
    skipped = total(both, "ebpfdump_kernel_skipped_bytes_total", reason="own")
    check(skipped > 100 * count, f"the kernel side skips {skipped} bytes")
    end(both)


@test
def thousand_requests(t):
    """1000 requests: the receiver holds exactly their messages, and the traffic stops when the requests stop."""
    to_ours(t, False, 1000)


@test
def thousand_translated(t):
    """The same behind address translation."""
    to_ours(t, True, 1000)


@test
def batches(t):
    """Several messages in a POST, compressed."""
    to_ours(t, True, 300, "--callback-batch-messages", "100", "--callback-batch-wait", "200ms", "--callback-gzip")


@test
def unmarked_receiver(t):
    """Our receiver without the key: the POSTs' markers are enough."""
    to_ours(t, False, 100, receiver_flags=())


# ---- receivers that are not ours ----

def foreign(t, site, both, count, posts):
    """posts(): how many came. One for each message of the workload, and no more."""
    workload(t, site, count)
    until(lambda: posts() >= 4 * count, lambda: f"{4 * count} POSTs: there are {posts()}")
    silence(site, "the workload")
    n = posts()
    # two loaders; of each exchange a request and a response, at both ends or, where the loader joins them, at one
    check(n in (4 * count, 8 * count), f"{n} POSTs for {count} exchanges")
    equal(total(both, "ebpfdump_output_delivered_total"), n, "messages delivered")
    known(both)
    end(both)


SHAPES = {
    "fluent-bit": b"HTTP/1.1 201 Created\r\nServer: Fluent Bit v3.1.9\r\nContent-Length: 0\r\n\r\n",
    "vector": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ndate: Wed, 25 Nov 2026 04:00:00 GMT\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "close": b"HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    "old": b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nthanks",
}


def posts_of(connection, replies):
    """Takes POSTs, answers each with the next of replies (by turns), and yields their headers and bodies."""
    f = connection.makefile("rb")
    while True:
        fields, line = {}, f.readline()
        while (line := f.readline()).strip():
            name, value = line.decode().split(":", 1)
            fields[name.lower()] = value.strip()
        if not line:
            return
        yield fields, f.read(int(fields["content-length"]))
        reply = next(replies)
        connection.sendall(reply)
        if b" close" in reply or reply.startswith(b"HTTP/1.0"):
            return


@test
def foreign_shapes(t):
    """Answers as those of Fluent Bit's and Vector's HTTP inputs, and of others."""
    site = new_site(t)
    replies = itertools.cycle(SHAPES.values())
    got = []

    def one(connection):
        for _, body in posts_of(connection, replies):
            got.append(body)
    t.serve(one, host=site.c, port=8090)
    both = loaders(t, site, f"http://{site.c.ip4}:8090/", *KNOWS)
    foreign(t, site, both, 100, lambda: len(got))
    equal({path_of(json.loads(b)) for b in got}, {t.path(f"w{i}") for i in range(100)}, "paths of what came")


@test
def foreign_nginx(t):
    """nginx, which writes the bodies to disk."""
    site = new_site(t)
    n = nginx(t, site.c, "location / { client_body_in_file_only on; client_body_buffer_size 64k; return 200; }")
    both = loaders(t, site, f"http://{site.c.ip4}:8090/ingest", *KNOWS)
    foreign(t, site, both, 50, n)


@test
def foreign_socat(t):
    """A shell script behind socat: a connection and a process for each POST."""
    site = new_site(t)
    bodies = t.dir / "bodies"
    script = t.dir / "answer.sh"
    script.write_text(f"""#!/bin/sh
        length=0
        while IFS= read -r line && [ "$line" != "$(printf '\\r')" ]; do
            case $line in [Cc]ontent-[Ll]ength:*) length=$(echo "${{line#*:}}" | tr -dc 0-9) ;; esac
        done
        head -c "$length" >{bodies}/$$.part && mv {bodies}/$$.part {bodies}/$$.$(date +%N)
        printf 'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 2\\r\\n\\r\\nok'
        """)
    script.chmod(0o755)
    bodies.mkdir()
    process = t.spawn(site.c, ["socat", f"TCP-LISTEN:8090,fork,reuseaddr,bind={site.c.ip4}", f"EXEC:{script}"])
    until(lambda: ":1F9A" in open(f"/proc/{process.pid}/net/tcp").read(), "socat to listen")
    both = loaders(t, site, f"http://{site.c.ip4}:8090/", *KNOWS)
    foreign(t, site, both, 10, lambda: len(list(bodies.glob("*.[0-9]*"))))


@test
def foreign_python(t):
    """Python's http.server."""
    site = new_site(t)
    log = t.dir / "python.log"
    script = t.dir / "server.py"
    script.write_text(f"""
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
http.server.ThreadingHTTPServer(("{site.c.ip4}", 8090), Handler).serve_forever()
""")
    with open(log, "wb") as f:
        process = t.spawn(site.c, [PYTHON, script], stderr=f)
    t.listening(site.c, site.c.ip4, 8090, process)
    both = loaders(t, site, f"http://{site.c.ip4}:8090/", *KNOWS)
    foreign(t, site, both, 50, lambda: log.read_bytes().count(b'"POST / HTTP/1.1" 200'))


# ---- proxies ----

def nginx(t, host, location, ssl=""):
    """nginx at port 8090 of this host. Returns what counts its requests."""
    folder = t.dir / f"nginx-{host.name}"
    folder.mkdir()
    folder.chmod(0o777)
    temp = "".join(f"{kind}_temp_path {folder}/tmp-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(f"""
        daemon off; worker_processes 1; error_log {folder}/error.log; pid {folder}/nginx.pid; user root;
        events {{ worker_connections 1024; }}
        http {{
          {temp} access_log {folder}/access.log; keepalive_requests 100000; client_max_body_size 64m;
          server {{ listen 8090 {"ssl http2" if ssl else ""}; {ssl} {location} }}
        }}""")
    process = t.spawn(host, ["nginx", "-e", folder / "error.log", "-c", folder / "nginx.conf"])
    t.listening(host, host.ip4, 8090, process)
    return lambda: (folder / "access.log").read_bytes().count(b"\n")


def certificate(t, host):
    """Returns what nginx needs, and what a loader needs to trust it."""
    key, cert = t.dir / "tls.key", t.dir / "tls.pem"
    t.run(host, ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out",
                 cert, "-days", "2", "-subj", "/CN=c", "-addext", f"subjectAltName=IP:{host.ip4}"])
    return f"ssl_certificate {cert}; ssl_certificate_key {key};", ("--callback-ca", cert)


def proxied(t, upstream, count, tls=False):
    """Loaders POST to nginx on c, which hands on to b. No run-away, and silence in the end."""
    site = new_site(t)
    ssl, flags = certificate(t, site.c) if tls else ("", ())
    posts = nginx(t, site.c, f"""location / {{ proxy_pass http://{upstream(site)}; proxy_http_version 1.1;
                  proxy_set_header Connection ""; }}""", ssl)
    both = loaders(t, site, f"http{'s' if tls else ''}://{site.c.ip4}:8090/ingest", *KNOWS, *flags)
    began = time.monotonic()
    workload(t, site, count)
    until(lambda: posts() >= 4 * count, lambda: f"{4 * count} POSTs: there are {posts()}")
    silence(site, "the workload")
    n = posts()
    # each loader shows ten of the copies, and the answers to them; and ten more a minute
    most = 4 * (10 + int((time.monotonic() - began) / 6))
    check(0 <= n - 4 * count <= most or 0 <= n - 8 * count <= most, f"{n} POSTs for {count} exchanges")
    equal(total(both, "ebpfdump_output_delivered_total"), n, "messages delivered")
    check(total(both, "ebpfdump_markers_total", result="copied") > 0, "no copied marker was seen: the test shows nothing")
    return both


@test
def proxy_to_a_foreign_receiver(t):
    """Each POST goes on, on another connection, and nothing that answers has a marker."""
    both = proxied(t, lambda site: f"{site.b.ip4}:{t.serve(serve, host=site.b)}", 100)
    check(total(both, "ebpfdump_messages_dropped_total", reason="relayed") > 400, "too little was left out")
    end(both)


@test
def proxy_that_ends_tls(t):
    """The POST cannot be read before the proxy (TLS, HTTP/2); behind it, its marker is there."""
    both = proxied(t, lambda site: f"{site.b.ip4}:{t.serve(serve, host=site.b)}", 50, tls=True)
    check(total(both, "ebpfdump_messages_dropped_total", reason="relayed") > 200, "too little was left out")
    end(both)


@test
def proxy_to_ours(t):
    """Our receiver's first answer marks the proxy's connection."""
    end(proxied(t, lambda site: f"{site.b.ip4}:{receiver(t, site.b, *KNOWS)}", 100))


@test
def copied_at_the_callback(t):
    """A workload that sends a marker which it has seen at the receiver is seen there."""
    site = new_site(t)
    stolen, got = [], []

    def thief(connection):
        for fields, body in posts_of(connection, itertools.repeat(SHAPES["vector"])):
            stolen.append(fields[markers.NAME.lower()])
            got.append(body)
    t.serve(thief, host=site.c, port=8090)
    both = loaders(t, site, f"http://{site.c.ip4}:8090/", *KNOWS)
    workload(t, site, 1)
    until(lambda: stolen, "a marker to steal")
    silence(site, "the workload")
    hidden = t.path("hides")
    with site.a.connect(site.b.ip4, t.serve(serve, host=site.b)) as s:
        ask(s, request(hidden, f"{markers.NAME}: {stolen[0]}"))
    until(lambda: {m["node"] for m in map(json.loads, got) if m["path"] == hidden} == {site.a.name, site.b.name},
          "the message with the copied marker, from both")
    silence(site, "it")
    equal(total(both, "ebpfdump_markers_total", result="copied"), 4, "copied markers, at both ends, by both loaders")
    end(both)


@test
def without_a_key(t):
    """One loader: it knows both ends of its own connections, and says what others would need."""
    site = new_site(t)
    port = receiver(t, site.c)
    loader = Distant(site.a, "--callback", f"http://{site.c.ip4}:{port}/ingest")
    t.stack.callback(loader.kill)
    loader.ready()
    check("--marker-key-file" in loader.log_text(), lambda: f"it does not say what others need: {loader.log_text()}")
    paths = workload(t, site, 50)
    out = t.dir / f"received-{site.c.name}"
    until(lambda: out.read_bytes().count(b"\n") >= 2 * len(paths), "the workload's messages")
    silence(site, "the workload")
    equal({path_of(m) for m in messages(out)}, set(paths), "paths at the receiver")
    known([loader])
    end([loader])
