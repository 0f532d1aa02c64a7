# SPDX-License-Identifier: Apache-2.0
"""--record and --replay: what was captured can be run again, elsewhere, and says the same."""
import os
import random
import re
import struct
import subprocess

from harness import (LIMIT, Loader, check, equal, exchange_by_sockets, parse_line, path_of, pattern, short, test, until)

HEADER = 24  # of the file
RECORD = 136  # header of a record


def replay(source, *flags, status=0, stdin=None):
    """The lines that --replay writes, and its log."""
    done = subprocess.run([Loader.program, "--replay", source, *flags], input=stdin, capture_output=True,
                          timeout=LIMIT)
    equal(done.returncode, status, f"exit status of --replay {source}; it says {short(done.stderr.decode())}")
    return done.stdout.splitlines(True), done.stderr.decode()


def recorded(t):
    """Records some traffic. Returns the file and the lines of the loader that did."""
    net = t.net
    path = t.dir / "records"
    loader = t.start("--record", path).ready()
    t.python_server(8000, net.server.ip4, net.server)
    c = net.client.client(net.server.ip4, 8000)
    for i in range(20):
        c.request("POST", t.path(f"{i}?echo=1" + "&chunks=1" * (i % 2)), pattern(i * 700))
        c.getresponse().read()
    c.request("GET", t.path(f"large?size={3 << 20}"))
    c.getresponse().read()
    other = net.client.connect(net.server.ip4, 8000)
    other.sendall(f"POST {t.path('unfinished')} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nbegun".encode())
    loader.wait(lambda m: "large" in path_of(m), 4, "the messages")
    until(lambda: loader.metrics().sum("ebpfdump_flow_buffered_bytes") > 0, "the unfinished request to arrive")
    loader.stop()
    other.close()
    return path, loader


@test
def record_and_replay(t):
    """The same messages, to the byte."""
    path, loader = recorded(t)
    equal(len([m for m in loader.lines if "unfinished" in path_of(m)]), 2, "messages that the end cut")
    lines, log = replay(path)
    for i, (live, again) in enumerate(zip(loader.raw_lines, lines)):
        equal(again.decode(), live.decode(), f"line {i}")
    equal(len(lines), len(loader.raw_lines), "lines")
    # and once more, with other options, by standard input
    fewer, _ = replay("-", "--message", "response", "--body-bytes", "100", stdin=path.read_bytes())
    responses = [parse_line(x) for x in fewer]
    equal(len(responses), len([m for m in loader.lines if m["status_code"]]), "responses")
    check(all(len(m["body"]) <= 100 for m in responses), "--body-bytes 100")
    text, _ = replay(path, "--output", "text")
    equal(len(text), len(lines), "lines of text")


@test
def record_to_replay_by_a_pipe(t):
    path = t.path("pipe")
    reading, writing = os.pipe()
    recorder = t.start("--record", "-", stdout=writing)
    os.close(writing)
    player = t.start("--replay", "-", stdin=reading, listen=False)
    os.close(reading)
    recorder.ready()
    for i in range(10):
        exchange_by_sockets(f"{path}{i}")
    until(lambda: recorder.metrics().sum("ebpfdump_messages_parsed_total") >= 40, "the messages to be parsed")
    recorder.stop()
    player.process.wait(LIMIT)
    player.stop()
    mine = [m for m in player.lines if path_of(m).startswith(path)]
    equal(len(mine), 40, "messages behind the pipe")
    check(not any(line.startswith(b"{") for line in recorder.log), "the log is JSON, and standard output is not")


@test
def replay_needs_no_privilege(t):
    path, loader = recorded(t)
    path.chmod(0o644)
    program = t.dir / "ebpfdump-loader"
    program.write_bytes(open(Loader.program, "rb").read())
    program.chmod(0o755)
    done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "--replay", path],
                          capture_output=True, timeout=LIMIT)
    equal(done.returncode, 0, f"exit status: {done.stderr}")
    equal(done.stdout.splitlines(True), loader.raw_lines, "lines")


def refused(source, stdin=None, offset=None, words=()):
    _, log = replay(source, status=1, stdin=stdin)
    errors = [x for x in log.splitlines() if '"error"' in x]
    equal(len(errors), 1, f"lines that say what is wrong with {source}: {log}")
    if offset is not None:
        check(re.search(rf"\b{offset}\b", errors[0]), f"the offset {offset} is not in: {errors[0]}")
    for word in words:
        check(word in errors[0], f"'{word}' is not in: {errors[0]}")
    return errors[0]


@test
def damaged_files(t):
    """Each is refused with the place and the reason; what came before is shown."""
    path, loader = recorded(t)
    whole = path.read_bytes()
    file = t.dir / "damaged"

    def given(data, **expected):
        file.write_bytes(data)
        return refused(file, **expected)

    def patched(at, value):
        return whole[:at] + value + whole[at + len(value):]
    # where the records begin
    starts, at = [], HEADER
    while at < len(whole):
        captured, = struct.unpack_from("<I", whole, at + 40)
        starts.append(at)
        at += RECORD + captured + (-captured & 7)
    equal(at, len(whole), "the end of the last record")
    check(len(starts) > 50, f"records: {len(starts)}")
    middle = starts[len(starts) // 2]
    # no such file: foreign, empty, too short
    for data in b"", b"EBPF", whole[:HEADER - 1], b"\0" * 5000, os.urandom(5000), b"GET / HTTP/1.1\r\n" * 100, \
            patched(0, b"e"), patched(8, struct.pack("<I", 99)), patched(12, struct.pack("<I", RECORD + 8)), \
            patched(16, whole[16:24][::-1]):
        given(data)
    # damaged from a place on
    for name, at, value in (("version", 0, struct.pack("<H", 7)), ("type", 2, b"\x63"), ("size", 4, b"\xff\xff\xff\x7f"),
                            ("size", 4, struct.pack("<I", RECORD - 8)), ("captured", 40, b"\xff\xff\xff\xff")):
        message = given(patched(middle + at, value), offset=middle)
        check(str(file) in message, f"the file's name is not in: {message}")
    # cut: within a record's header, within its bytes
    for cut in middle + 1, middle + 100, middle + RECORD:
        if whole[middle + 40:middle + 44] == b"\0\0\0\0" and cut == middle + RECORD:
            continue
        given(whole[:cut], offset=cut, words=["ends"])
    lines, _ = replay(file, status=1)
    check(lines, "what came before the damage is not shown")
    for line in lines:
        parse_line(line)
    # any flipped bit: refused or shown, never a crash, and every line is JSON
    chance = random.Random(2)
    for _ in range(40):
        at = chance.randrange(len(whole))
        file.write_bytes(patched(at, bytes([whole[at] ^ 1 << chance.randrange(8)])))
        done = subprocess.run([Loader.program, "--replay", file], capture_output=True, timeout=LIMIT)
        check(done.returncode in (0, 1), f"a flipped bit at {at}: status {done.returncode}: {done.stderr}")
        for line in done.stdout.splitlines(True):
            parse_line(line)


@test
def files_that_cannot_be(t):
    refused(t.dir / "not-there", words=["not-there", "No such file"])
    refused(t.dir, words=[str(t.dir)])
    for target, words in ((t.dir / "no" / "folder", ["No such file"]), (t.dir, ["directory"])):
        loader = t.start("--record", target)
        loader.stop(status=1, signo=0)
        for word in words:
            check(word in loader.log_text(), f"'{word}' is not in: {loader.log_text()}")
    # a disk that is full: said, the capture goes on, and the exit status tells
    full = t.start("--record", "/dev/full").ready()
    exchange_by_sockets(t.path("full"))
    full.exchange(t.path("full"))
    full.stop(status=1)
    check("No space left" in full.log_text(), f"the log: {full.log_text()}")


@test
def replay_to_a_slow_reader(t):
    """A file can wait: nothing is dropped, however small the buffer."""
    path, loader = recorded(t)
    player = subprocess.Popen([Loader.program, "--replay", path, "--output-buffer", "64K"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
    t.stack.callback(player.kill)
    pieces = []
    while piece := player.stdout.read1(997):
        pieces.append(piece)
    equal(player.wait(LIMIT), 0, "exit status")
    equal(b"".join(pieces), b"".join(loader.raw_lines), "what was written")
    player.stdout.close()
    player.stderr.close()
