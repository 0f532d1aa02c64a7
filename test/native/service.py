# SPDX-License-Identifier: Apache-2.0
"""/healthz, /readyz, /metrics, as a scraper meets them."""
import contextlib
import http.client
import re
import socket
import subprocess
import threading

from harness import (LIMIT, check, equal, exchange_by_sockets, free_port, test, until)

HOOKS = r"(fentry|kprobe|tp_btf|fexit|kretprobe|cgroup_skb)/\w+"


@test(shared=())
def endpoints(t):
    status, body, headers = t.loader.get("/healthz")
    equal(status, 200, "/healthz")
    check(body, "/healthz says nothing")
    status, body, _ = t.loader.get("/readyz")
    equal(status, 200, "/readyz")
    for direction in "egress", "ingress":
        check(re.search(rf"^{direction}: {HOOKS}", body.decode(), re.M), f"/readyz names no hook of {direction}: {body}")
    status, body, headers = t.loader.get("/metrics")
    equal(status, 200, "/metrics")
    check(headers.get("Content-Type", "").startswith("text/plain; version=0.0.4"), f"Content-Type: {headers}")
    for path in "/", "/metric", "/metrics/", "/healthz/x", "/../etc/passwd", "//metrics", "/METRICS":
        equal(t.loader.get(path)[0], 404, f"status of {path}")
    for method in "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "FOO":
        status, _, headers = t.loader.get("/metrics", method)
        equal(status, 405, f"status of {method} /metrics")
        equal(headers.get("Allow", "").replace(" ", ""), "GET,HEAD", f"Allow of {method}")


@test(shared=())
def head_has_no_body(t):
    for path in "/healthz", "/readyz", "/metrics":
        with socket.create_connection(("127.0.0.1", t.loader.port), LIMIT) as s:
            s.sendall(f"HEAD {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while more := s.recv(65536):
                data += more
        check(data.startswith(b"HTTP/1.1 200"), f"HEAD {path}: {data[:60]}")
        head, _, body = data.partition(b"\r\n\r\n")
        equal(body, b"", f"body of HEAD {path}")
        length = re.search(rb"(?i)^content-length: (\d+)", head, re.M)
        check(length and int(length[1]) > 0, f"Content-Length of HEAD {path}: {head}")


@test(shared=())
def promtool(t):
    exchange_by_sockets(t.path("x"), t.net.server)
    t.loader.exchange(t.path("x"))
    text = t.loader.metrics().text
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
    equal((done.returncode, done.stdout + done.stderr), (0, ""), "promtool check metrics")
    names = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)
    equal(len(names), len({n for n, _ in names}), "a family each once")
    for name, kind in names:
        check(name.startswith(("ebpfdump_", "process_")), f"the name {name}")
        equal(name.endswith("_total"), kind == "counter", f"{name} is a {kind}")
        check(f"# HELP {name} " in text, f"no HELP of {name}")


@test(shared=())
def metrics_that_are_promised(t):
    """Every term of the ledger, the hooks, the ring buffer, connections, memory, build info."""
    m = t.loader.metrics()
    for name in """kernel_seen_bytes_total kernel_captured_bytes_total kernel_skipped_bytes_total
            records_submitted_total records_read_total records_lost_total messages_parsed_total messages_emitted_total
            messages_filtered_total messages_dropped_total output_delivered_total output_dropped_total output_queued
            ring_size_bytes ring_waiting_bytes flow_connections flow_buffered_bytes build_info hook_info""".split():
        m.sum(f"ebpfdump_{name}")
    check(m.sum("process_resident_memory_bytes") > 1 << 20, "process_resident_memory_bytes")
    equal(m.sum("ebpfdump_ring_size_bytes"), 8 << 20, "ebpfdump_ring_size_bytes")
    readyz = t.loader.get("/readyz")[1].decode()
    for direction in "egress", "ingress":
        hook, = [labels["hook"] for name, labels, _ in m.samples
                 if name == "ebpfdump_hook_info" and labels["direction"] == direction]
        check(f"{direction}: {hook}\n" in readyz, f"/metrics says {hook}, /readyz {readyz}")
    version = subprocess.run([type(t.loader).program, "--version"], capture_output=True, text=True).stdout.split()[1]
    equal(m.sum("ebpfdump_build_info", version=version), 1, "ebpfdump_build_info")
    # counters move with what happens
    before = m.sum("ebpfdump_messages_parsed_total", kind="request")
    exchange_by_sockets(t.path("x"), t.net.server)
    t.loader.exchange(t.path("x"))
    equal(t.loader.metrics().sum("ebpfdump_messages_parsed_total", kind="request") - before, 4, "requests parsed")


@test(shared=())
def traffic_as_metrics(t):
    """Requests, responses by class, latency: counted at both ends."""
    def now():
        m = t.loader.metrics()
        return [m.sum("ebpfdump_http_requests_total", direction=d) for d in ("egress", "ingress")] + \
            [m.sum("ebpfdump_http_responses_total", direction=d, **{"class": "2xx"}) for d in ("egress", "ingress")] + \
            [m.sum("ebpfdump_http_server_seconds_count"), m.sum("ebpfdump_http_client_seconds_count")]
    before = now()
    exchange_by_sockets(t.path("y"), t.net.server)
    t.loader.exchange(t.path("y"))
    # two exchanges, each with both ends on this machine
    equal([b - a for a, b in zip(before, now())], [2] * 6, "what was counted")


@test(shared=())
def clients_that_are_slow_or_many(t):
    """The capture goes on while 80 clients never finish their request, and 50 ask at once; then all is as before."""
    slow = []
    for i in range(80):
        s = socket.create_connection(("127.0.0.1", t.loader.port), LIMIT)
        s.sendall(b"GET /metrics HTTP/1.1\r\nHost: h\r\nX-Slow: " + b"s" * i)
        slow.append(s)
        t.stack.callback(s.close)
    exchange_by_sockets(t.path("slow"), t.net.server)
    t.loader.exchange(t.path("slow"))
    for s in slow:
        s.close()
    until(lambda: t.loader.is_ready(), "/readyz to answer again")

    answers = []

    def ask():
        for _ in range(5):
            try:
                answers.append(t.loader.get("/metrics")[0])
            except (OSError, http.client.HTTPException):
                answers.append(0)  # refused: there are limits
    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    exchange_by_sockets(t.path("many"), t.net.server)
    t.loader.exchange(t.path("many"))
    for thread in threads:
        thread.join()
    equal(len(answers), 250, "answers")
    check(set(answers) <= {0, 200, 503} and 200 in answers, f"answers: {set(answers)}")
    until(lambda: t.loader.is_ready(), "/readyz to answer again")
    equal(t.loader.get("/healthz")[0], 200, "/healthz")


@test(shared=())
def nonsense_clients(t):
    """What is no HTTP ends that client's connection, nothing else."""
    for nonsense in b"\0" * 1000, b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"\r\n" * 5000, \
            b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 20000, b"GET /" + b"a" * 200000:
        with socket.create_connection(("127.0.0.1", t.loader.port), LIMIT) as s:
            with contextlib.suppress(OSError):
                s.sendall(nonsense)
        equal(t.loader.get("/healthz")[0], 200, "/healthz")
    equal(t.loader.get("/healthz")[0], 200, "/healthz")


@test
def listen_addresses(t):
    """IPv6; any port; none at all; one that is taken is refused with a line that names it."""
    any_port = t.start("--listen", "127.0.0.1:0", listen=False)
    found = until(lambda: any_port.alive() or re.search(r"metrics at 127\.0\.0\.1:([1-9]\d*)", any_port.log_text()) or
                  ("metrics at" in any_port.log_text() and "none"), "the log to name the port")
    check(found != "none", lambda: f"the log does not name the port: {any_port.log_text()}")
    any_port.port = int(found[1])
    equal(any_port.get("/healthz")[0], 200, "/healthz at the port that the log names")
    any_port.stop()

    port = free_port()
    loader = t.start("--listen", f"[::1]:{port}", listen=False)
    loader.port = port

    def answers():
        loader.alive()
        try:
            with socket.create_connection(("::1", port), LIMIT) as s:
                s.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
                return s.recv(100).startswith(b"HTTP/1.1 200") or s.recv(100).startswith(b"HTTP/1.0 200")
        except OSError:
            return False
    until(answers, "/readyz at [::1]")
    loader.stop()

    silent = t.start("--listen", "", listen=False)
    until(lambda: silent.alive() or "capturing" in silent.log_text(), "the loader to capture")
    path = t.path("silent")
    exchange_by_sockets(path, t.net.server)
    silent.exchange(path)
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True).stdout
    check(f"pid={silent.process.pid}," not in listening, f"it listens: {listening}")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        second = t.start("--listen", address, listen=False)
        second.stop(status=1, signo=0)
        check(address in second.log_text() and "in use" in second.log_text(), f"it says: {second.log_text()}")
    silent.stop()


@test
def two_loaders(t):
    """Both see all; neither is in the other's way."""
    loaders = [t.start().ready(), t.start().ready()]
    for i in range(10):
        exchange_by_sockets(t.path(i), t.net.server)
    for i in range(10):
        for loader in loaders:
            loader.exchange(t.path(i))
    loaders[0].stop()
    exchange_by_sockets(t.path("later"), t.net.server)
    loaders[1].exchange(t.path("later"))
    loaders[1].stop()
