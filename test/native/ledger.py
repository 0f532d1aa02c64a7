# SPDX-License-Identifier: Apache-2.0
"""Nothing is lost silently: under load and faults, the sums of cmd/loader/ledger.c hold exactly."""
import os
import threading

from harness import check, equal, ledger_gaps, path_of, pattern, read_exactly, test, until

THREADS = 8
BURST = 25  # requests in one send


def load(t, net, bursts, body=b""):
    """
    Clients on connections of their own that send bursts of requests to a server, as fast as both go. Returns how many
    requests there were.
    """
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 300\r\n\r\n" + pattern(300)

    def server(c):
        # the first line of a connection says how long each burst is
        size = int(c.recv(64, 2).split(b"/")[1].split(b" ")[0])  # MSG_PEEK
        while True:
            read_exactly(c, size)
            c.sendall(answer * BURST)
    port = t.serve(server, net.server)
    failed = []

    def client(number):
        try:
            head = f" HTTP/1.1\r\nHost: load\r\nX-Client: {number}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            size = 0
            for _ in range(3):  # the length is part of what it tells the length of
                request = f"POST /{size:08d}".encode() + head + body
                size = len(request) * BURST
            with net.client.connect(net.server.ip4, port) as s:
                for _ in range(bursts):
                    s.sendall(request * BURST)
                    read_exactly(s, len(answer) * BURST)
        except Exception as e:
            failed.append(e)
    threads = [threading.Thread(target=client, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(not failed, lambda: f"{len(failed)} clients failed: {failed[0]!r}")
    return THREADS * bursts * BURST


def settled(loader):
    """The metrics once all that passed is accounted for."""
    return until(lambda: (lambda m: not ledger_gaps(m) and m)(loader.metrics()),
                 lambda: f"the sums to hold: {ledger_gaps(loader.metrics())}")


@test
def ledger_under_load(t):
    """With room enough nothing is lost, and each message is there."""
    net = t.net
    loader = t.start("--ring-bytes", "256M", "--output-buffer", "256M").ready()
    requests = load(t, net, 30, pattern(200))
    m = settled(loader)
    equal(m.sum("ebpfdump_records_lost_total"), 0, "lost records")
    for reason in "ring_full", "pressure", "limit", "fault", "segments", "table_full":
        equal(m.sum("ebpfdump_kernel_skipped_bytes_total", reason=reason), 0, f"bytes skipped for {reason}")
    for kind in "request", "response":
        equal(m.sum("ebpfdump_messages_parsed_total", kind=kind), 2 * requests, f"messages: {kind}")
    equal(m.sum("ebpfdump_messages_faulty_total"), 0, "messages with an error")
    equal(m.sum("ebpfdump_flow_gap_bytes_total"), 0, "gaps")
    equal(m.sum("ebpfdump_messages_unpaired_total"), 0, "responses without a request")
    until(lambda: len(loader.lines) == 4 * requests, lambda: f"{4 * requests} lines: {len(loader.lines)}")
    loader.stop()


@test
def ledger_with_a_ring_of_one_page(t):
    """Far too small: records are lost, each of them is counted, and what is shown is marked where bytes are missing."""
    net = t.net
    loader = t.start("--ring-bytes", "4096").ready()
    requests = load(t, net, 30, pattern(200))
    m = settled(loader)
    equal(m.sum("ebpfdump_ring_size_bytes"), 4096, "the ring buffer")
    check(m.sum("ebpfdump_records_lost_total") > 0, "nothing was lost")
    check(m.sum("ebpfdump_kernel_skipped_bytes_total", reason="ring_full") > 0, "no bytes were skipped for it")
    check(m.sum("ebpfdump_messages_parsed_total") < 4 * requests, "all messages in spite of it")
    # It is in step again once the load is over.
    c = net.client.client(*_server(t, net))
    paths = [t.path(i) for i in range(5)]
    for p in paths:
        c.request("GET", p)
        c.getresponse().read()
        until(lambda: loader.metrics().sum("ebpfdump_ring_waiting_bytes") == 0, "the ring buffer to empty")
    mine = lambda m: path_of(m).startswith(f"/{t.token}/")
    loader.wait(mine, 20, "messages behind the load")
    loader.stop()
    equal(len(loader.select(mine)), 20, "messages behind the load")
    for m in loader.lines:
        if m["gap_bytes"] == 0 and "error" not in m and not m["status_code"] and not mine(m):
            equal(m["body"], pattern(200).decode(), "a body that is not marked as incomplete")


def _server(t, net):
    t.python_server(8000, net.server.ip4, net.server)
    return net.server.ip4, 8000


@test
def ledger_with_a_stopped_reader(t):
    net = t.net
    reading, writing = os.pipe()
    loader = t.start("--output-buffer", "64K", stdout=writing)
    os.close(writing)
    t.stack.callback(os.close, reading)
    loader.ready()
    load(t, net, 15, pattern(200))
    m = settled(loader)
    check(m.sum("ebpfdump_output_dropped_total", reason="full") > 0, "nothing was dropped")
    check(m.sum("ebpfdump_messages_emitted_total") == m.sum("ebpfdump_output_delivered_total") +
          m.sum("ebpfdump_output_dropped_total") + m.sum("ebpfdump_output_queued"), "the sum")
    loader.stop()


@test
def ledger_with_filters(t):
    net = t.net
    loader = t.start("--message", "response", "--ring-bytes", "256M").ready()
    requests = load(t, net, 4)
    m = settled(loader)
    equal(m.sum("ebpfdump_messages_filtered_total"), 2 * requests, "messages left out")
    equal(m.sum("ebpfdump_messages_emitted_total"), 2 * requests, "messages emitted")
    loader.stop()
    equal(len(loader.lines), 2 * requests, "lines")
    equal({m["status_code"] for m in loader.lines}, {200}, "what is left")


@test
def ledger_with_tight_limits(t):
    """16 connections, 64 KiB of buffers: what does not fit is given up, reported as far as it goes, and counted."""
    net = t.net
    loader = t.start("--connections", "16", "--buffer-bytes", "64K", "--body-bytes", "64K",
                     "--line-bytes", "512K", line_bytes=512 << 10).ready()
    port = t.serve(lambda c: c.recv(1 << 20, 0x100) and c.recv(1), net.server)  # MSG_WAITALL: until the end
    sockets = []
    for i in range(60):
        s = net.client.connect(net.server.ip4, port)
        t.stack.callback(s.close)
        s.sendall(f"POST {t.path(i)} HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n".encode() + pattern(9000))
        sockets.append(s)
    m = settled(loader)
    check(m.sum("ebpfdump_flow_evicted_total") >= 2 * 60 - 16, "connections given up for newer ones")
    check(m.sum("ebpfdump_flow_connections") <= 16, "connections")
    check(m.sum("ebpfdump_flow_buffered_bytes") <= 65536, "buffered bytes")
    for s in sockets:
        s.close()
    # an ordinary exchange is as ever
    settled(loader)
    c = net.client.client(*_server(t, net))
    c.request("GET", t.path("ordinary"))
    c.getresponse().read()
    loader.wait(lambda m: path_of(m) == t.path("ordinary"), 4, "an ordinary exchange")
    loader.stop()
    given_up = [m for m in loader.lines if "given up" in m.get("error", "")]
    check(len(given_up) >= 60, f"messages that say they were given up: {len(given_up)}")


@test
def ledger_with_other_protocols(t):
    """All of what is not HTTP is counted as such, once."""
    net = t.net
    loader = t.start().ready()
    talk = bytes(range(255, -1, -1)) * 5000

    def echo(c):
        while data := c.recv(65536):
            c.sendall(data)
    port = t.serve(echo, net.server)
    before = settled(loader).sum("ebpfdump_kernel_skipped_bytes_total", reason="not_http")
    for _ in range(3):
        with net.client.connect(net.server.ip4, port) as s:
            sender = threading.Thread(target=s.sendall, args=(talk,))
            sender.start()
            check(read_exactly(s, len(talk)) == talk, "the echo")
            sender.join()
    m = settled(loader)
    equal(m.sum("ebpfdump_kernel_skipped_bytes_total", reason="not_http") - before, 3 * 4 * len(talk),
          "bytes skipped as they are not HTTP")
    equal(m.sum("ebpfdump_records_submitted_total"), 0, "records")
    equal(m.sum("ebpfdump_kernel_other_connections_total"), 6, "connections found not to be HTTP")
    loader.stop()
    equal(loader.lines, [], "lines")
