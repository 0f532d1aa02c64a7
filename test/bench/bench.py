#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the measurements and prints their table.

usage: bench.py [--build DIR] [--json FILE] [--rounds N] [PART...]

Parts: kernel replay web memory callback spool kube operator vm (all of them if none is named). Each row of the table is a figure, its goal, and
whether it is met. No speed fails: the exit status is 0 unless something did not run.

All figures that are compared come from one run: the candidates take turns, round by round, in an order that rotates,
and the median of the rounds counts.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KIB = 1024


class DidNotRun(Exception):
    """Something could not be measured at all."""


class Table:
    def __init__(self):
        self.rows = []

    def add(self, what, measured, detail="", goal="", met=None, **figures):
        self.rows.append({"what": what, "measured": measured, "detail": detail, "goal": goal, "met": met, **figures})
        say(f"  {what}: {measured}" + (f" ({detail})" if detail else ""))

    def __str__(self):
        """Four columns, and beneath a row its detail."""
        words = {True: "yes", False: "NO", None: ""}
        rows = [(r["what"], r["measured"], r["goal"], words[r["met"]], r["detail"]) for r in self.rows]
        widths = [max(len(r[i]) for r in rows + [("what", "measured", "goal", "met")]) for i in range(4)]

        def line(cells):
            return "  ".join(c.ljust(w) for c, w in zip(cells, widths)).rstrip()

        lines = [line(("what", "measured", "goal", "met")), line(["-" * w for w in widths])]
        for row in rows:
            lines.append(line(row[:4]))
            if row[4]:
                lines.append("    " + row[4])
        return "\n".join(lines)


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(command, timeout=300, **more):
    """The standard output of a command that must succeed."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                          text=True, errors="replace", check=False, **more)
    if done.returncode != 0:
        raise DidNotRun(f"{' '.join(str(c) for c in command)}: exit status {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout


def wait_for(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise DidNotRun(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def middle(values):
    return statistics.median(values)


def spread(values):
    q = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return q[0], q[2]


# ---- the kernel side -------------------------------------------------------------------------------------------------


def added(case, base):
    return [a - b for a, b in zip(case["per_send"], base["per_send"])]


def bench_kernel(args, table):
    result = json.loads(run([args.programs / "bench-kernel", "--rounds", args.rounds]))
    cases = result["sizes"][0]["cases"]
    base = cases["base"]
    over = {name: added(case, base) for name, case in cases.items()}
    cost = {name: middle(values) for name, values in over.items()}

    def quartiles(name):
        low, high = spread(over[name])
        return f"{cost[name]:.0f} ns ({low:.0f} to {high:.0f})"

    def share(name):
        return f"{100 * cases[name]['captured'] / cases[name]['sent']:.1f} %"

    ratio = cost["egress"] / cost["reference"]
    table.add("added to a 1 KiB send, over the minimal program", f"{ratio:.2f}",
              f"{result['egress']}: {quartiles('egress')} over {quartiles('reference')}; of the bytes sent are captured "
              f"{share('egress')}, by the minimal program {share('reference')}",
              "<= 1.5", ratio <= 1.5, ratio=ratio, ns=cost["egress"], reference_ns=cost["reference"],
              base_ns=middle(base["per_send"]))
    ratio = cost["egress_other"] / cost["empty"]
    table.add("the same, not HTTP, over an empty program", f"{ratio:.2f}",
              f"{quartiles('egress_other')} over {quartiles('empty')}", "<= 2", ratio <= 2, ratio=ratio, ns=cost["egress_other"], empty_ns=cost["empty"])
    part = cost["whole"] / middle(base["per_send"])
    table.add("added to a send and its receive, both directions", f"{cost['whole']:.0f} ns, {100 * part:.0f} %",
              f"{quartiles('whole')} of {middle(base['per_send']):.0f} ns, with {result['ingress']}; not HTTP "
              f"{quartiles('whole_other')}",
              ns=cost["whole"], other_ns=cost["whole_other"])


def bench_vm(args, table):
    kernel = run([ROOT / "hack/vm/kernel.sh", "trixie"], timeout=600).strip().splitlines()[-1]
    version = (pathlib.Path(kernel) / "version").read_text(encoding="utf-8").strip()
    script = args.scratch / "guest.sh"
    script.write_text("for family in kprobe fentry; do\n"
                      "bench-kernel --family $family --bytes 200 --bytes 1024 --bytes 8192 --rounds 1 --sends 30"
                      " --instructions || exit 1\ndone\n", encoding="utf-8")
    text = run([ROOT / "hack/vm/run.sh", "--icount", "--timeout", 300, "--program", args.programs / "bench-kernel",
                "--file", f"{script}:/guest.sh", kernel, "--", "sh", "/guest.sh"], timeout=320)
    decoder, results = json.JSONDecoder(), []
    while text.strip():
        result, end = decoder.raw_decode(text.lstrip())
        text = text.lstrip()[end:]
        results.append(result)
    if len(results) != 2:
        raise DidNotRun(f"{len(results)} of 2 results came out of the machine")
    for result in results:
        for size in result["sizes"]:
            base = size["cases"]["base"]
            counts = {name: round(middle(added(case, base))) for name, case in size["cases"].items() if name != "base"}
            hook = result["egress"].partition("/")[0]
            table.add(f"instructions added, {hook}, {size['bytes']} bytes",
                      f"{counts['egress']}; not HTTP {counts['egress_other']}",
                      f"minimal program {counts['reference']}, empty {counts['empty']}; with the receive "
                      f"({result['ingress']}) {counts['whole']}, not HTTP {counts['whole_other']}; Linux {version}",
                      counts=counts)


# ---- the user side ---------------------------------------------------------------------------------------------------


def bench_replay(args, table):
    result = json.loads(run([args.programs / "bench-replay", "--rounds", args.rounds]))
    ours, theirs, none = (result["writers"][w]["per_message"] for w in ("ours", "json_c", "none"))
    rate = 1e9 / middle(ours)
    low, high = (1e9 / ns for ns in reversed(spread(ours)))
    ratio = middle([t / o for t, o in zip(theirs, ours)])
    table.add("replay, parse to JSON in memory, one core", f"{rate / 1e6:.2f} million messages/s",
              f"{low / 1e6:.2f} to {high / 1e6:.2f}; {middle(ours):.0f} ns a message, "
              f"{middle(none):.0f} of them before the writer",
              ">= 1 million/s", rate >= 1e6, rate=rate)
    table.add("the same, over json-c as the writer", f"{ratio:.1f} x", "", ">= 4", ratio >= 4, ratio=ratio)


# ---- nginx under wrk -------------------------------------------------------------------------------------------------

SERVER, CLIENT = "10.213.7.1", "10.213.7.2"
CONNECTIONS = 32
NGINX = """
daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000000;
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
    server {{
        listen {server}:80;
        location /bench {{ default_type text/plain; add_header X-Bench 1; return 200 "{body}"; }}
        location /status {{ stub_status; }}
    }}
}}
"""


class Network:
    """A server with nginx and a client, each in a network namespace of its own, joined by a pair of devices."""

    def __init__(self, scratch):
        self.server, self.client = f"bench-s{os.getpid()}", f"bench-c{os.getpid()}"
        self.scratch = scratch
        self.nginx = None

    def __enter__(self):
        ip = ["ip", "-n"]
        try:
            for ns in (self.server, self.client):
                run(["ip", "netns", "add", ns])
                run(ip + [ns, "link", "set", "lo", "up"])
            run(["ip", "link", "add", "bench-s", "netns", self.server, "type", "veth",
                 "peer", "name", "bench-c", "netns", self.client])
            for ns, device, address in ((self.server, "bench-s", SERVER), (self.client, "bench-c", CLIENT)):
                run(ip + [ns, "address", "add", f"{address}/24", "dev", device])
                run(ip + [ns, "link", "set", device, "up"])
            conf = self.scratch / "nginx.conf"
            conf.write_text(NGINX.format(server=SERVER, body="0123456789abcde " * 64), encoding="utf-8")
            self.scratch.chmod(0o755)
            self.nginx = self.start(self.server, ["nginx", "-p", self.scratch, "-c", conf, "-e", self.scratch / "error.log"])
            wait_for(lambda: self.requests(check=False) is not None, 10, "nginx")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.nginx:
            self.nginx.kill()
            self.nginx.wait()
        for ns in (self.server, self.client):
            subprocess.run(["ip", "netns", "delete", ns], stderr=subprocess.DEVNULL, check=False)

    def start(self, ns, command, **more):
        return subprocess.Popen(["ip", "netns", "exec", ns] + [str(c) for c in command], stdin=subprocess.DEVNULL,
                                **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **more})

    def requests(self, check=True):
        """What nginx counted, this one included."""
        done = subprocess.run(["ip", "netns", "exec", self.server, "curl", "-s", f"http://{SERVER}/status"],
                              stdout=subprocess.PIPE, text=True, check=False)
        found = re.search(r"^ *\d+ +\d+ +(\d+)", done.stdout, re.M)
        if not found and check:
            raise DidNotRun("nginx does not answer")
        return int(found.group(1)) if found else None

    def packet_sockets(self):
        out = run(["ip", "netns", "exec", self.server, "cat", "/proc/net/packet"])
        return len(out.splitlines()) - 1

    def load(self, seconds):
        """Requests per second."""
        out = run(["ip", "netns", "exec", self.client, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s",
                   "-H", "User-Agent: Mozilla/5.0 (X11; Linux x86_64) wrk", "-H", "Accept: text/html,application/json",
                   "-H", "Accept-Language: en-GB,en;q=0.9", f"http://{SERVER}/bench?page=1"])
        if "Non-2xx" in out:
            raise DidNotRun("nginx answers with errors")
        return float(re.search(r"Requests/sec: +([\d.]+)", out).group(1))


class Output:
    """A file in memory that programs write to, one after another. Its pages are there before, and stay: a machine whose
    hypervisor takes freed memory back pays for each new page several times what the copy into it costs, and that would be
    measured instead of the programs."""

    def __init__(self, path, size):
        self.path = path
        piece = bytes(1024 * KIB)
        with open(path, "wb") as f:
            for _ in range(size // len(piece)):
                f.write(piece)
        self.file = None

    def begin(self):
        """What a program is given as its standard output."""
        self.file = open(self.path, "r+b", buffering=0)
        return self.file

    def end(self):
        """How many bytes were written: the offset is the program's as well."""
        written = os.lseek(self.file.fileno(), 0, os.SEEK_CUR)
        self.file.close()
        self.file = None
        return written

    def count_lines(self, pattern, written):
        with open(self.path, "rb") as f, subprocess.Popen(["head", "-c", str(written)], stdin=f, stdout=subprocess.PIPE) as head:
            done = subprocess.run(["grep", "-a", "-c", "-E", pattern], stdin=head.stdout, stdout=subprocess.PIPE, text=True,
                                  check=False, env={**os.environ, "LC_ALL": "C"})
        return int(done.stdout or 0)


def cpu_seconds(pid):
    """User and system time, children that ended included."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(int(f) for f in fields[11:15]) / os.sysconf("SC_CLK_TCK")


class Loader:
    """A running ebpfdump-loader that writes JSON to a file."""

    def __init__(self, args, *flags):
        self.program = args.build / "ebpfdump-loader"
        self.flags = flags
        self.output = args.output
        self.log = args.scratch / "loader.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:" + str(free.getsockname()[1])
        self.url = "http://" + self.address

    def __enter__(self):
        out = self.output.begin()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([str(self.program), "--output", "json", "--listen", self.address, *self.flags],
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=log)
        try:
            wait_for(self.ready, 30, f"the loader ({self.log.read_text(errors='replace')[-300:]})")
        except BaseException:
            self.__exit__()
            raise
        return self

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return answer.read().decode()

    def ready(self):
        if self.process.poll() is not None:
            raise DidNotRun(f"the loader ended: {self.log.read_text(errors='replace')[-600:]}")
        try:
            return self.get("/readyz") is not None
        except OSError:
            return False

    def metrics(self):
        """Samples added up over their labels."""
        sums = {}
        for line in self.get("/metrics").splitlines():
            found = re.match(r"(\w+)(?:\{.*\})? ([-+.\deE]+)$", line)
            if found:
                sums[found.group(1)] = sums.get(found.group(1), 0) + float(found.group(2))
        return sums

    def settled(self):
        """The metrics once nothing of the load waits any more. What asks for them is captured, too: that may."""

        def few():
            m = self.metrics()
            return m["ebpfdump_ring_waiting_bytes"] < 64 * KIB and m["ebpfdump_output_queued_bytes"] < 64 * KIB

        wait_for(few, 20, "the loader's queues")
        time.sleep(0.2)
        return self.metrics()

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise DidNotRun("the loader does not end") from None
        finally:
            self.written = self.output.end()

    def count_lines(self, pattern):
        return self.output.count_lines(pattern, self.written)


class Candidate:
    """Something that watches the traffic of a round. seen and lost are messages (or packets), added up."""

    def __init__(self, name):
        self.name = name
        self.rates, self.cpu = [], []
        self.expected = self.seen = 0
        self.notes = {}

    def note(self, key, n):
        self.notes[key] = self.notes.get(key, 0) + n

    @contextlib.contextmanager
    def watch(self, args, network):
        yield

    def round(self, args, network):
        before = network.requests()
        with self.watch(args, network):
            self.rates.append(network.load(args.seconds))
            self.requests = network.requests() - before - 1


class LoaderCandidate(Candidate):
    def __init__(self, name, ends, *flags):
        super().__init__(name)
        self.ends, self.flags = ends, flags

    @contextlib.contextmanager
    def watch(self, args, network):
        loader = Loader(args, *self.flags)
        with loader:
            before = cpu_seconds(loader.process.pid)
            yield
            m = loader.settled()
            self.cpu.append(cpu_seconds(loader.process.pid) - before)
            for key in ("records_submitted", "records_lost", "ring_wakeups", "output_dropped", "messages_dropped",
                        "messages_unpaired", "flow_gap_bytes"):
                self.note(key, m.get(f"ebpfdump_{key}_total", 0))
        self.expected += self.ends * 2 * self.requests
        self.seen += loader.count_lines(r'"path":"/bench[^"]*","status_code":0,|"X-Bench":\["1"\]')


class Peer(Candidate):
    """A program that captures packets at the server's device; both messages of an exchange pass it once."""

    def __init__(self, name, command, messages=None, dropped=None):
        super().__init__(name)
        self.command, self.messages, self.dropped = command, messages, dropped

    @contextlib.contextmanager
    def watch(self, args, network):
        err = args.scratch / "peer.err"
        sockets = network.packet_sockets()
        with open(err, "wb") as e:
            process = network.start(network.server, self.command, stdout=args.output.begin(), stderr=e,
                                    start_new_session=True)
        try:
            wait_for(lambda: process.poll() is not None or network.packet_sockets() > sockets, 20, self.name)
            time.sleep(0.2)
            if process.poll() is not None:
                raise DidNotRun(f"{self.name}: {err.read_text(errors='replace')[-300:]}")
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            written = args.output.end()
        if self.messages:
            self.expected += 2 * self.requests
            self.seen += args.output.count_lines(self.messages, written)
        if self.dropped:
            found = re.search(self.dropped, err.read_text(errors="replace"))
            self.note("packets dropped", int(found.group(1)) if found else 0)


def bench_web(args, table):
    # all it sees: both ends are on this machine; then one end, as the others see it
    both = LoaderCandidate("ebpfdump", 2)
    one = LoaderCandidate("ebpfdump --interface", 1, "--interface", "bench-s")
    peers = [
        Peer("tcpdump -w", ["tcpdump", "-i", "bench-s", "-n", "-Z", "root", "-w", "-", "tcp port 80"],
             dropped=r"(\d+) packets? dropped by kernel"),
        Peer("ngrep", ["ngrep", "-d", "bench-s", "-q", "-W", "byline", "^(GET|HTTP)", "tcp port 80"], messages=r"^T "),
        Peer("tshark -Y http", ["tshark", "-i", "bench-s", "-n", "-f", "tcp port 80", "-Y", "http"],
             messages=r" HTTP ", dropped=r"(\d+) packets? dropped"),
    ]
    without = Candidate("without")
    candidates = [without, both, one] + peers
    run([args.programs / "bench-kernel", "--rounds", 0])
    args.output = Output(args.scratch / "output", args.seconds * 768 * KIB * KIB)
    with Network(args.scratch) as network:
        network.load(1)
        for i in range(args.rounds):
            for j in range(len(candidates)):
                candidates[(i + j) % len(candidates)].round(args, network)
            say("  round " + str(i + 1) + ": " + ", ".join(f"{c.name} {c.rates[-1]:.0f}" for c in candidates))
    ratios = {c: middle([r / w for r, w in zip(c.rates, without.rates)]) for c in candidates}

    def quartiles(c):
        low, high = spread([r / w for r, w in zip(c.rates, without.rates)])
        return f"{low:.3f} to {high:.3f}; {middle(c.rates):.0f} requests/s"

    best = max(peers, key=lambda p: ratios[p])
    for c in (both, one):
        met = ratios[c] >= 0.9 and ratios[c] > ratios[best]
        table.add(f"nginx under wrk with {c.name}, over without", f"{ratios[c]:.3f}",
                  f"{quartiles(c)}; {1e6 * sum(c.cpu) / max(1, c.seen):.2f} us of the loader's CPU time a message",
                  f">= 0.9, > {ratios[best]:.3f} ({best.name})", met, ratio=ratios[c], requests_per_second=middle(c.rates))
    for p in peers:
        table.add(f"  with {p.name}", f"{ratios[p]:.3f}", quartiles(p), ratio=ratios[p], requests_per_second=middle(p.rates))
    table.add("  without", f"{middle(without.rates):.0f} requests/s", requests_per_second=middle(without.rates))
    for c in (both, one):
        n = c.notes
        counted = int(n["records_lost"] + n["output_dropped"] + n["messages_dropped"])
        missing = max(0, c.expected - c.seen)
        # wrk hangs up in the middle of its last requests
        in_flight = c.ends * 2 * CONNECTIONS * len(c.rates)
        table.add(f"messages lost in that run, {c.name}", f"{missing} of {c.expected}",
                  f"in flight when wrk hung up: up to {in_flight}; counted: {int(n['records_lost'])} records, "
                  f"{int(n['output_dropped'] + n['messages_dropped'])} messages, {int(n['flow_gap_bytes'])} bytes; "
                  f"{int(n['messages_unpaired'])} responses without their request",
                  "0, or all counted", missing <= in_flight + counted, expected=c.expected, seen=c.seen, counted=counted)
    for p in peers:
        text = [f"{max(0, p.expected - p.seen)} of {p.expected}"] if p.messages else []
        text += [f"{n} {key}" for key, n in p.notes.items()]
        table.add(f"  by {p.name}", ", ".join(text), expected=p.expected, seen=p.seen, **p.notes)
    n = both.notes
    wakeups = 1000 * n["ring_wakeups"] / max(1, n["records_submitted"])
    table.add("wake-ups per 1000 records at full load", f"{wakeups:.2f}",
              f"{int(n['ring_wakeups'])} of {int(n['records_submitted'])}", "<= 20", wakeups <= 20, wakeups=wakeups)


# ---- memory ----------------------------------------------------------------------------------------------------------


def memory_of(pid):
    """KiB: resident; proportional (a page that is mapped twice counts once); eBPF maps in the kernel."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    rss, once = (int(re.search(rf"^{field}:\s+(\d+) kB", text, re.M).group(1)) for field in ("Rss", "Pss"))
    return rss, once, maps_kib(pid)


def maps_kib(pid):
    """What the kernel holds for the eBPF maps of a process."""
    seen = {}
    for info in pathlib.Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
            if "map_id" in fields:
                seen[fields["map_id"]] = int(fields["memlock"])
    return sum(seen.values()) // KIB


def bench_memory(args, table):
    args.output = Output(args.scratch / "output", 64 * KIB * KIB)
    with Loader(args) as loader:
        pid = loader.process.pid
        time.sleep(2)
        idle = memory_of(pid)
        command = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$0" 10000', args.programs / "bench-connections"]
        client = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if client.stdout.readline() != "open\n":
                raise DidNotRun("the connections could not be opened")
            m = loader.settled()
            time.sleep(1)
            m = loader.metrics()
            busy = memory_of(pid)
        finally:
            client.stdin.close()
            client.wait(20)
    messages = loader.count_lines('"path":"/items')
    followed = int(m["ebpfdump_flow_connections"])
    if followed < 10000:
        raise DidNotRun(f"only {followed} connections were followed ({messages} messages)")
    for what, goal, (rss, once, maps), detail in (
            ("idle", 20, idle, ""),
            ("10 000 open connections", 96, busy, f"; both ends are here: {followed} followed, {messages} messages")):
        table.add(f"resident memory, {what}", f"{rss / KIB:.1f} MiB",
                  f"PSS {once / KIB:.1f} MiB; eBPF maps in the kernel, the ring buffer among them, "
                  f"{maps / KIB:.1f} MiB{detail}",
                  f"<= {goal} MiB", rss <= goal * KIB, kib=rss, once_kib=once, maps_kib=maps)


# ---- the callback --------------------------------------------------------------------------------------------------------

SESSION = """
import json, sys, time
import requests
url, seconds = sys.argv[1], float(sys.argv[2])
body = sys.stdin.buffer.read()
session, n, end = requests.Session(), 0, time.monotonic() + seconds
while time.monotonic() < end:
    session.post(url, data=body, headers={"Content-Type": "application/json"}).raise_for_status()
    n += 1
print(n / seconds)
"""
SHELL = """end=$(($(date +%s%N) + $2 * 1000000000)); n=0
while [ $(date +%s%N) -lt $end ]; do
	curl -sf -o /dev/null -H 'Content-Type: application/json' --data-binary @"$3" "$1" || exit 1; n=$((n + 1))
done; echo $((n / $2))"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Receiver:
    """A bare one (receiver.c), or ours."""

    def __init__(self, args, ours):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/ingest"
        command = [args.build / "ebpfdump-callback", "--listen", f"127.0.0.1:{self.port}", "--log-level", "error"] if ours \
            else [args.programs / "bench-receiver", self.port]
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def __enter__(self):
        def there():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            return False

        wait_for(there, 10, "the receiver")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def pump(args, url, n, *flags):
    """Messages per second, and CPU time per message in microseconds, of n messages of 700 bytes."""
    with subprocess.Popen([str(c) for c in (args.build / "test/callback/driver", "--callback", url, "--log-level", "error", *flags)],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        driver.stdin.write(f"pump {n} 700 64\n")
        driver.stdin.flush()
        result = json.loads(driver.stdout.readline())
        driver.stdin.close()
        driver.stdout.read()
    if result["delivered"] != n:
        raise DidNotRun(f"{result['delivered']} of {n} messages were delivered")
    return n / result["seconds"], 1e6 * result["cpu_seconds"] / n


def cpu_of(command, **more):
    process = subprocess.Popen([str(c) for c in command], stderr=subprocess.DEVNULL, **more)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status != 0:
        raise DidNotRun(f"{command[0]}: status {status}")
    return usage.ru_utime + usage.ru_stime


def bench_callback(args, table):
    rounds = max(1, min(5, args.rounds))
    batch = ("--callback-batch-messages", 500)
    body = args.scratch / "body"
    lines = (ROOT / "test/replay/data/golden.jsonl").read_bytes().splitlines()
    body.write_bytes(min(lines, key=lambda line: abs(len(line) - 700)))
    ours, bare, cpu = {"one": [], "batch": []}, {"one": [], "batch": []}, {"one": [], "batch": []}
    peers = {"requests": [], "curl in a shell loop": []}
    with Receiver(args, True) as mine, Receiver(args, False) as least:
        for _ in range(rounds):
            for name, n, flags in (("one", 50000, ()), ("batch", 500000, batch)):
                ours[name].append(pump(args, mine.url, n, *flags)[0])
                rate, each = pump(args, least.url, n, *flags)
                bare[name].append(rate)
                cpu[name].append(each)
            with open(body, "rb") as f:
                peers["requests"].append(float(run(["/usr/bin/python3", "-c", SESSION, mine.url, 1], stdin=f)))
            peers["curl in a shell loop"].append(float(run(["sh", "-c", SHELL, "sh", mine.url, "1", body])))
    best = max(peers, key=lambda p: middle(peers[p]))
    for name, what, goal in (("one", "one POST each", 20e3), ("batch", "batches of 500", 300e3)):
        rate, ratio = middle(ours[name]), middle(ours[name]) / middle(peers[best])
        table.add(f"callback: messages to our receiver, {what}", f"{rate:.0f}/s",
                  f"to the least that answers (receiver.c) {middle(bare[name]):.0f}/s, {middle(cpu[name]):.2f} us of CPU time a "
                  f"message; {ratio:.0f} x one POST each by {best}; "
                  + ", ".join(f"{p} {middle(v):.0f}/s" for p, v in peers.items()),
                  f">= {goal:.0f}/s, >= 5 x", rate >= goal and ratio >= 5, rate=rate, bare=middle(bare[name]), ratio=ratio,
                  **{p.split()[0]: middle(v) for p, v in peers.items()})

    records = args.scratch / "records"
    run([args.programs / "bench-replay", "--write", records])
    loader = [args.build / "ebpfdump-loader", "--replay", records, "--listen", ""]
    printed, sent, single = [], [], []
    with Receiver(args, False) as least:
        for _ in range(rounds):
            with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as reader:
                printed.append(cpu_of([*loader, "--output", "json"], stdout=reader.stdin))
                reader.stdin.close()
            sent.append(cpu_of([*loader, "--callback", least.url, *batch]))
            single.append(cpu_of([*loader, "--callback", least.url]))
    ratio = middle([s / p for s, p in zip(sent, printed)])
    messages = 16 * 4096 * 2
    table.add("callback: the loader's CPU time, batches over printing", f"{ratio:.2f}",
              f"{1e6 * middle(sent) / messages:.2f} us over {1e6 * middle(printed) / messages:.2f} us a message, from records to "
              f"the receiver or a pipe's reader; one POST each {1e6 * middle(single) / messages:.2f} us",
              "<= 1.5", ratio <= 1.5, ratio=ratio)
    records.unlink()

    with subprocess.Popen([str(args.build / "test/callback/driver"), "--callback", f"http://127.0.0.1:{free_port()}/", "--flush-timeout",
                           "0", "--log-level", "error"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        driver.stdin.write("write 262144 4096 64\nstats\n")
        driver.stdin.close()
        driver.stdout.readline()
        stats = json.loads(driver.stdout.readline())
        driver.stdout.read()
    table.add("callback: resident memory, dead receiver, 1 GiB offered", f"{stats['rss'] / (1 << 20):.1f} MiB",
              f"--queue-bytes 32M; {stats['queued']} messages of 4096 bytes queue, {stats['full']} gave way", "<= 64 MiB",
              stats["rss"] <= 64 << 20, rss=stats["rss"])
    bench_page(args, table)


# Sends one message on a connection that stays, at times that are due, until its input ends.
SENDER = """
import http.client, json, sys, time
port, rate, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
message = json.loads(sys.stdin.readline())
c = http.client.HTTPConnection("127.0.0.1", port)
start = time.monotonic()
for i in range(int(rate * seconds)):
    wait = start + i / rate - time.monotonic()
    if wait > 0:
        time.sleep(wait)
    message["path"] = "/sent?%d&%d" % (i, time.monotonic_ns())
    c.request("POST", "/ingest", json.dumps(message), {"Content-Type": "application/json"})
    answer = c.getresponse()
    answer.read()
    if answer.status != 200:
        sys.exit(1)
print(time.monotonic() - start)
"""


def watch_stream(stream, count, seconds):
    """Milliseconds from the sending of each message to the event that shows it."""
    waited, end = [], time.monotonic() + seconds
    while len(waited) < count and time.monotonic() < end:
        line = stream.readline()
        now = time.monotonic_ns()
        if not line:
            break
        waited += [(now - int(sent)) / 1e6 for sent in re.findall(rb'/sent\?\d+&(\d+)', line)]
    return waited


def bench_page(args, table):
    rate, seconds = 1000, 10
    message = {"direction": 0, "timing_ms": 1750000000000, "remote_ip": "10.1.2.3", "remote_port": 40000, "method": "GET",
               "path": "/", "status_code": 0, "version": "1.1", "headers": {"Host": ["shop"]}, "body": ""}
    with Receiver(args, True) as receiver, socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as client:
        client.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sender = subprocess.Popen([sys.executable, "-c", SENDER, str(receiver.port), str(rate), str(seconds)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            sender.stdin.write(json.dumps(message) + "\n")
            sender.stdin.close()
            with client.makefile("rb") as stream:
                waited = watch_stream(stream, rate * seconds, seconds + 20)
            took = float(sender.stdout.readline() or 0)
        finally:
            sender.kill()
            sender.wait()
    if len(waited) != rate * seconds or took == 0:
        raise DidNotRun(f"the stream showed {len(waited)} of {rate * seconds} messages")
    waited.sort()
    table.add("receiver: from ingest to the page's stream", f"{middle(waited):.0f} ms",
              f"95 %: {waited[len(waited) * 95 // 100]:.0f} ms, longest {waited[-1]:.0f} ms; {len(waited) / took:.0f} messages/s, "
              "one POST each", "<= 200 ms", middle(waited) <= 200, ms=middle(waited))


# ---- the callback's spool --------------------------------------------------------------------------------------------


def dd(args, *operands):
    """Bytes per second."""
    done = subprocess.run(["dd", *operands], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
                          env={**os.environ, "LC_ALL": "C"})
    found = re.search(r"^(\d+) bytes.* copied, ([\d.e-]+) s", done.stderr, re.M)
    if done.returncode != 0 or not found:
        raise DidNotRun(f"dd: {done.stderr.strip()[-300:]}")
    return int(found.group(1)) / float(found.group(2))


def bench_spool(args, table):
    mib, rounds = 256, max(1, min(5, args.rounds))
    ours = {"append": [], "synced": [], "warm": [], "cold": []}
    theirs = {"write": [], "read": []}
    cpu, longest = {"append": [], "warm": []}, []
    with tempfile.TemporaryDirectory(dir=args.build, prefix="bench-spool-") as scratch:
        for _ in range(rounds):
            result = json.loads(run([args.programs / "bench-spool", "--dir", scratch + "/spool", "--mib", mib, "--rounds", 1]))
            took = result["rounds"][0]
            for part, rates in ours.items():
                rates.append(result["messages"] * result["message_bytes"] / took[part]["seconds"])
            for part, values in cpu.items():
                values.append(took[part]["cpu_ns"])
            longest.append(took["append"]["longest"])
            file = scratch + "/dd"
            theirs["write"].append(dd(args, "if=/dev/zero", "of=" + file, "bs=1M", f"count={mib}", "conv=fsync"))
            with open(file, "rb") as f:
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            theirs["read"].append(dd(args, "if=" + file, "of=/dev/null", "bs=256k"))
            os.unlink(file)
    for what, part, peer, cpu_of in (("spool: written and synced", "synced", "write", "append"),
                                     ("spool: read back from the disk and acknowledged", "cold", "read", "warm")):
        rate, disk = middle(ours[part]), middle(theirs[peer])
        cached = "append" if part == "synced" else "warm"
        goal = min(200e6, disk)
        table.add(what, f"{rate / 1e6:.0f} MB/s",
                  f"{middle(ours[cached]) / 1e6:.0f} MB/s to or from the page cache; {middle(cpu[cpu_of]):.0f} ns of CPU "
                  f"time per message of {result['message_bytes']} bytes; dd in the same run {disk / 1e6:.0f} MB/s"
                  + (f"; the longest append {1000 * max(longest):.1f} ms" if part == "synced" else ""),
                  f">= {goal / 1e6:.0f} MB/s", rate >= goal, rate=rate, disk=disk)


# ---- watch events ----------------------------------------------------------------------------------------------------


def bench_kube(args, table):
    result = json.loads(run([args.programs / "bench-kube", max(1, min(15, args.rounds))]))
    decode, keep = ([r[key] for r in result["rounds"]] for key in ("decode_ns", "keep_ns"))
    rate = 1e9 / middle(decode)
    table.add("watch events decoded", f"{rate:.0f} events/s",
              f"{middle(decode):.0f} ns of CPU time per event of {result['event_bytes']} bytes; kept in a cache as well "
              f"{middle(keep):.0f} ns; an object of the cache takes {result['object_memory']} bytes of memory",
              ">= 50000 events/s", rate >= 50000, rate=rate, keep_ns=middle(keep), object_memory=result["object_memory"])


# ---- the operator ----


def bench_operator(args, table):
    import operator_part
    operator_part.bench(args, table)


# ---- all -------------------------------------------------------------------------------------------------------------

PARTS = {"kernel": bench_kernel, "replay": bench_replay, "web": bench_web, "memory": bench_memory, "callback": bench_callback, "spool": bench_spool, "kube": bench_kube,
         "operator": bench_operator, "vm": bench_vm}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=1, help="of wrk in a round")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    args = parser.parse_args()
    args.build = args.build.resolve()
    args.programs = args.build / "test/bench"
    table, failed = Table(), []
    started = time.monotonic()
    # in memory: the disk is no part of what is measured
    scratch = tempfile.mkdtemp(prefix="ebpfdump-bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    args.scratch = pathlib.Path(scratch)
    try:
        for part in args.parts or PARTS:
            say(f"bench: {part}")
            try:
                PARTS[part](args, table)
            except (DidNotRun, subprocess.TimeoutExpired, OSError, KeyError, ValueError) as e:
                failed.append(f"{part}: {e!r}" if isinstance(e, (KeyError, ValueError)) else f"{part}: {e}")
                say(f"bench: {failed[-1]}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(table)
    for f in failed:
        print(f"DID NOT RUN: {f}")
    if args.json:
        host = {"kernel": os.uname().release, "cpus": os.cpu_count()}
        args.json.write_text(json.dumps({"host": host, "rounds": args.rounds, "seconds": round(time.monotonic() - started),
                                         "rows": table.rows, "did_not_run": failed}, indent=1) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
