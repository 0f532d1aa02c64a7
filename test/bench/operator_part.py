# SPDX-License-Identifier: Apache-2.0
"""The part `operator` of the measurements: the operator at a real API server (test/api), alone with it on this machine."""
import http.client
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "api"), str(HERE.parent / "native")]

import cluster  # noqa: E402
import operators  # noqa: E402
from cluster import NAMESPACE, Watch, dump, until  # noqa: E402

PATH = f"{cluster.API}/namespaces/{NAMESPACE}/ebpfdumps"
DAEMONSETS = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
# Long enough for many renewals of the lease and a few bookmarks. The goal speaks of ten minutes: OPERATOR_SECONDS=600.
SECONDS = int(os.environ.get("OPERATOR_SECONDS", "120"))


class Client:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def __call__(self, method, path, body=None):
        self.connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise ValueError(f"{method} {path}: {answer.status} {text[:200]}")
        return text


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(int(f) for f in fields[11:13]) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    rss, anonymous = (int(re.search(rf"^{field}:\s+(\d+) kB", text, re.M)[1]) / 1024 for field in ("Rss", "Anonymous"))
    return rss, anonymous


def requests_seen(call):
    """At the API server: writes but the lease's, and all that are no watch, of everybody."""
    writes = everything = 0
    for line in call("GET", "/metrics").decode().splitlines():
        if not line.startswith("apiserver_request_total{") or 'verb="WATCH"' in line:
            continue
        count = float(line.rsplit(" ", 1)[1])
        everything += count
        if any(f'verb="{verb}"' in line for verb in ("POST", "PUT", "PATCH", "APPLY", "DELETE")) and 'resource="leases"' not in line:
            writes += count
    return writes, everything


def latency(c, call, port, table, rounds):
    """From the moment that the resource is sent to the moment that a watch shows the DaemonSet."""
    watch = Watch(port, DAEMONSETS)
    times = []

    def event(kind):
        while True:
            while watch.events:
                if watch.events.pop(0)["type"] == kind:
                    return
            time.sleep(0.0005)
    for n in range(rounds):
        began = time.perf_counter()
        call("POST", PATH, dump("example", interfaces=[f"eth{n % 16}"]))
        event("ADDED")
        times.append(1000 * (time.perf_counter() - began))
        call("DELETE", f"{PATH}/example")
        event("DELETED")
        # a user's change comes alone: what the operator may ask at a time (20 requests/s, 30 at once) is there again
        time.sleep(4)
    watch.close()
    middle = statistics.median(times)
    table.add("EbpfDump made to DaemonSet written", f"{middle:.1f} ms", f"{min(times):.1f} to {max(times):.1f} ms in {rounds} rounds, through two "
              "kubectl proxies, as a watch sees it", "<= 100 ms", middle <= 100, milliseconds=middle)


def steady(c, op, call, table):
    call("POST", PATH, dump("example", interfaces=["eth0"]))
    until(lambda: operators.daemonset(c), "the DaemonSet")
    operators.play(c, desired=3)
    operators.says(c, "Ready", "True")
    time.sleep(5)  # its events
    pid, proxy = op.process.pid, op.proxy_pid()
    rss, anonymous = resident_mib(pid)
    before, used, began = requests_seen(call), cpu_seconds(pid), time.monotonic()
    used_proxy = cpu_seconds(proxy)
    time.sleep(SECONDS)
    took = time.monotonic() - began
    after = requests_seen(call)
    writes, rate = after[0] - before[0], (after[1] - before[1] - 1) / took
    cpu, cpu_proxy = (100 * (now - then) / took for now, then in ((cpu_seconds(pid), used), (cpu_seconds(proxy), used_proxy)))
    table.add("writes in the steady state, but the lease's", f"{writes:.0f} in {took:.0f} s", "", "0", writes == 0, writes=writes)
    table.add("requests in the steady state", f"{rate:.2f} /s", "without the watches", "<= 1 /s", rate <= 1, rate=rate)
    table.add("CPU of an idle operator", f"{cpu:.3f} %", f"of a core; kubectl proxy beside it {cpu_proxy:.2f} %", "<= 0.1 %", cpu <= 0.1, cpu=cpu)
    table.add("memory of the operator, 1 EbpfDump", f"{rss:.1f} MiB", f"resident, {anonymous:.1f} MiB of it its own; kubectl proxy beside it "
              f"{resident_mib(proxy)[0]:.0f} MiB", "<= 6 MiB", rss <= 6, mib=rss)


def many(c, op, call, table, count=1000):
    for n in range(count - 1):
        call("POST", PATH, dump(f"n{n:04}", interfaces=["lo"]))
    began = time.monotonic()

    def told():
        items = json.loads(call("GET", PATH))["items"]
        return len(items) == count and all(i.get("status", {}).get("conditions") for i in items)
    while not told():
        if time.monotonic() - began > 600:
            raise ValueError("not each of them has a status after 600 s")
        time.sleep(2)
    took = time.monotonic() - began
    rss, anonymous = resident_mib(op.process.pid)
    table.add(f"memory of the operator, {count} EbpfDumps", f"{rss:.1f} MiB", f"resident, {anonymous:.1f} MiB of it its own; the last status was "
              f"written {took:.0f} s after the last EbpfDump", "<= 16 MiB", rss <= 16, mib=rss)


class Manager:
    """What an operator in Go is at the least (manager/main.go): the same caches, a lease, a listener, of client-go."""

    def __init__(self, c):
        done = subprocess.run([HERE / "manager/build.sh"], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise ValueError("the Go manager does not build")
        port, = operators.free_ports(1)
        self.process = cluster.Process([done.stdout.strip(), NAMESPACE, f"127.0.0.1:{port}"], c.dir / "manager.log", env=c.environment("admin"))
        c.started.append(self.process)
        self.port = port

    def state(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/metrics")
            return dict(line.split() for line in connection.getresponse().read().decode().splitlines())
        except OSError:
            return {}
        finally:
            connection.close()


def manager(c, table, count):
    m = Manager(c)
    until(lambda: m.state() == {"leading": "true", "objects": str(count)}, lambda: f"the Go manager: {m.process.tail()}")
    time.sleep(5)
    table.add(f"  a manager in Go that does nothing, {count} EbpfDump{'s' if count > 1 else ''}", f"{resident_mib(m.process.pid)[0]:.1f} MiB",
              "client-go's caches, lease and TLS, without kubectl proxy", mib=resident_mib(m.process.pid)[0])
    m.process.stop()


def beside(c, program, table, count=1000):
    """The same from a fresh start: of this machine's shared libraries, which bring TLS and more."""
    for program in (operators.Operator.program, program):
        operators.Operator.program = program
        op = operators.Operator(c, "--retry-period=2s", "--log-level=info")
        until(op.leads, "it leads")
        time.sleep(5)
        rss, anonymous = resident_mib(op.process.pid)
        table.add(f"  {program.parent.name}/{program.name}, started with {count} EbpfDumps", f"{rss:.1f} MiB", f"resident, {anonymous:.1f} MiB of it its own",
                  mib=rss)
        op.process.stop()


def bench(args, table):
    bin = cluster.programs()
    if bin is None:
        raise ValueError("Debian sid's packages of Kubernetes cannot be had today")
    # as its image has it
    operators.Operator.program = args.build / "lean/ebpfdump-operator"
    c = cluster.Cluster(bin)
    try:
        operators.deploy(c)
        _, port = c.proxy()
        call = Client(port)
        op = operators.Operator(c, "--retry-period=2s", "--log-level=info")
        until(op.leads, "it leads")
        latency(c, call, port, table, max(3, args.rounds))
        steady(c, op, call, table)
        manager(c, table, 1)
        many(c, op, call, table)
        op.process.stop()
        manager(c, table, 1000)
        beside(c, args.build / "ebpfdump-operator", table)
    except cluster.Failure as e:
        raise ValueError(str(e)) from e
    finally:
        c.close()
