#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: measure.py OPERATOR [SECONDS]

The operator's numbers against the scripted API server, as a table; SECONDS (default 30) is how long the steady state is watched.
JSON with --json FILE. OPERATOR is build/lean/ebpfdump-operator (`make lean`), which is what the image has; --beside
build/ebpfdump-operator adds the memory of that one, of the machine's shared libraries.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import apiserver

NS = "ebpfdump-operator-system"
SET = NS + "/ebpfdump-loader"


def start(program, api):
    env = dict(os.environ, POD_NAMESPACE=NS, LOADER_IMAGE="loader:1", POD_NAME="op-1")
    return subprocess.Popen([program, "--server=http://127.0.0.1:%d" % api.port, "--listen=127.0.0.1:0", "--log-level=warn"], env=env)


def until(fn):
    end = time.monotonic() + 300
    while time.monotonic() < end:
        try:
            if fn():
                return
        except (KeyError, TypeError):
            pass
        time.sleep(0.05)
    sys.exit("measure.py: it did not come to its end")


def memory(pid, field="VmRSS"):
    """MiB; RssAnon is without the shared libraries' files."""
    with open("/proc/%d/status" % pid, encoding="ascii") as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    return 0


def cpu(pid):
    """Seconds"""
    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def latency(api, runs=21):
    """ms from the write of an EbpfDump to that of the DaemonSet, at the API server."""
    times = []
    for n in range(runs):
        applied = threading.Event()

        def fault(verb, resource, key):
            if verb == "patch" and resource == "daemonsets":
                applied.set()
        api.fault = fault
        start_ns = time.monotonic()
        api.change("ebpfdumps", "default/web", lambda d, n=n: d["spec"].update(bodyBytes=n + 1))
        if not applied.wait(10):
            sys.exit("measure.py: no DaemonSet was written")
        times.append((time.monotonic() - start_ns) * 1000)
        time.sleep(0.7)
    api.fault = None
    return statistics.median(times)


def dump(api, n):
    api.dump("web" if n == 0 else "d%04d" % n, created="2026-01-01T00:%02d:%02dZ" % (n // 60, n % 60), interfaces=["lo"],
             callback="http://receiver.example.com:8090/ingest", bodyBytes=4096, redactHeaders=["Authorization", "Cookie"])


def measure(program, seconds, steady=True):
    out = {}
    api = apiserver.Server(nodes=3)
    api.put("deployments", NS + "/ebpfdump-operator", spec={})
    dump(api, 0)
    operator = start(program, api)
    until(lambda: api.get("ebpfdumps", "default/web")["status"]["readyNodes"] == 3)
    time.sleep(2)
    out["memory, 1 EbpfDump (MiB)"] = memory(operator.pid), 6
    out["of it its own, no library's file (MiB)"] = memory(operator.pid, "RssAnon"), 6
    if steady:
        calls, used, began = len(api.log), cpu(operator.pid), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        out["CPU idle (% of a core)"] = (cpu(operator.pid) - used) / took * 100, 0.1
        out["requests/s, steady"] = (len(api.log) - calls) / took, 1
        out["writes but the lease, steady"] = len(api.writes(since=began, events=True)), 0
        out["apply to DaemonSet written, median (ms)"] = latency(api), 100
    for n in range(1, 1000):
        dump(api, n)
    until(lambda: all("status" in o for o in api.objects["ebpfdumps"].values()))
    time.sleep(2)
    out["memory, 1000 EbpfDumps (MiB)"] = memory(operator.pid), 16
    out["of it its own (MiB)"] = memory(operator.pid, "RssAnon"), 16
    operator.terminate()
    operator.wait()
    api.close()
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("operator")
    parser.add_argument("seconds", nargs="?", type=float, default=30)
    parser.add_argument("--beside", metavar="OPERATOR")
    parser.add_argument("--json")
    args = parser.parse_args()
    results = measure(args.operator, args.seconds)
    for name, (value, goal) in results.items():
        print("%-42s %10.2f   goal <= %s%s" % (name, value, goal, "" if value <= goal else "   MISSED"))
    if args.beside:
        for name, (value, _) in measure(args.beside, 0, steady=False).items():
            print("%-42s %10.2f   %s" % (name, value, args.beside))
    if args.json:
        with open(args.json, "w", encoding="ascii") as f:
            json.dump({n: {"value": v, "goal": g} for n, (v, g) in results.items()}, f, indent=1)


main()
