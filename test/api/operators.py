# SPDX-License-Identifier: Apache-2.0
"""operators: the operator's process as its Deployment runs it, with the rights of its service account, and what stands in for nodes."""
import contextlib
import http.client
import json
import pathlib
import re
import signal
import time

from cluster import NAMESPACE, TREE, Failure, Process, check, dump, equal, free_port, short, until

LOADER = "ebpfdump-loader"
IMAGE = "example.com/ebpfdump-loader:test"


def deploy(c):
    """`make deploy`, and a cluster without an EbpfDump and a DaemonSet."""
    if not c.api.alive():  # a test that failed left it so
        c.start_api()
    c.kubectl("apply", "-k", TREE / "config/default")
    c.kubectl("wait", "--for=condition=Established", "crd/ebpfdumps.research.dynatrace.com", "--timeout=30s")
    clear(c)


def clear(c):
    c.kubectl("delete", "ebpfdumps", "--all", "-A", "--wait=true")
    for what in ("daemonset", LOADER), ("lease", "ebpfdump-operator"):
        c.kubectl("delete", *what, "-n", NAMESPACE, "--ignore-not-found")
    for what in "pods", "events":  # all in one request
        c.kubectl("delete", "--raw", f"/api/v1/namespaces/{NAMESPACE}/{what}")


class Operator:
    """Its process. What the kubelet would set is set here."""

    program = TREE / "build/ebpfdump-operator"
    numbers = iter(range(1 << 30))

    def __init__(self, c, *flags, name=None, user="operator", ready=True):
        number = next(Operator.numbers)
        self.c, self.name = c, name or f"ebpfdump-operator-{number}"
        self.port, proxy = free_port(), free_port()
        env = {**c.environment(user), "POD_NAME": self.name, "POD_NAMESPACE": NAMESPACE, "LOADER_IMAGE": IMAGE}
        self.process = Process([Operator.program, f"--kubectl={c.bin / 'kubectl'}", f"--kubeconfig={c.kubeconfigs[user]}",
                                f"--proxy-port={proxy}", f"--listen=127.0.0.1:{self.port}", "--log-level=debug", "--retry-period=200ms", *flags],
                               c.dir / f"operator-{number}.log", env=env)
        c.started.append(self.process)
        if ready:
            until(lambda: self.ask("/readyz")[0] == 200 or self._dead(), lambda: f"the operator to be ready:\n{self.process.tail()}")

    def _dead(self):
        if not self.process.alive():
            raise Failure(f"the operator ended: {self.process.tail()}")

    def ask(self, path):
        """Once more where the loop had no time for it, as on a machine that stalls."""
        for _ in range(10):
            answer = self._ask(path)
            if answer[1] != "the event loop does not answer\n":
                break
        return answer

    def _ask(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def metric(self, name, **labels):
        """The sum of all lines of that name with these labels."""
        total, found = 0, False
        for line in self.ask("/metrics")[1].splitlines():
            m = re.fullmatch(r"(\w+)(?:\{(.*)\})? ([^ ]+)", line)
            if m and m[1] == name and all(f'{k}="{v}"' in (m[2] or "") for k, v in labels.items()):
                total, found = total + float(m[3]), True
        check(found, f"no metric {name}{labels or ''}")
        return total

    def leads(self):
        lease = self.c.get("lease", "ebpfdump-operator", "-n", NAMESPACE)
        return bool(lease) and lease["spec"].get("holderIdentity", "").startswith(f"{self.name}_")

    def proxy_pid(self):
        """Of its kubectl."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):  # it ends just now
                if "\0proxy\0" in pathlib.Path(f"/proc/{child}/cmdline").read_text():
                    return int(child)
        return None

    def stop(self, number=signal.SIGTERM):
        return self.process.stop(number)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None and self.process.alive():
                equal(self.stop(), 0, f"the operator's exit status ({short(self.process.tail(5))})")
            elif kind:
                said = "\n".join(line[:300] for line in self.process.tail(8).splitlines())
                print("    the operator said:\n        " + said.replace("\n", "\n        "))
        finally:
            self.process.kill()


# ---- what a cluster would do ----

def daemonset(c):
    return c.get("daemonset", LOADER, "-n", NAMESPACE)


def args_of(ds):
    return ds["spec"]["template"]["spec"]["containers"][0]["args"]


def play(c, desired=2, ready=None, updated=None, scheduled=None):
    """The DaemonSet controller and kubelets: so many nodes, so many loaders ready."""
    ready = desired if ready is None else ready
    updated = desired if updated is None else updated
    scheduled = desired if scheduled is None else scheduled
    generation = daemonset(c)["metadata"]["generation"]
    c.kubectl("patch", "daemonset", LOADER, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", json.dumps({"status": {
        "observedGeneration": generation, "desiredNumberScheduled": desired, "currentNumberScheduled": scheduled, "numberReady": ready,
        "numberAvailable": ready, "numberUnavailable": desired - ready, "updatedNumberScheduled": updated}}))


def pod(c, name="ebpfdump-loader-abcde", node="node-1", status=None):
    """One of the DaemonSet's pods, whose status is as given."""
    ds = daemonset(c)
    template = ds["spec"]["template"]
    c.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {
        "name": name, "namespace": NAMESPACE, "labels": template["metadata"]["labels"], "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "DaemonSet", "name": LOADER, "uid": ds["metadata"]["uid"], "controller": True}]},
        "spec": {**template["spec"], "nodeName": node}})
    if status:
        c.kubectl("patch", "pod", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def event(c, name, about, reason, message):
    ref = {"apiVersion": about["apiVersion"], "kind": about["kind"], "name": about["metadata"]["name"],
           "namespace": about["metadata"]["namespace"], "uid": about["metadata"]["uid"]}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    c.apply({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": NAMESPACE}, "involvedObject": ref, "reason": reason,
             "message": message, "type": "Warning", "firstTimestamp": now, "lastTimestamp": now, "count": 1})


def status_of(c, name="example", namespace=NAMESPACE):
    return (c.get("ebpfdump", name, "-n", namespace) or {}).get("status", {})


def says(c, kind, status, reason=None, name="example", namespace=NAMESPACE):
    """Waits for a condition."""
    def now():
        for cond in status_of(c, name, namespace).get("conditions", []):
            if cond["type"] == kind and cond["status"] == status and (reason is None or cond["reason"] == reason):
                return cond
        return None
    return until(now, lambda: f"{name}: {kind}={status} {reason or ''}; it says {short(json.dumps(status_of(c, name, namespace)))}", 30)
