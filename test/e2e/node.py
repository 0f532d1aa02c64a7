# SPDX-License-Identifier: Apache-2.0
"""
node: stands in for a node of the cluster. It runs the one container of each pod that a DaemonSet asks for, as a kubelet would have it
run: the arguments, environment, volumes, capabilities and probes of the pod's template, in a mount namespace and a network
namespace of its own; and it keeps the pod's and the DaemonSet's status in the API server. The image is this tree's build/.
"""
import base64
import contextlib
import http.client
import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "api"))

from cluster import NAMESPACE, Failure, Process, check, until  # noqa: E402

# What a container sees: this machine's programs and libraries, read-only, and nothing else of it.
CONTAINER = r"""
set -e
root=$1 hosts=$2
shift 2
mount -t tmpfs -o mode=755 container "$root"
for d in usr proc sys dev; do mkdir "$root/$d"; mount --rbind "/$d" "$root/$d"; done
for d in bin sbin lib lib32 lib64; do [ ! -L "/$d" ] || ln -s "$(readlink "/$d")" "$root/$d"; done
mkdir -p "$root/etc" "$root/tmp" "$root/image"
mount --bind "$hosts" "$root/etc"
mount --bind "$1" "$root/image"
shift
while [ "$1" != -- ]; do
    # a volume: where it is, where it goes, ro or rw
    [ -d "$root$2" ] || mkdir -p "$root$2"
    mount --rbind "$1" "$root$2"
    [ "$3" = rw ] || mount -o remount,bind,ro "$root$2"
    shift 3
done
shift
mount -o remount,ro "$root"
exec chroot "$root" "$@"
"""
# Of the capabilities that a template adds, those this test machine's root has itself.
HAD = int(re.search(r"CapBnd:\s*(\w+)", pathlib.Path("/proc/self/status").read_text())[1], 16)
NUMBERS = {"NET_ADMIN": 12, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "SYS_RESOURCE": 24, "PERFMON": 38, "BPF": 39}


class Container:
    def __init__(self, node, pod):
        self.node, self.pod = node, pod
        self.uid, self.name = pod["metadata"]["uid"], pod["metadata"]["name"]
        self.spec = pod["spec"]["containers"][0]
        self.dir = node.cluster.dir / f"pod-{self.uid}"
        self.log = self.dir / "log"
        self.restarts, self.process = 0, None
        (self.dir / "root").mkdir(parents=True)
        (self.dir / "etc").mkdir()
        (self.dir / "etc/hosts").write_text("127.0.0.1 localhost\n")
        # where volumes and /etc's own files meet
        for mount in self.spec.get("volumeMounts", []):
            if mount["mountPath"].startswith("/etc/"):
                (self.dir / mount["mountPath"].lstrip("/")).mkdir(parents=True, exist_ok=True)
        self.run()

    def environment(self):
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        fields = {"spec.nodeName": self.node.name, "metadata.name": self.name, "metadata.namespace": NAMESPACE}
        for e in self.spec.get("env", []):
            env[e["name"]] = e["value"] if "value" in e else fields[e["valueFrom"]["fieldRef"]["fieldPath"]]
        return env

    def arguments(self):
        env = self.environment()
        return [re.sub(r"\$(\$|\((\w+)\))", lambda m: "$" if m[1] == "$" else env.get(m[2], m[0]), a) for a in self.spec.get("args", [])]

    def volume(self, volume, number):
        """The folder that it is on this machine."""
        if "hostPath" in volume:
            path = pathlib.Path(volume["hostPath"]["path"])
            # the kubelet's own: this machine has none
            if path.is_relative_to("/var/log"):
                path = self.node.logs / path.relative_to("/var/log")
            if volume["hostPath"].get("type") == "DirectoryOrCreate":
                path.mkdir(parents=True, exist_ok=True)
            return path
        here = self.dir / f"volume-{number}"
        here.mkdir(exist_ok=True)
        if "secret" in volume:
            wanted = volume["secret"]
            secret = self.node.cluster.get("secret", wanted["secretName"], "-n", NAMESPACE)
            if not secret:
                if wanted.get("optional"):
                    return here
                raise Failure(f'secret "{wanted["secretName"]}" not found')
            for item in wanted.get("items") or [{"key": k, "path": k} for k in secret["data"]]:
                path = here / item["path"]
                path.write_bytes(base64.b64decode(secret["data"][item["key"]]))
                path.chmod(wanted.get("defaultMode", 0o644))
        return here

    def run(self):
        volumes = {v["name"]: self.volume(v, n) for n, v in enumerate(self.pod["spec"].get("volumes", []))}
        mounts = []
        for m in self.spec.get("volumeMounts", []):
            mounts += [volumes[m["name"]], m["mountPath"], "ro" if m.get("readOnly") else "rw"]
        security = self.spec.get("securityContext", {})
        drop = []
        if not security.get("privileged"):
            check("ALL" in security["capabilities"]["drop"], "capabilities are not dropped")
            added = [c for c in security["capabilities"].get("add", []) if HAD >> NUMBERS[c] & 1]
            drop = ["setpriv", "--bounding-set=" + ",".join(["-all", *(f"+{c.lower()}" for c in added)])]
            if security.get("allowPrivilegeEscalation") is False:
                drop.append("--no-new-privs")
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", CONTAINER, "container", self.dir / "root", self.dir / "etc",
                self.node.image, *mounts, "--", *drop, "/image/ebpfdump-loader", *self.arguments()]
        with self.node.host.inside():
            self.process = Process(argv, self.log, env=self.environment())

    def probe(self, name):
        get = self.spec[name]["httpGet"]
        port = next(p["containerPort"] for p in self.spec["ports"] if get["port"] in (p["name"], p["containerPort"]))
        try:
            connection = self.node.host.client("127.0.0.1", port)
            connection.request("GET", get["path"])
            return connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False

    def status(self):
        state, ready = {"running": {}}, False
        if not self.process.alive():
            state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
        else:
            ready = self.probe("readinessProbe")
        return {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}], "containerStatuses": [{
            "name": self.spec["name"], "image": self.spec["image"], "imageID": "", "ready": ready, "restartCount": self.restarts, "state": state}]}

    def stop(self):
        """As a pod is deleted: it is told, given its time, and killed."""
        if self.process.alive():
            self.process.send(signal.SIGTERM)
            try:
                self.process.popen.wait(self.pod["spec"].get("terminationGracePeriodSeconds", 30))
            except subprocess.TimeoutExpired:
                self.node.wrong.append(f"{self.name} did not end within its grace period")
        self.process.kill()

    def lines(self):
        """What the loader wrote: its messages, parsed."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            if line.startswith('{"direction"'):
                found.append(json.loads(line))
        return found


class Node:
    """Works in a thread of its own, from what the API server says, four times a second."""

    def __init__(self, cluster, host, image, name="node-1"):
        self.cluster, self.host, self.image, self.name = cluster, host, pathlib.Path(image).resolve(), name
        self.container, self.wrong, self.ended = None, [], []
        self.logs = cluster.dir / f"{name}-log"
        self._stop, self._said = threading.Event(), None
        self.proxy, self.port = cluster.proxy()
        cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}})
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def request(self, method, path, body=None, kind="application/json"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status == 404:
            return None
        check(answer.status < 300, f"{method} {path}: {answer.status} {text[:300]}")
        return json.loads(text)

    def patch(self, path, status):
        self.request("PATCH", path + "/status", {"status": status}, "application/merge-patch+json")

    def _run(self):
        while not self._stop.is_set():
            try:
                self.pass_()
            except Exception as e:  # noqa: BLE001  said when the test asks
                self.wrong.append(f"the node: {type(e).__name__}: {e}")
            self._stop.wait(0.25)

    def pass_(self):
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/ebpfdump-loader"
        ds = self.request("GET", path)
        generation = ds and f'{ds["metadata"]["uid"]}/{json.dumps(ds["spec"]["template"], sort_keys=True)}'
        if self.container and self.container.generation != generation:
            self.end()
        if not ds:
            return
        if not self.container:
            self.start(ds, generation)
        if not self.container.process.alive():
            self.container.restarts += 1
            self.container.run()
        status = self.container.status()
        ready = int(status["containerStatuses"][0]["ready"])
        of_set = {"observedGeneration": ds["metadata"]["generation"], "desiredNumberScheduled": 1, "currentNumberScheduled": 1, "numberReady": ready,
                  "numberAvailable": ready, "numberUnavailable": 1 - ready, "updatedNumberScheduled": 1}
        if self._said != (status, of_set):
            self.patch(f"/api/v1/namespaces/{NAMESPACE}/pods/{self.container.name}", status)
            self.patch(path, of_set)
            self._said = (status, of_set)

    def start(self, ds, generation):
        template = ds["spec"]["template"]
        name = f'ebpfdump-loader-{int(time.monotonic() * 1e6) % 0xfffff:05x}'
        pod = self.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", {
            "apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": name, "namespace": NAMESPACE, "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "DaemonSet", "name": ds["metadata"]["name"], "uid": ds["metadata"]["uid"], "controller": True}]},
            "spec": {**template["spec"], "nodeName": self.name}})
        container = Container(self, pod)
        container.generation = generation
        self.container = container

    def end(self):
        container, self.container = self.container, None
        container.stop()
        self.ended.append(container)
        self.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/{container.name}")
        self._said = None

    def right(self):
        wrong, self.wrong = self.wrong, []
        check(not wrong, lambda: "; ".join(wrong[:3]))

    def close(self):
        self._stop.set()
        self.thread.join(60)
        if self.container:
            self.container.stop()


# ---- what is in the kernel ----

def held(pid):
    """Programs, maps and links that a process holds: {("prog", "17"), ...}."""
    found = set()
    for entry in pathlib.Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            found.update(re.findall(r"^(prog|map|link)_id:\s*(\d+)$", entry.read_text(), re.M))
    return found


def there(things):
    """Those of them that the kernel still has."""
    return {(kind, number) for kind, number in things
            if subprocess.run(["bpftool", kind, "show", "id", number], capture_output=True).returncode == 0}


def wait_gone(things):
    until(lambda: not there(things), lambda: f"the kernel to let go of {sorted(there(things))}")
