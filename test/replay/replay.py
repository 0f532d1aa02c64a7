#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: replay.py LOADER SAN-LOADER FOLDER

The user side from end to end, without a kernel: a file of capture records (make.py) is replayed, and
must give the lines of data/golden.jsonl. Then the same bytes in other pieces, other flags, under
valgrind, and files that are damaged. What is written goes to FOLDER. Ends with `N passed, N failed`.

When the output is meant to change: look at each line of the difference, then copy FOLDER/golden.jsonl.
"""
import concurrent.futures
import difflib
import json
import os
import pathlib
import random
import re
import struct
import subprocess
import sys

sys.dont_write_bytecode = True  # nothing is written but to FOLDER
import make

GOLDEN = pathlib.Path(__file__).parent / "data" / "golden.jsonl"
FLAGS = ["--node", "test", "--listen", ""]
SEED_KEYS = ["direction", "timing_ms", "remote_ip", "remote_port", "method", "path", "status_code",
             "version", "headers", "body"]
KEYS = SEED_KEYS + ["src_ip", "src_port", "dst_ip", "dst_port", "interface", "node", "pid", "comm",
                    "seq", "body_bytes", "body_truncated", "gap_bytes"]
LINE_MAX = 16384
MUTATIONS = 1000
# what is no hang on the slowest machine, with sanitizers, under valgrind
TIMEOUT = 300
# the exit status of a sanitizer or valgrind that found something
FOUND = 99

passed = failed = 0


def check(name, problem):
    """problem: what is wrong, or None."""
    global passed, failed
    if problem:
        failed += 1
        print(f"not ok {name}\n    " + problem.rstrip().replace("\n", "\n    "))
    else:
        passed += 1
        print(f"ok {name}")


def run(loader, file, *flags, prefix=(), output="json", redact=("none",), **more):
    """redact: names for --redact; the golden lines show all. None: as by default."""
    env = dict(os.environ, TZ="UTC0", LC_ALL="C",
               ASAN_OPTIONS=f"exitcode={FOUND}:detect_leaks=1",
               LSAN_OPTIONS=f"exitcode={FOUND}",
               UBSAN_OPTIONS=f"exitcode={FOUND}:halt_on_error=1:print_stacktrace=1")
    command = [*prefix, loader, "--replay", file, "--output", output, *FLAGS, *flags,
               *(x for name in redact or () for x in ("--redact", name))]
    try:
        return subprocess.run(command, capture_output=True, env=env, timeout=TIMEOUT, check=False,
                              **({"stdin": subprocess.DEVNULL} if not more else more))
    except subprocess.TimeoutExpired as e:
        return subprocess.CompletedProcess(command, -1, e.stdout or b"", b"it hangs")


def failure_of(r):
    return f"exit status {r.returncode}\n{r.stderr.decode(errors='replace')}" if r.returncode else None


def difference(want, got):
    if want == got:
        return None
    lines = difflib.unified_diff(want.decode().splitlines(), got.decode(errors="replace").splitlines(),
                                 "golden", "output", n=0, lineterm="")
    return "\n".join(line[:1000] for line in list(lines)[:40])


def line_fault(line):
    """What is wrong with a line of output, whatever the traffic was; None: nothing."""
    if len(line) + 1 > LINE_MAX:
        return f"{len(line) + 1} bytes"
    try:
        d = json.loads(line.decode())
    except ValueError as e:
        return str(e)
    if list(d)[:10] != SEED_KEYS or not set(KEYS) <= set(d):
        return f"keys {list(d)}"
    if re.search(rb"[\0-\x1f\x7f]", line):
        return "a control character"
    if not all(v and all(isinstance(x, str) for x in v) for v in d["headers"].values()):
        return "headers are no lists of strings"
    if d["direction"] not in (0, 1) or d["gap_bytes"] > d["body_bytes"] and "error" not in d:
        return "numbers that contradict each other"
    return None


def output_fault(out):
    if out and not out.endswith(b"\n"):
        return "the last line has no end"
    for n, line in enumerate(out.split(b"\n")[:-1], 1):
        fault = line_fault(line)
        if not fault and json.loads(line)["seq"] != n:
            fault = "seq"
        if fault:
            return f"line {n}: {fault}: {line[:300]}"
    return None


# ---- what must come out ----

def golden(loader, san, folder):
    capture = make.capture()
    file = folder / "all.rec"
    file.write_bytes(capture.pack())
    want = GOLDEN.read_bytes()

    r = run(loader, file)
    (folder / "golden.jsonl").write_bytes(r.stdout)
    check("golden: the lines", failure_of(r) or difference(want, r.stdout))
    check("golden: every line keeps the rules", output_fault(r.stdout))
    with open(file, "rb") as f:
        r = run(loader, "-", stdin=f)
    check("golden: from standard input", failure_of(r) or difference(want, r.stdout))
    r = run(san, file)
    check("golden: with sanitizers", failure_of(r) or difference(want, r.stdout))
    r = run(loader, file, prefix=("valgrind", "-q", "--leak-check=full", "--show-leak-kinds=all",
                                  "--errors-for-leak-kinds=definite,indirect,possible",
                                  f"--error-exitcode={FOUND}"))
    check("golden: valgrind finds no error and no leak", failure_of(r) or difference(want, r.stdout))

    # However the bytes come in pieces, the messages are the same.
    for size in (1, 2, 3, 7, 61, 1000):
        split = folder / "split.rec"
        split.write_bytes(capture.pack(size))
        r = run(san if size == 1 else loader, split)
        check(f"golden: in pieces of {size}", failure_of(r) or difference(want, r.stdout))


def without_seq(line):
    d = json.loads(line)
    del d["seq"]
    return d


def flags(loader, folder):
    file = folder / "all.rec"
    lines = GOLDEN.read_bytes().splitlines()
    all_of_them = [without_seq(line) for line in lines]

    def compare(name, want, *more):
        r = run(loader, file, *more)
        got = [without_seq(line) for line in r.stdout.splitlines()]
        differ = next((f"{a}\n{b}" for a, b in zip(want, got) if a != b), None)
        if not differ and len(want) != len(got):
            differ = f"{len(got)} lines, not {len(want)}"
        check(f"flags: {name}", failure_of(r) or differ or output_fault(r.stdout))

    def is_request(d):
        return "latency_us" not in d and d["status_code"] == 0 and d["method"] != ""

    compare("--direction egress", [d for d in all_of_them if d["direction"] == 0],
            "--direction", "egress")
    compare("--message response --direction ingress",
            [d for d in all_of_them if d["direction"] == 1 and not is_request(d)],
            "--message", "response", "--direction", "ingress")
    no_body = []
    for d in all_of_them:
        d = dict(d, body="", body_truncated=d["body_bytes"] > 0)
        d.pop("body_encoding", None)
        no_body.append(d)
    compare("--body-bytes 0", no_body, "--body-bytes", "0")

    r = run(loader, file, output="text")
    bad = [line for line in r.stdout.splitlines() if re.search(rb"[\0-\x1f\x7f]|\xc2[\x80-\x9f]", line)]
    check("flags: --output text", failure_of(r) or (f"control characters: {bad[0]}" if bad else None) or
          (None if r.stdout.count(b"\n") == len(lines) else f"{r.stdout.count(10)} lines"))


CREDENTIALS = ("Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "X-Api-Key")
HASH = re.compile(r"redacted:[0-9a-f]{16}")


def taken_apart(d, names):
    """The values of these headers, and the message without them."""
    d = json.loads(json.dumps(d))
    values = [v for name in names for v in d["headers"].pop(name, [])]
    if "Host" in names and "request" in d:
        values.append(d["request"].pop("host"))
    return values, d


def redaction_fault(want, got, names, expected):
    """What is wrong, if these are the lines that are wanted, with hashes for `expected` values of these headers."""
    hashes = {}  # of the values
    count = 0
    for a, b in zip(want, got):
        if "headers_truncated" in a:
            continue  # with a hash in place of a long value, less of it is cut
        values, a = taken_apart(a, names)
        redacted, b = taken_apart(b, names)
        if a != b or len(values) != len(redacted):
            return f"{a}\n{b}"
        for value, text in zip(values, redacted):
            if value == "" == text:
                continue
            if not HASH.fullmatch(text) or hashes.setdefault(value, text) != text:
                return f"{value}: {text}, was {hashes.get(value)}"
            count += 1
    if len(set(hashes.values())) != len(hashes):
        return f"different values, the same hash: {hashes}"
    return None if (len(got), count) == (len(want), expected) else f"{len(got)} lines, {count} hashes"


def redaction(loader, san, folder):
    capture = make.Capture()
    capture.clock(make.START_WALL)
    for path in (b"/redact", b"/again"):
        x = capture.client()
        x.request(b"GET " + path + b" HTTP/1.1\r\nHost: r.test\r\nAuthorization: Basic c2VjcmV0MQ==\r\n"
                  b"proxy-authorization: Basic c2VjcmV0MQ==\r\nCOOKIE: c2VjcmV0Mg\r\nSet-cookie: c2VjcmV0Mg\r\n"
                  b"x-api-key: c2VjcmV0Mg\r\nX-Api-Key:\r\nX-Other: c2VjcmV0Mw\r\n\r\n")
        x.response(b"HTTP/1.1 204 No Content\r\nSet-Cookie: c2VjcmV0Mg\r\nset-cookie: c2VjcmV0NA\r\n\r\n")
    file = folder / "redact.rec"
    file.write_bytes(capture.pack())

    def messages(r):
        return [json.loads(line) for line in r.stdout.splitlines()]

    shown = run(loader, file)
    check("redaction: none", failure_of(shown) or (
        None if shown.stdout.count(b"c2VjcmV0") == 16 and b"redacted:" not in shown.stdout else f"{shown.stdout}"))

    def compare(name, redact, names, hidden, expected):
        r = run(loader, file, redact=redact)
        check(f"redaction: {name}", failure_of(r) or redaction_fault(messages(shown), messages(r), names, expected) or
              output_fault(r.stdout) or next((f"{x} is there" for x in hidden if x in r.stdout + r.stderr), None))
        return r.stdout

    hidden = (b"c2VjcmV0MQ", b"c2VjcmV0Mg", b"c2VjcmV0NA")
    first = compare("by default", None, CREDENTIALS, hidden, 14)
    second = compare("the same by name", CREDENTIALS, CREDENTIALS, hidden, 14)
    check("redaction: another run has another key", None if first != second else "the same hashes")
    compare("other headers", ("x-other", "HOST"), ("X-Other", "Host"), (b"c2VjcmV0Mw", b"r.test"), 6)
    r = run(loader, file, redact=None, output="text")
    check("redaction: --output text", failure_of(r) or (
        None if b"c2VjcmV0" not in r.stdout + r.stderr and r.stdout.count(b"/redact") == 2 else f"{r.stdout}"))

    golden_lines = [json.loads(line) for line in GOLDEN.read_bytes().splitlines()]
    expected = sum(v != "" for d in golden_lines if "headers_truncated" not in d for v in taken_apart(d, CREDENTIALS)[0])
    r = run(san, folder / "all.rec", redact=None)
    check(f"redaction: the golden lines, {expected} values", failure_of(r) or output_fault(r.stdout) or
          redaction_fault(golden_lines, messages(r), CREDENTIALS, expected) or
          (None if expected else "nothing to redact"))


# ---- what must be refused ----

def refusal_fault(r, pattern=rb"offset \d+: "):
    """An exit status of 1 goes with one line that says where and why; 0 with none."""
    said = r.stderr.splitlines()
    if r.returncode not in (0, 1):
        return failure_of(r)
    if r.returncode == 0:
        return f"says: {said[0]}" if said else None
    if len(said) != 1 or not re.search(pattern, said[0]):
        return f"{len(said)} lines: {said[:3]}"
    try:
        json.loads(said[0].decode())
    except ValueError as e:
        return f"{e}: {said[0]}"
    return None


def damaged(san, folder):
    whole = make.Capture()
    whole.clock(make.START_WALL)
    whole.client().exchange(b"/whole", body=b"odd")
    good = whole.pack()
    first = make.HEADER.size + make.RECORD.size  # the record behind the clock

    def patched(at, fmt, *values):
        out = bytearray(good)
        struct.pack_into("=" + fmt, out, at, *values)
        return bytes(out)

    cases = {
        "an empty file": (b"", rb"offset 0: "),
        "a foreign file": (b"\x7fELF" + bytes(200), rb"offset 0: "),
        "a few bytes of a header": (good[:10], rb"offset 0: "),
        "the other byte order": (patched(16, "Q", 0x0807060504030201), rb"offset 16: "),
        "a later version": (patched(8, "I", 2), rb"offset 8: "),
        "a larger record header": (patched(12, "I", 144), rb"offset 8: "),
        "an end inside a record header": (good[:first + 50], rb"offset %d: " % (first + 50)),
        "an end inside the bytes": (good[:-9], rb"offset %d: " % (len(good) - 9)),
        "an end inside the padding": (good[:-1], rb"offset %d: " % (len(good) - 1)),
        "an end before the bytes": (good[:first + make.RECORD.size], rb"offset %d: " % (first + make.RECORD.size)),
        "an unknown type of record": (patched(first + 2, "B", 9), rb"offset %d: " % first),
        "an unknown version of a record": (patched(first, "H", 2), rb"offset %d: " % first),
        "an unknown direction": (patched(first + 3, "B", 3), rb"offset %d: " % first),
        "a size that is wrong": (patched(first + 4, "I", 137), rb"offset %d: " % first),
        "a length below what is captured": (patched(first + 36, "I", 1), rb"offset %d: " % first),
        "more bytes than a record can hold": (
            patched(first + 4, "I", make.RECORD.size + 2**20), rb"offset %d: " % first),
    }
    file = folder / "damaged.rec"
    for name, (data, pattern) in cases.items():
        file.write_bytes(data)
        r = run(san, file, "--log-level", "error")
        check(f"damaged: {name}", refusal_fault(r, pattern) or
              (None if r.returncode == 1 else "not refused") or output_fault(r.stdout))
    for name, path in {"no such file": folder / "nothing.rec", "a folder": folder}.items():
        r = run(san, path, "--log-level", "error")
        check(f"damaged: {name}", refusal_fault(r, re.escape(str(path)).encode()) or
              (None if r.returncode == 1 else "not refused"))
    file.write_bytes(good[:make.HEADER.size])
    r = run(san, file, "--log-level", "error")
    check("damaged: no records at all are no damage", failure_of(r))


# ---- random damage: no crash, no hang, no line that breaks the rules ----

INTERESTING = [0, 1, 2, 3, 4, 7, 127, 128, 255, 256, 4095, 4096, 16383, 16384, 16385, 2**15, 2**16 - 1,
               2**20, 2**30, 2**30 + 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
WIDTHS = {"version": 16, "type": 8, "direction": 8, "time_ns": 64, "connection": 64, "seq": 32,
          "length": 32, "flags": 32, "pid": 32, "family": 16, "local_port": 16}
SNIPPETS = [b"\r\n", b"\n", b"\r", b"\0", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", b": ",
            b"Content-Length: 18446744073709551615\r\n", b"Transfer-Encoding: chunked\r\n", b"\xff\xfe",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"ffffffffffffffff\r\n"]


def damage_record(rng, records):
    """One change that leaves a record which the reader accepts, mostly."""
    i = rng.randrange(len(records))
    r = records[i] = make.Record(**records[i].__dict__)
    kind = rng.randrange(8)
    if kind == 0:
        del records[i]
    elif kind == 1:
        records.insert(rng.randrange(len(records) + 1), r)
    elif kind == 2:
        j = rng.randrange(len(records))
        records[i], records[j] = records[j], records[i]
    elif kind == 3:
        name = rng.choice(sorted(WIDTHS))
        value = rng.choice(INTERESTING)
        if rng.random() < 0.5:
            value += getattr(r, name)
        setattr(r, name, value % 2**WIDTHS[name])
    elif kind == 4:
        r.data = r.data[:rng.randrange(len(r.data) + 1)]
    elif kind == 5:
        at = rng.randrange(len(r.data) + 1)
        r.data = (r.data[:at] + rng.choice(SNIPPETS) + r.data[at:])[:make.DATA_MAX]
    elif kind == 6:
        data = bytearray(r.data)
        for _ in range(rng.randrange(1, 5)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        r.data = bytes(data)
    else:
        r.type = rng.choice((make.DATA, make.END, make.CLOCK))
    if rng.random() < 0.8:
        r.length = max(r.length, len(r.data))


def damage_bytes(rng, data):
    at = rng.randrange(len(data))
    kind = rng.randrange(4)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + rng.randbytes(rng.randrange(1, 64)) + data[at:]
    if kind == 2:
        return data[:at] + data[at + rng.randrange(1, 300):]
    out = bytearray(data)
    out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def mutation(all_records, seed):
    rng = random.Random(seed)
    size = rng.randrange(2, 80)
    at = rng.randrange(len(all_records) - size)
    capture = make.Capture()
    capture.records = all_records[at:at + size]
    for _ in range(rng.randrange(1, 12)):
        if capture.records:
            damage_record(rng, capture.records)
    data = capture.pack(rng.choice((0, 0, 0, 1, 5, 50)))
    while data and rng.random() < 0.25:
        data = damage_bytes(rng, data)
    return data


def mutate(san, folder):
    records = make.capture().records
    refused = 0

    def one(seed):
        data = mutation(records, seed)
        file = folder / f"mutation-{seed}.rec"
        file.write_bytes(data)
        r = run(san, file, "--log-level", "error")
        fault = refusal_fault(r) or output_fault(r.stdout)
        if not fault:
            file.unlink()
        return seed, file, fault, r.returncode

    problems = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _, file, fault, status in pool.map(one, range(MUTATIONS)):
            refused += status == 1
            if fault:
                problems.append(f"{file}: {fault}")
    check(f"mutations: {MUTATIONS} files", "\n".join(problems[:10]) if problems else None)
    # a check that most files never reached would be none
    check(f"mutations: {refused} of them refused, the others not",
          None if 100 <= refused <= MUTATIONS // 2 else "too few of one sort to mean anything")


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.split("\n", maxsplit=1)[0])
    loader, san = (os.path.abspath(p) for p in sys.argv[1:3])
    folder = pathlib.Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    golden(loader, san, folder)
    flags(loader, folder)
    redaction(loader, san, folder)
    damaged(san, folder)
    mutate(san, folder)
    print(f"{passed} passed, {failed} failed")
    sys.exit(0 if passed and not failed else 1)


if __name__ == "__main__":
    main()
