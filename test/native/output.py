# SPDX-License-Identifier: Apache-2.0
"""What the loader writes, and what becomes of it: formats, limits, filters, readers that are slow or gone."""
import base64
import json
import os
import pty
import re
import threading

from harness import (DEVICE, LIMIT, body_of, check, equal, exchange_by_sockets, is_response, ledger_gaps,
                     parse_line, path_of, pattern, read_until, short, test, until)

ESC = "\x1b"


def burst(host, address, connections, path):
    """Exchanges on connections of their own, within one host."""
    for i in range(connections):
        exchange_by_sockets(f"{path}{i}", host, address)


class Terminal:
    """A pty whose other end is read."""

    def __init__(self):
        self.master, self.slave = pty.openpty()
        self.data = b""
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            while data := os.read(self.master, 65536):
                self.data += data
        except OSError:
            pass

    def text(self):
        return self.data.decode("utf-8")

    def close(self):
        os.close(self.slave)
        self.thread.join(LIMIT)
        os.close(self.master)


LINE = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} [↑↓] \S+ [→←] \S+ .*\n$")


def text_lines(text, path, host):
    """The four lines of an exchange, as people read them."""
    lines = [x for x in text.replace("\r\n", "\n").splitlines(True) if path in x]
    equal(len(lines), 4, f"lines about {path}: {short(lines)}")
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", x) for x in lines]
    for x in plain:
        check(LINE.match(x), f"no line for people: {x!r}")
        check("GET" in x and f"{host}{path}" in x, f"method, host, path are not in: {x!r}")
    equal(sorted(x[13] for x in plain), sorted("↑↑↓↓"), "arrows")
    equal(sum(" 200 " in x for x in plain), 2, "lines with a status")
    return lines


@test
def text_output(t):
    loader = t.start("--output", "text", raw=True).ready()
    path = t.path("text")
    exchange_by_sockets(path, t.net.server)
    mine = lambda: [x for x in list(loader.raw_lines) if path.encode() in x]
    until(lambda: len(mine()) >= 4, "four lines of text")
    text = b"".join(mine()).decode()
    text_lines(text, path, "fence")
    check(ESC not in text, "colour, and no terminal")
    # what a client puts in its request does not reach the terminal as it is
    exchange_by_sockets(f"{path}-\x1b[31m-\x9b-\u202e", t.net.server)
    until(lambda: len(mine()) >= 8, "four more lines of text")
    for line in mine():
        check(not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", line.decode()), f"a control character: {line!r}")
    loader.stop()
    check(not any(line.startswith(b"{") for line in loader.log), f"the log is JSON: {loader.log}")


@test
def text_on_a_terminal(t):
    """auto is text on a terminal, in colour unless NO_COLOR is set."""
    for environment, coloured in ({}, True), ({"NO_COLOR": "1"}, False):
        terminal = Terminal()
        loader = t.start(stdout=terminal.slave, env=environment)
        try:
            loader.ready()
            path = t.path(f"terminal-{coloured}")
            exchange_by_sockets(path, t.net.server)
            until(lambda: terminal.text().count(path) >= 4, "four lines on the terminal")
            loader.stop()
        finally:
            terminal.close()
        text_lines(terminal.text(), path, "fence")
        equal(ESC in terminal.text(), coloured, f"colour with {environment}")
        check(not any(line.startswith(b"{") for line in loader.log), f"the log is JSON: {loader.log}")


@test
def json_log(t):
    """Log lines are JSON when the output is: `2>&1 | jq` works."""
    loader = t.start("--interface", "nosuch0", "--log-level", "debug", "--node", 'n"ode').ready()
    loader.stop()
    check(len(loader.log) >= 3, f"too few lines: {loader.log}")
    for line in loader.log:
        entry = json.loads(line)
        check({"time", "level", "component", "node", "msg"} <= set(entry), f"keys: {line}")
        check(entry["level"] in ("error", "warn", "info", "debug"), f"level: {line}")
        equal((entry["component"], entry["node"]), ("loader", 'n"ode'), "component, node")
        check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", entry["time"]), f"time: {line}")
    levels = {json.loads(line)["level"] for line in loader.log}
    check({"warn", "info"} <= levels, f"levels: {levels}")


@test
def log_levels(t):
    for level, want in ("error", set()), ("warn", {"warn"}):
        loader = t.start("--interface", "nosuch0", "--log-level", level).ready()
        loader.stop()
        equal({json.loads(line)["level"] for line in loader.log}, want, f"levels at --log-level {level}")


@test
def reader_gone(t):
    net = t.net
    reading, writing = os.pipe()
    loader = t.start(stdout=writing)
    os.close(writing)
    loader.ready()
    base, _ = t.python_server(8000, net.server.ip4, net.server)
    c = net.client.client(net.server.ip4, 8000)

    def exchanges(count):
        for _ in range(count):
            c.request("GET", "/x")
            c.getresponse().read()
    exchanges(5)
    until(lambda: loader.metrics().sum("ebpfdump_output_delivered_total") >= 20, "delivery to the reader")
    os.close(reading)
    exchanges(50)
    until(lambda: loader.metrics().sum("ebpfdump_output_dropped_total", reason="closed") > 0, "drops for the reader")
    exchanges(50)
    m = until(lambda: (lambda m: not ledger_gaps(m) and m.sum("ebpfdump_messages_parsed_total") == 420 and m)
              (loader.metrics()), lambda: f"the sums to hold: {ledger_gaps(loader.metrics())}")
    equal(m.sum("ebpfdump_output_delivered_total") + m.sum("ebpfdump_output_dropped_total", reason="closed"), 420,
          "delivered, and lost as the reader is gone")
    equal(loader.get("/healthz")[0], 200, "/healthz")
    loader.stop()


@test
def reader_stopped(t):
    """Nothing waits for it: a bounded buffer, then counted drops. Once it goes on, it gets whole lines."""
    net = t.net
    reading, writing = os.pipe()
    loader = t.start("--output-buffer", "64K", stdout=writing)
    os.close(writing)
    t.stack.callback(os.close, reading)
    loader.ready()
    base, _ = t.python_server(8000, net.server.ip4, net.server)
    c = net.client.client(net.server.ip4, 8000)

    def exchanges(count):
        for _ in range(count):
            c.request("POST", "/x?echo=1", pattern(2000))
            c.getresponse().read()

    def settled(count):
        return until(lambda: (lambda m: not ledger_gaps(m) and m.sum("ebpfdump_messages_parsed_total") == count and m)
                     (loader.metrics()), lambda: f"the sums to hold: {ledger_gaps(loader.metrics())}")
    exchanges(200)
    m = settled(800)
    check(m.sum("ebpfdump_output_dropped_total", reason="full") > 0, "nothing was dropped")
    check(m.sum("ebpfdump_output_queued") > 0, "nothing is queued")
    before = m.sum("process_resident_memory_bytes")
    exchanges(1500)
    m = settled(6800)
    check(0 < m.sum("ebpfdump_output_queued_bytes") <= 65536, "queued bytes")
    # these messages are some 15 MiB of lines
    grown = m.sum("process_resident_memory_bytes") - before
    check(grown < 6 << 20, f"memory grew by {grown} bytes")
    equal(loader.get("/healthz")[0], 200, "/healthz")

    lines = []

    def read():
        with os.fdopen(os.dup(reading), "rb") as f:
            lines.extend(f)
    thread = threading.Thread(target=read)
    thread.start()
    m = until(lambda: (lambda m: m.sum("ebpfdump_output_queued") == 0 and m)(loader.metrics()), "the queue to empty")
    exchanges(5)
    m = settled(6820)
    loader.stop()
    thread.join(LIMIT)
    equal(len(lines), m.sum("ebpfdump_output_delivered_total"), "lines that were read, and delivered")
    equal(sum(map(len, lines)), m.sum("ebpfdump_output_delivered_bytes_total"), "their bytes")
    seqs = [parse_line(line)["seq"] for line in lines]
    equal(seqs, sorted(set(seqs)), "seq grows")
    equal(seqs[-1], 6820, "the last seq")
    equal(seqs[-1] - len(seqs), m.sum("ebpfdump_output_dropped_total"), "missing in seq, and counted as dropped")


@test
def reader_stopped_at_the_end(t):
    """A reader that never reads does not keep the loader from ending; what that costs is said."""
    reading, writing = os.pipe()
    t.stack.callback(os.close, reading)
    loader = t.start("--output-buffer", "64K", stdout=writing)
    os.close(writing)
    loader.ready()
    big = pattern(1000).decode()
    until(lambda: burst(t.net.server, "127.0.0.1", 20, f"/{big}") or
          loader.metrics().sum("ebpfdump_output_dropped_total") > 0, "drops")
    loader.stop()
    last = json.loads(loader.log[-1])["msg"]
    match = re.search(r"(\d+) dropped", last)
    check(match and int(match[1]) > 0, f"the last line of the log: {last}")


@test
def line_bytes(t):
    """The smallest limit, and a large one: every line is whole JSON within it, with what had to be cut marked."""
    base, _ = t.python_server()
    small = t.start("--line-bytes", "2K", line_bytes=2048).ready()
    large = t.start("--line-bytes", "1M", "--body-bytes", "1M", line_bytes=1 << 20).ready()
    body = pattern(20000)
    path = t.path("sized?echo=1")
    t.curl("-H", "Expect:", "-H", f"X-Long: {'l' * 5000}", "--data-binary", "@-", f"{base}{path}", stdin=body)
    odd = bytes([1, 2, 3, 34, 92]) * 3000
    other = t.path("odd?echo=1")
    t.curl("-H", "Expect:", "--data-binary", "@-", f"{base}{other}", stdin=odd)
    e = small.exchange(path)
    for m in e.all:
        equal(m["body_truncated"], True, "body_truncated")
        equal(m["body_bytes"], len(body), "body_bytes")
        check(body.startswith(body_of(m)), f"body: {m}")
    for m in e.requests:
        equal(m.get("headers_truncated"), True, "headers_truncated")
        check(m["headers"]["X-Long"][0].startswith("lll"), "the long header is there, shortened")
    for m in small.exchange(other).all:
        check(odd.startswith(body_of(m)) and len(body_of(m)) > 100, f"body: {m}")
    for m in large.exchange(path).all:
        equal(body_of(m), body, "the whole body")
        check("headers_truncated" not in m and not m["body_truncated"], "nothing is cut")
    for m in large.exchange(other).all:
        equal(body_of(m), odd, "the whole body")
    small.stop()
    large.stop()


@test
def no_bodies_wanted(t):
    base, _ = t.python_server()
    loader = t.start("--body-bytes", "0").ready()
    path = t.path("none?echo=1")
    t.curl("-d", "something", f"{base}{path}")
    for m in loader.exchange(path).all:
        equal((m["body"], m["body_bytes"], m["body_truncated"]), ("", 9, True), "body")
        check("body_encoding" not in m, "body_encoding")
    loader.stop()


@test
def redaction(t):
    """Nothing that the loaders say holds a credential, unless they are told to show them."""
    loaders = {"default": t.start("--log-level", "debug").ready(),
               "text": t.start("--output", "text", "--log-level", "debug", raw=True).ready(),
               "other": t.start("--redact", "X-Other", "--redact", "cookie").ready(),
               "none": t.start("--redact", "none").ready()}
    # what is hidden, by header, in requests and in responses
    sent = {"Authorization": "Basic " + base64.b64encode(f"user:{t.token}-1".encode()).decode(),
            "Proxy-Authorization": f"Bearer {t.token}-2", "Cookie": f"session={t.token}-3", "X-Api-Key": f"{t.token}-4",
            "X-Other": f"{t.token}-5"}
    received = {"Set-Cookie": [f"session={t.token}-3", f"session={t.token}-6", f"session={t.token}-3"]}

    def answer(connection):
        read_until(connection, b"\r\n\r\n")
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n" +
                           b"".join(b"sEt-cookie: %s\r\n" % v.encode() for v in received["Set-Cookie"]) + b"\r\n")
    port = t.serve(answer)
    paths = "/redaction-1", "/redaction-2"
    for path in paths:
        t.curl("-u", f"user:{t.token}-1", "-b", sent["Cookie"], "-H", f"proxy-authorization: {sent['Proxy-Authorization']}",
               "-H", f"X-API-KEY: {sent['X-Api-Key']}", "-H", f"x-other: {sent['X-Other']}",
               f"http://{t.net.server.ip4}:{port}{path}")

    messages = {}
    for name in "default", "other", "none":
        found = [loaders[name].exchange(path) for path in paths]
        messages[name] = [m for e in found for m in e.requests], [m for e in found for m in e.responses]
    until(lambda: sum(b"/redaction-" in x for x in list(loaders["text"].raw_lines)) >= 8, "eight lines of text")
    metrics = loaders["default"].get("/metrics")[1]
    for loader in loaders.values():
        loader.stop()

    for m in messages["none"][0]:
        equal({name: m["headers"][name] for name in sent}, {name: [v] for name, v in sent.items()}, "as sent")
    for m in messages["none"][1]:
        equal(m["headers"]["Set-Cookie"], received["Set-Cookie"], "as sent")
    for name, hidden in ("default", sent.keys() - {"X-Other"}), ("other", {"Cookie", "X-Other"}):
        # which hash stands for which value: the same in all messages
        hashes = {}
        for m in messages[name][0]:
            for header, value in sent.items():
                got, = m["headers"][header]
                if header in hidden:
                    hashes.setdefault(value, set()).add(got)
                else:
                    equal(got, value, f"{header}, which is not redacted")
        for m in messages[name][1]:
            if name == "default":
                for value, got in zip(received["Set-Cookie"], m["headers"]["Set-Cookie"], strict=True):
                    hashes.setdefault(value, set()).add(got)
            else:
                equal(m["headers"]["Set-Cookie"], received["Set-Cookie"], "Set-Cookie, which is not redacted")
        equal({len(h) for h in hashes.values()}, {1}, f"hashes of a value: {hashes}")
        equal(len(set().union(*hashes.values())), len(hashes), f"different values, different hashes: {hashes}")
        for text in set().union(*hashes.values()):
            check(re.fullmatch("redacted:[0-9a-f]{16}", text), f"no hash: {text}")

    for name in "default", "text":
        said = b"".join(loaders[name].raw_lines + loaders[name].log) + metrics
        for secret in *sent.values(), *received["Set-Cookie"], t.token:
            if name == "default" and secret in (sent["X-Other"], t.token):
                continue
            check(secret.encode() not in said, f"{name}: {secret} is there")


@test
def interface_filter(t):
    """lo and a device of two hosts: each loader shows its own only. The name is that in the socket's namespace."""
    net = t.new_net(DEVICE, "lo")
    loaders = {"lo": t.start("--interface", "lo", "--interface", "nosuch0", quiet=False, lossy=True).ready(),
               DEVICE: t.start("--interface", DEVICE, quiet=False).ready()}
    t.python_server(8000, "::", net.server)
    # its own address is reached by lo, too
    talks = (net.server, "127.0.0.1", "lo"), (net.server, net.server.ip4, "lo"), (net.server, "::1", "lo"), \
        (net.client, net.server.ip4, DEVICE), (net.client, net.server.ip6, DEVICE)
    for i, (host, address, _) in enumerate(talks):
        c = host.client(address, 8000)
        c.request("GET", t.path(i))
        c.getresponse().read()
    for key, loader in loaders.items():
        mine = lambda m: path_of(m).startswith(f"/{t.token}/")
        wanted = sorted(t.path(i) for i, talk in enumerate(talks) if talk[2] == key) * 4
        loader.wait(mine, len(wanted), f"messages by {key}")
        loader.stop()
        equal(sorted(path_of(m) for m in loader.select(mine)), sorted(wanted), f"shown by --interface {key}")
        equal({m["interface"] for m in loader.lines}, {key}, f"interfaces shown by --interface {key}")


@test
def interface_missing(t):
    loader = t.start("--interface", "nosuch0", "--interface", "lo", quiet=False, lossy=True).ready()
    m = loader.metrics()
    equal(m.sum("ebpfdump_interface_missing", interface="nosuch0"), 1, "ebpfdump_interface_missing")
    equal(m.sum("ebpfdump_interface_missing", interface="lo"), 0, "ebpfdump_interface_missing of lo")
    loader.stop()
    warnings = [json.loads(line)["msg"] for line in loader.log if json.loads(line)["level"] == "warn"]
    equal(len(warnings), 1, f"warnings: {warnings}")
    check("nosuch0" in warnings[0], f"the warning: {warnings[0]}")


@test
def direction_and_message_filters(t):
    """Each filter alone and both; a response says what it answers even if the request is left out."""
    net = t.net
    base, _ = t.python_server(8000, net.server.ip4, net.server)
    cases = {
        ("--direction", "egress"): lambda m: m["direction"] == 0,
        ("--direction", "ingress"): lambda m: m["direction"] == 1,
        ("--message", "request"): lambda m: not is_response(m),
        ("--message", "response"): is_response,
        ("--direction", "ingress", "--message", "response"): lambda m: m["direction"] == 1 and is_response(m),
        ("--direction", "ingress", "--direction", "egress"): lambda m: True,
    }
    loaders = {flags: t.start(*flags) for flags in cases}
    for loader in loaders.values():
        loader.ready()
    c = net.client.client(net.server.ip4, 8000)
    paths = [t.path(i) for i in range(5)]
    for p in paths:
        c.request("GET", p)
        c.getresponse().read()
    for flags, loader in loaders.items():
        count = 5 * {2: 2, 4: 1}[len(flags)] if flags[2:3] != ("--direction",) else 20
        loader.wait(lambda m: True, count, f"messages with {flags}")
        loader.stop()
        equal(len(loader.lines), count, f"messages with {flags}")
        for m in loader.lines:
            check(cases[flags](m), f"passed {flags}: {m}")
        # One direction alone cannot tell what a response answers; all else can.
        if flags[0] == "--message" and flags[1] == "response":
            equal(sorted(path_of(m) for m in loader.lines), sorted(paths * 2), "what the responses answer")
