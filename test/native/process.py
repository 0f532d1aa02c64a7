# SPDX-License-Identifier: Apache-2.0
"""The loader as a process: its flags, its end, its privileges, its place among other processes."""
import os
import pathlib
import random
import re
import signal
import subprocess

from harness import (HERE, LIMIT, PYTHON, Loader, check, equal, exchange_by_sockets, path_of, short, test, until)


def run(*flags, program=None, wrap=(), env=None):
    done = subprocess.run([*wrap, program or Loader.program, *flags], capture_output=True, text=True, timeout=LIMIT,
                          stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
    return done.returncode, done.stdout, done.stderr


@test
def ended_by_signals(t):
    """Whatever has been captured is written before the end; what is unfinished, too."""
    for signo in signal.SIGTERM, signal.SIGINT:
        loader = t.start().ready()
        port = t.serve(lambda c: c.recv(1 << 20, 0x100))
        with t.net.client.connect(t.net.server.ip4, port) as half:
            half.sendall(f"POST {t.path('half')} HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nbegun".encode())
            until(lambda: loader.metrics().sum("ebpfdump_flow_buffered_bytes") > 0, "the unfinished request to arrive")
            for i in range(50):
                exchange_by_sockets(t.path(f"{signo}-{i}"))
            loader.stop(signo)
        for i in range(50):
            equal(len(loader.select(lambda m: path_of(m) == t.path(f"{signo}-{i}"))), 4, "messages of an exchange")
        halves = loader.select(lambda m: path_of(m) == t.path("half"))
        equal(len(halves), 2, "messages that are unfinished")
        for m in halves:
            equal((m["body"], m["body_bytes"]), ("begun", 5), "body")
            check("capture ended" in m.get("error", ""), f"error: {m}")


@test
def killed(t):
    """Nothing of it stays in the kernel."""
    loader = t.start().ready()
    held = {"prog": set(), "map": set(), "link": set()}
    for entry in os.scandir(f"/proc/{loader.process.pid}/fdinfo"):
        for kind, number in re.findall(r"^(prog|map|link)_id:\s+(\d+)$", pathlib.Path(entry.path).read_text(), re.M):
            held[kind].add(number)
    check(all(held.values()), f"programs, maps and links of the loader: {held}")
    there = lambda kind, number: subprocess.run(["bpftool", kind, "show", "id", number],
                                                capture_output=True).returncode == 0
    left = lambda: [(k, n) for k, numbers in held.items() for n in numbers if there(k, n)]
    equal(len(left()), sum(map(len, held.values())), "what bpftool shows while it runs")
    loader.process.send_signal(signal.SIGKILL)
    loader.process.wait(LIMIT)
    until(lambda: not left(), lambda: f"these to go: {left()}")


@test
def wrong_flags(t):
    """One line that names the flag, the value and what is allowed; status 2."""
    cases = {
        ("--nonsense",): ["--nonsense"],
        ("--body-bite", "4K"): ["--body-bite", "--body-bytes"],
        ("--body-bytes", "-1"): ["--body-bytes", "-1", "1M"],
        ("--body-bytes", "4x"): ["--body-bytes", "4x", "K"],
        ("--body-bytes", "2M"): ["--body-bytes", "2M", "1M"],
        ("--body-bytes=",): ["--body-bytes"],
        ("--body-bytes",): ["--body-bytes", "missing"],
        ("--line-bytes", "1"): ["--line-bytes", "'1'", "2K"],
        ("--ring-bytes", "99999999999999999999"): ["--ring-bytes", "99999999999999999999", "1G"],
        ("--output", "xml"): ["--output", "xml", "json"],
        ("--log-level", "loud"): ["--log-level", "loud", "debug"],
        ("--direction", "sideways"): ["--direction", "sideways", "egress", "ingress"],
        ("--message", "letter"): ["--message", "letter", "request", "response"],
        ("--hook", "line"): ["--hook", "line", "fentry", "kprobe"],
        ("--interface", "a name that is too long"): ["--interface", "a name that is too long"],
        ("--interface", ""): ["--interface"],
        ("--listen", "nowhere"): ["--listen", "nowhere", "HOST:PORT"],
        ("--listen", "127.0.0.1:99999"): ["--listen", "99999"],
        ("--poll-interval", "5"): ["--poll-interval", "'5'", "ms"],
        ("--check=yes",): ["--check", "yes"],
        ("file",): ["file"],
        ("--record", "a", "--replay", "b"): ["--record", "--replay"],
        ("--interface", "bad\nname"): ["--interface"],
    }
    for flags, words in cases.items():
        status, out, errors = run(*flags)
        equal((status, out), (2, ""), f"status and standard output of {flags}: {errors}")
        check(errors.endswith("\n") and errors.count("\n") == 1, f"not one line for {flags}: {errors!r}")
        for word in words:
            check(word in errors, f"'{word}' is not in: {errors}")


@test
def flags_that_inform(t):
    status, out, errors = run("--help")
    equal((status, errors), (0, ""), "--help")
    reference = run("--reference")
    equal((reference[0], reference[2]), (0, ""), "--reference")
    flags = set(re.findall(r"`(--[a-z-]+)", reference[1]))
    check(len(flags) > 20, f"flags in --reference: {flags}")
    for flag in flags:
        check(re.search(rf"^  {flag}\b", out, re.M), f"{flag} is not in --help")
    for default in "4096", "16K", "8M", "65536", "127.0.0.1:9464":
        check(f"Default: {default}" in re.sub(r"\s+", " ", out), f"no default {default} in --help")
    check(max(map(len, out.splitlines())) <= 100, "--help has long lines")
    equal(run("-h"), (0, out, ""), "-h")
    status, out, errors = run("--version")
    equal((status, errors), (0, ""), "--version")
    check(re.fullmatch(r"ebpfdump-loader \d+\.\d+\.\d+\S*\n", out), f"--version: {out!r}")


@test
def check_says_what_runs(t):
    """--check ends with 0, and names for each direction what /readyz names."""
    status, out, errors = run("--check")
    equal((status, errors), (0, ""), f"--check: {out}")
    loader = t.start().ready()
    hooks = re.findall(r"^\w+: (\S+)$", loader.get("/readyz")[1].decode(), re.M)
    loader.stop()
    equal(len(hooks), 2, "hooks in /readyz")
    for hook in hooks + ["fentry/tcp_sendmsg", "kprobe/tcp_sendmsg", "fexit/tcp_recvmsg", "cgroup_skb/ingress"]:
        check(hook in out, f"{hook} is not in: {out}")
    # What is missing is told with its reason, also when it is only said to be missing.
    named = {"fentry/tcp_sendmsg": "fentry", "kprobe/tcp_sendmsg": "kprobe", "tp_btf/tcp_sendmsg_locked": "tracepoint"}
    status, out, errors = run("--check", env={"EBPFDUMP_TEST_MISSING": ",".join(named.values())})
    equal(status, 1, f"--check without any hook for egress: {out}")
    check(errors.startswith("ebpfdump-loader: ") and errors.count("\n") == 1, f"it says {errors!r}")


@test
def a_hook_that_is_missing(t):
    """Forced to a kind that this kernel does not have: a line that says so, status 1; no restart would help."""
    status, out, errors = run("--hook", "fentry", "--listen", "",
                              env={"EBPFDUMP_TEST_MISSING": "fentry,fexit"})
    equal((status, out), (1, ""), f"status: {errors}")
    check("fentry" in errors, f"it says {errors}")
    check("Traceback" not in errors and errors.count("\n") <= 3, f"it says {errors}")


@test
def a_kernel_without_ring_buffer(t):
    """Refused, with a line that says what is missing and what would do."""
    for flags in ("--listen", ""), ("--check",):
        status, out, errors = run(*flags, env={"EBPFDUMP_TEST_MISSING": "ring"})
        equal((status, out), (1, ""), f"status with {flags}: {errors}")
        check("ring buffer" in errors and "Linux 5.8 or later" in errors, f"it says {errors}")
        check(errors.count("\n") == 1, f"not one line: {errors}")


@test
def without_privilege(t):
    program = t.dir / "ebpfdump-loader"
    program.write_bytes(open(Loader.program, "rb").read())
    program.chmod(0o755)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    for flags in ("--listen", ""), ("--check",):
        status, out, errors = run(*flags, program=program, wrap=nobody)
        equal(status, 1, f"status with {flags}: {out} {errors}")
        check(re.search(r"root|CAP_|privilege|permi", errors, re.I), f"it says {errors}")
        check(errors.count("\n") == 1, f"not one line: {errors}")
    equal(run("--help", program=program, wrap=nobody)[0], 0, "--help needs no privilege")


@test
def pid_namespace(t):
    """In a container without hostPID: it knows itself all the same, and shows others by their pid on the host."""
    loader = t.start(wrap=["unshare", "--pid", "--fork", "--mount-proc"], quiet=False, lossy=True).ready()
    children = pathlib.Path(f"/proc/{loader.process.pid}/task/{loader.process.pid}/children")
    inner, = until(lambda: children.read_text().split(), "the loader behind unshare")
    t.stack.callback(lambda: subprocess.run(["kill", "-KILL", inner], capture_output=True))
    # The client's end of a scrape is another process's traffic; the loader's own end is not shown.
    for i in range(5):
        path = f"/healthz?{t.token}-{i}"
        equal(loader.get(path)[0], 200, path)
        e = loader.exchange(path, (1, 0, 0, 1))
        equal(e.request_out[0]["pid"], os.getpid(), "pid")
    base, server = t.python_server()
    path = t.path("x")
    _, pid = t.curl(f"{base}{path}")
    e = loader.exchange(path)
    equal((e.request_out[0]["pid"], e.request_out[0]["comm"]), (pid, "curl"), "who sent the request")
    equal(e.response_out[0]["pid"], server.pid, "who sent the response")
    loader.stop(pid=int(inner))
    # by its pid: others of that name may run here
    own = loader.select(lambda m: m["pid"] == int(inner))
    check(not own, lambda: f"its own messages: {short(own)}")


@test
def whose_messages_they_are(t):
    """Pods and containers that are there, that come, that are gone before their message is looked at; and none."""
    web = t.container("shop", "web-5f7d", "nginx")
    web.link()
    host = t.net.server
    server = t.spawn(host, [*web.wrap, PYTHON, HERE / "server.py", host.ip4, 8000])
    t.listening(host, host.ip4, 8000, server)
    # nothing is drained for a while: the short ones below are gone by then
    loader = t.start("--pod-logs", t.dir / "log", "--poll-interval=300ms").ready()

    def whose(m):
        return tuple(m.get(k) for k in ("namespace", "pod", "container"))

    def asked(client, path):
        """The client's messages, once the server's are known to be its own."""
        e = loader.exchange(path)
        equal({whose(m) for m in e.request_in + e.response_out}, {("shop", "web-5f7d", "nginx")}, "whose server")
        equal(len({whose(m) for m in e.request_out + e.response_in}), 1, "whose client: two answers")
        equal(whose(e.request_out[0]), client, "whose client")

    def curl(*wrap):
        path = t.path(f"{len(wrap)}-{random.getrandbits(32):x}")
        t.run(t.net.client, [*wrap, "curl", "-sS", "--noproxy", "*", "--max-time", LIMIT, f"http://{host.ip4}:8000{path}"])
        return path

    asked((None, None, None), curl())
    job = t.container("batch", "import.1", "curl")
    job.link()
    first = curl(*job.wrap)
    job.close()
    docker = t.container()
    second = curl(*docker.wrap)
    docker.close()
    asked(("batch", "import.1", "curl"), first)
    asked((None, None, docker.id[:12]), second)
    # the kubelet's link comes late
    late = t.container("shop", "late", "curl")
    asked(("shop", "late", None), curl(*late.wrap))
    late.link()

    def found():
        path = curl(*late.wrap)
        return whose(loader.exchange(path).request_out[0]) == ("shop", "late", "curl")
    until(found, "the container's name")
    m = loader.metrics()
    check(m.sum("ebpfdump_cgroups") > 3, "cgroups are known")
    equal(m.sum("ebpfdump_cgroups_left_out_total"), 0, "cgroups left out")
    loader.stop()
    # of some namespaces only: the client's end is in another one, or in none
    loader = t.start("--pod-logs", t.dir / "log", "--namespace", "batch", "--namespace", "shop").ready()
    path, other = curl(), curl(*late.wrap)
    equal(len(loader.wait(lambda m: path_of(m) == other, 4, "both ends are in it")), 4, "both ends are in it")
    # what came before has been written
    mine = loader.select(lambda m: path_of(m) == path)
    equal([(m["direction"], m["namespace"]) for m in mine], [(1, "shop"), (0, "shop")], "what is let through")
    check(loader.metrics().sum("ebpfdump_messages_filtered_total") >= 2, "the rest is counted")
    loader.stop()
    # not asked for
    loader = t.start("--pod-logs=").ready()
    equal(whose(loader.exchange(curl()).request_in[0]), (None, None, None), "whose server")
    loader.stop()


@test
def own_traffic_is_not_shown(t):
    """A scraper in a hurry must not make messages of the loader's own."""
    loader = t.start(quiet=False, lossy=True).ready()
    for i in range(200):
        equal(loader.get(f"/metrics?{t.token}-{i}")[0], 200, "/metrics")
    for i in range(0, 200, 20):
        loader.exchange(f"/metrics?{t.token}-{i}", (1, 0, 0, 1))
    m = loader.metrics()
    check(m.sum("ebpfdump_kernel_skipped_bytes_total", reason="own") > 0, "bytes skipped as its own")
    loader.stop()
    own = loader.select(lambda m: m["pid"] == loader.process.pid)
    check(not own, lambda: f"messages of its own pid: {short(own)}")
