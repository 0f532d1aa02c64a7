# SPDX-License-Identifier: Apache-2.0
"""
cluster: an API server of Kubernetes with etcd, on ports of this run's own, and kubectl as users have it. No controllers, no
nodes: what they would do, a test does.
"""
import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
TREE = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "native"))

from harness import Failure, check, equal, free_port, short, until  # noqa: E402,F401

NAMESPACE = "ebpfdump-operator-system"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:ebpfdump-operator"
API = "/apis/research.dynatrace.com/v1alpha1"


def programs():
    """The folder of apiserver, etcd and kubectl; None where Debian's packages cannot be had today."""
    if os.environ.get("EBPFDUMP_API"):  # one that was built elsewhere
        return pathlib.Path(os.environ["EBPFDUMP_API"])
    done = subprocess.run([HERE / "build.sh"], stdout=subprocess.PIPE, text=True)
    if done.returncode == 75:
        return None
    if done.returncode:
        raise Failure("test/api/build.sh made no API server")
    return pathlib.Path(done.stdout.strip())


def _die_with_parent():
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Process:
    """A program whose output is kept in a file, and that never outlives this one."""

    def __init__(self, argv, log, **options):
        self.argv, self.log = [str(a) for a in argv], pathlib.Path(log)
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                          preexec_fn=_die_with_parent, **options)
        self.pid = self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def send(self, number):
        self.popen.send_signal(number)

    def wait(self, limit=30):
        try:
            return self.popen.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failure(f"{pathlib.Path(self.argv[0]).name} did not end within {limit} s") from None

    def stop(self, number=signal.SIGTERM, limit=30):
        if self.alive():
            self.send(number)
        try:
            return self.popen.wait(limit)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"{pathlib.Path(self.argv[0]).name} did not end within {limit} s") from None

    def kill(self):
        if self.alive():
            self.popen.kill()
        self.popen.wait()

    def text(self):
        return self.log.read_text(errors="replace")

    def tail(self, lines=15):
        return "\n".join(self.text().splitlines()[-lines:])


class Cluster:
    def __init__(self, bin):
        self.bin = pathlib.Path(bin)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="ebpfdump-api-"))
        self.etcd_port, self.etcd_peer, self.port = free_port(), free_port(), free_port()
        self.etcd = self.api = None
        self.started = []
        users = ['admin-token,admin,1,"system:masters"', 'nobody-token,nobody,2', f"operator-token,{OPERATOR},3"
                 f',"system:serviceaccounts,system:serviceaccounts:{NAMESPACE}"']
        (self.dir / "tokens.csv").write_text("\n".join(users) + "\n")
        try:
            self.start_etcd()
            self.start_api()
        except BaseException:
            self.close()
            raise
        self.kubeconfigs = {name: self._kubeconfig(name) for name in ("admin", "nobody", "operator")}

    # ---- its processes ----

    def start_etcd(self):
        url, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.etcd_peer}"
        self.etcd = Process([self.bin / "etcd", "--data-dir", self.dir / "etcd", "--unsafe-no-fsync", "--log-level", "warn",
                             "--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer,
                             "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"], self.dir / "etcd.log")
        until(lambda: self._ask(self.etcd_port, "/health") or self._must_live(self.etcd), lambda: f"etcd:\n{self.etcd.tail()}")

    def start_api(self):
        self.api = Process([self.bin / "apiserver", "--etcd-servers", f"http://127.0.0.1:{self.etcd_port}", "--bind-address", "127.0.0.1",
                            "--secure-port", self.port, "--cert-dir", self.dir / "certs", "--token-auth-file", self.dir / "tokens.csv"],
                           self.dir / "api.log")
        until(lambda: self._ask(self.port, "/readyz", tls=True) or self._must_live(self.api), lambda: f"the API server:\n{self.api.tail()}")

    def _must_live(self, process):
        if not process.alive():
            raise Failure(f"{process.argv[0]} ended: {process.tail()}")

    @staticmethod
    def _ask(port, path, tls=False):
        import ssl
        context = ssl._create_unverified_context() if tls else None
        kind = http.client.HTTPSConnection if tls else http.client.HTTPConnection
        connection = kind("127.0.0.1", port, timeout=5, **({"context": context} if tls else {}))
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop_api(self, number=signal.SIGKILL):
        """As a crash does it, unless said otherwise: an orderly end waits for the watches."""
        self.api.stop(number)

    def restart_api(self):
        self.stop_api()
        self.start_api()

    def compact(self):
        """Of etcd's history nothing is left: a watch from an older resource version is told 410."""
        connection = http.client.HTTPConnection("127.0.0.1", self.etcd_port, timeout=10)

        def post(path, body):
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            check(answer.status == 200, f"etcd {path}: {answer.status} {text}")
            return json.loads(text)
        revision = post("/v3/kv/range", {"key": "Lw=="})["header"]["revision"]
        with contextlib.suppress(Failure):  # it may be just that already
            post("/v3/kv/compaction", {"revision": revision, "physical": True})
        connection.close()

    def close(self):
        for process in [*reversed(self.started), self.api, self.etcd]:
            if process:
                process.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    # ---- kubectl ----

    def _kubeconfig(self, user):
        path = self.dir / f"{user}.kubeconfig"
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": f"https://127.0.0.1:{self.port}",
                                                      "certificate-authority": str(self.dir / "certs/apiserver.crt")}}],
            "users": [{"name": user, "user": {"token": f"{user}-token"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}]}))
        return path

    def environment(self, user="admin"):
        return {**os.environ, "KUBECONFIG": str(self.kubeconfigs[user]), "HOME": str(self.dir), "PATH": f"{self.bin}:{os.environ['PATH']}"}

    def run(self, *words, input=None, user="admin", limit=60):
        """kubectl WORDS, as typed. What it did, not judged."""
        if input is not None and not isinstance(input, str):
            input = json.dumps(input)
        return subprocess.run([self.bin / "kubectl", *map(str, words)], input=input, text=True, capture_output=True,
                              env=self.environment(user), timeout=limit, **({} if input is not None else {"stdin": subprocess.DEVNULL}))

    def kubectl(self, *words, **options):
        done = self.run(*words, **options)
        check(done.returncode == 0, lambda: f"kubectl {' '.join(map(str, words))}: {done.returncode}, {short(done.stderr or done.stdout)}")
        return done.stdout

    def refused(self, *words, **options):
        """The message of a command that must fail."""
        done = self.run(*words, **options)
        check(done.returncode != 0, lambda: f"kubectl {' '.join(map(str, words))} was accepted: {short(done.stdout)}")
        return done.stderr

    def get(self, *words):
        """An object, or a list's items; None if there is none."""
        done = self.run("get", *words, "-o", "json")
        if done.returncode and "NotFound" in done.stderr:
            return None
        check(done.returncode == 0, lambda: f"kubectl get {' '.join(words)}: {short(done.stderr)}")
        found = json.loads(done.stdout)
        return found["items"] if "items" in found else found

    def apply(self, thing, *words, **options):
        """A file, or an object."""
        if isinstance(thing, (str, os.PathLike)):
            return self.kubectl("apply", "-f", thing, *words, **options)
        return self.kubectl("apply", "-f", "-", *words, input=thing, **options)

    def proxy(self, *flags, user="admin"):
        """A `kubectl proxy` and its port."""
        process = Process([self.bin / "kubectl", "proxy", "--port=0", *flags], self.dir / f"proxy-{len(self.started)}.log",
                          env=self.environment(user))
        self.started.append(process)
        said = until(lambda: re.search(r"Starting to serve on [^\n]*:(\d+)\n", process.text()), "kubectl proxy")
        return process, int(said[1])


# ---- objects ----

def dump(name="example", namespace=NAMESPACE, **spec):
    return {"apiVersion": "research.dynatrace.com/v1alpha1", "kind": "EbpfDump",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def condition(obj, kind):
    """A condition of an object: "True", "False", "Unknown" or None, and its reason."""
    for c in (obj or {}).get("status", {}).get("conditions", []):
        if c["type"] == kind:
            return c["status"], c["reason"]
    return None, None


def crd_path():
    return TREE / "config/crd/bases/research.dynatrace.com_ebpfdumps.yaml"


class Watch:
    """A watch through a proxy: events come to .events in the order they come."""

    def __init__(self, port, path, **query):
        words = "&".join(f"{k}={v}" for k, v in {"watch": 1, **query}.items())
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.connection.request("GET", f"{path}?{words}")
        self.answer = self.connection.getresponse()
        self.events, self.ended = [], threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, AttributeError):  # closed meanwhile
            for line in self.answer:
                self.events.append(json.loads(line))
        self.ended.set()

    def close(self):
        with contextlib.suppress(OSError):
            self.connection.sock and self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.connection.close()


# ---- tests as functions ----

TESTS = []


def test(function):
    TESTS.append(function)
    return function


def run_tests(arguments, only, chain=False):
    """chain: each needs the one before it. Each test gets what `arguments` are. Ends with the line that test/run.sh reads."""
    passed = failed = 0
    for function in TESTS:
        if only and not any(word in function.__name__ for word in only):
            continue
        began = time.monotonic()
        try:
            function(*arguments)
        except Exception as e:  # noqa: BLE001  one that fails is not the end of the others
            failed += 1
            print(f"not ok {function.__name__}: {type(e).__name__ + ': ' if not isinstance(e, Failure) else ''}{e}", flush=True)
            if not isinstance(e, Failure):
                import traceback
                traceback.print_exc(file=sys.stdout)
            if chain:
                break
            continue
        passed += 1
        print(f"ok {function.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
    return passed, failed
