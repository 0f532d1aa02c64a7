#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: operator.py OPERATOR [NAME...]

Runs the operator against a scripted API server (apiserver.py), a scenario each, several at a time. Ends with `N passed, N failed`.
"""
import concurrent.futures
import copy
import datetime
import glob
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request

sys.dont_write_bytecode = True
sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
import apiserver
from ports import free_port

NS = "ebpfdump-operator-system"
SET = NS + "/ebpfdump-loader"
LEASE = NS + "/ebpfdump-operator"
PROGRAM = sys.argv[1]
DEADLINE = 30 * float(os.environ.get("EBPFDUMP_TEST_PATIENCE", "1"))
T1, T2, T3 = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"

scenarios = []


def scenario(fn):
    scenarios.append(fn)
    return fn


def until(what, fn, limit=None):
    """Waits for fn to be true (or not to raise); says what was waited for, else. A machine that stands still is not counted."""
    left, last, at = limit or DEADLINE, None, time.monotonic()
    while left > 0:
        try:
            last = fn()
            if last:
                return last
        except (KeyError, TypeError, IndexError, OSError) as e:
            last = e
        time.sleep(0.02)
        now = time.monotonic()
        left, at = left - min(now - at, 0.25), now
    raise AssertionError("%s: not within %d s; last: %r" % (what, limit or DEADLINE, last))


class Operator:
    def __init__(self, port, *args, leader=False, name="op-1", proxy=False, env=None):
        self.args = [PROGRAM, "--log-format=text", "--log-level=info", "--listen=127.0.0.1:0", *args]
        self.args += [] if proxy else ["--server=http://127.0.0.1:%d" % port]
        self.args += [] if leader else ["--no-leader-election"]
        self.env = dict(os.environ, POD_NAMESPACE=NS, LOADER_IMAGE="loader:1", POD_NAME=name, **(env or {}))
        self.start()

    def start(self):
        self.log = []
        self.process = subprocess.Popen(self.args, env=self.env, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self.read, args=(self.process, self.log), daemon=True).start()

    @staticmethod
    def read(process, log):
        for line in process.stderr:
            log.append(line.rstrip())

    def kill(self, signo=signal.SIGKILL):
        self.process.send_signal(signo)
        return self.process.wait(DEADLINE)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Test:
    """A server and its operators, which end with it."""

    def __init__(self, nodes=2):
        self.api = apiserver.Server(nodes)
        self.api.put("deployments", NS + "/ebpfdump-operator", spec={})
        self.operators = []

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        for o in self.operators:
            o.close()
        if kind:
            for o in self.operators:
                print("\n".join("    operator: " + line for line in o.log[-25:]))
            print("\n".join("    call: %.2f %d %s %s %s" % c for c in self.api.log[-40:]))
        self.api.close()

    def operator(self, *args, **more):
        o = Operator(more.pop("port", self.api.port), *args, **more)
        self.operators.append(o)
        return o

    def set(self):
        return self.api.get("daemonsets", SET)

    def args(self):
        return self.set()["spec"]["template"]["spec"]["containers"][0]["args"]

    def condition(self, key, kind):
        for c in self.api.get("ebpfdumps", key)["status"]["conditions"]:
            if c["type"] == kind:
                return c
        return None

    def state(self, key, kind):
        c = self.condition(key, kind)
        return c["status"] + "/" + c["reason"]

    def ready(self, key="default/web"):
        until("Ready of " + key, lambda: self.state(key, "Ready") == "True/AllNodesReady")

    def events(self):
        return [e["reason"] for e in self.api.objects["events"].values()]

    def quiet(self, seconds):
        """Nothing is written for so long, and a second, once it has settled."""
        start = time.monotonic()

        def still():
            return time.monotonic() - max([start] + [w[0] for w in self.api.writes(events=True)]) > seconds + 1
        until("writes stop", still)


# ---- life of a resource ----


@scenario
def life():
    with Test() as t:
        t.operator()
        t.api.dump("web", interfaces=["lo"])
        t.ready()
        assert "--interface=lo" in t.args(), t.args()
        assert t.state("default/web", "Accepted") == "True/Accepted"
        assert t.state("default/web", "Degraded") == "False/AsExpected"
        status = t.api.get("ebpfdumps", "default/web")["status"]
        assert (status["nodes"], status["readyNodes"], status["observedGeneration"]) == ("2/2", 2, 1), status
        owner = t.set()["metadata"]["ownerReferences"][0]
        assert owner["uid"] == t.api.get("deployments", NS + "/ebpfdump-operator")["metadata"]["uid"]
        # a changed spec is a changed template
        t.api.change("ebpfdumps", "default/web", lambda o: o["spec"].update(interfaces=["eth0"], bodyBytes=0))
        until("new arguments", lambda: "--interface=eth0" in t.args() and "--body-bytes=0" in t.args())
        until("observed", lambda: t.condition("default/web", "Ready")["observedGeneration"] == 2)
        t.ready()
        assert "--interface=lo" not in t.args()
        # and its end is the loaders'
        t.api.delete("ebpfdumps", "default/web")
        until("the DaemonSet goes", lambda: t.set() is None)
        wanted = {"Accepted", "LoaderCreated", "LoaderUpdated", "Ready", "LoaderDeleted"}
        until("events", lambda: not wanted - set(t.events()) or print(wanted - set(t.events())))


@scenario
def steady():
    """A resource that is done is not written again, by no restart either; noise is no cause."""
    with Test() as t:
        o = t.operator()
        t.api.dump("web", resources={"requests": {"cpu": "0.1"}})
        t.ready()
        t.quiet(2)
        assert t.set()["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "100m"
        generation = t.set()["metadata"]["generation"]
        t.api.change("daemonsets", SET, lambda s: s["metadata"]["annotations"].update(noise="1"))
        t.api.change("ebpfdumps", "default/web", lambda s: s["metadata"].setdefault("labels", {}).update(noise="1"))
        t.quiet(1.5)
        o.kill()
        watches = t.api.calls("watch", "daemonsets")
        o.start()
        until("it is back", lambda: t.api.calls("watch", "daemonsets") > watches)
        t.quiet(1)
        assert t.set()["metadata"]["generation"] == generation
        applies = [w for w in t.api.writes() if w[3] == "daemonsets"]
        # the number in another notation costs one patch for each start, and no more
        assert len(applies) <= 2, applies
        assert t.events().count("Ready") == 1, "a restart is no news"


@scenario
def drift():
    with Test() as t:
        t.operator()
        t.api.dump("web")
        t.ready()
        start = time.monotonic()

        def image(s):
            s["spec"]["template"]["spec"]["containers"][0]["image"] = "evil"
        t.api.change("daemonsets", SET, image)
        until("the image is back", lambda: t.set()["spec"]["template"]["spec"]["containers"][0]["image"] == "loader:1", 5)
        t.api.change("daemonsets", SET, lambda s: s["metadata"].update(labels={}))
        until("labels are back", lambda: "app.kubernetes.io/managed-by" in t.set()["metadata"]["labels"], 5)
        # no text where there must be one
        t.api.change("daemonsets", SET, lambda s: s["metadata"]["annotations"].update(dict.fromkeys(s["metadata"]["annotations"])))
        until("annotations are back", lambda: all(t.set()["metadata"]["annotations"].values()), 5)
        uid = t.set()["metadata"]["uid"]
        t.api.delete("daemonsets", SET)
        until("it is back", lambda: t.set()["metadata"]["uid"] != uid, 5)
        assert time.monotonic() - start < 15
        t.ready()


@scenario
def one_of_three():
    with Test() as t:
        o = t.operator()
        # the same second: by name
        for name in ("c", "a", "b"):
            t.api.dump(name, namespace="ns", created=T2, interfaces=[name])
        until("a is accepted", lambda: t.state("ns/a", "Accepted") == "True/Accepted")
        for name in ("b", "c"):
            until(name + " is not", lambda n=name: t.state("ns/" + n, "Accepted") == "False/Conflict")
            assert "ns/a" in t.condition("ns/" + name, "Accepted")["message"]
            assert t.state("ns/" + name, "Ready") == "False/NotAccepted"
        until("its loaders", lambda: "--interface=a" in t.args())
        o.kill()
        t.api.delete("ebpfdumps", "ns/a")
        o.start()
        until("b takes over", lambda: t.state("ns/b", "Accepted") == "True/Accepted" and "--interface=b" in t.args())
        until("c names it", lambda: "ns/b" in t.condition("ns/c", "Accepted")["message"])
        uid = t.set()["metadata"]["uid"]
        # an older one displaces it
        t.api.dump("z", namespace="ns", created=T1, interfaces=["z"])
        until("the older one", lambda: "--interface=z" in t.args() and t.state("ns/b", "Accepted") == "False/Conflict")
        assert t.set()["metadata"]["uid"] == uid, "the DaemonSet is updated in place"
        # one that is being deleted is none
        t.api.change("ebpfdumps", "ns/z", lambda d: d["metadata"].update(deletionTimestamp=T3))
        until("b again", lambda: "--interface=b" in t.args() and t.state("ns/b", "Accepted") == "True/Accepted")
        # and says so, as long as somebody's finalizer keeps it
        until("z goes", lambda: t.state("ns/z", "Accepted") == "False/Deleting" and t.state("ns/z", "Ready") == "False/NotAccepted")


@scenario
def gone_while_down():
    """Alone, or with the CustomResourceDefinition: then no list will ever say so, but that there is none to list."""
    for definition in (True, False):
        with Test() as t:
            o = t.operator()
            t.api.dump("web")
            t.ready()
            o.kill()
            t.api.delete("ebpfdumps", "default/web")
            t.api.crd = definition
            o.start()
            until("the DaemonSet goes", lambda: t.set() is None)
            t.api.crd = True
            t.api.dump("web", interfaces=["back"])
            t.ready()
            assert "--interface=back" in t.args()


@scenario
def gone_while_disconnected():
    with Test() as t:
        t.operator()
        t.api.dump("web")
        t.ready()
        with t.api.lock:
            t.api.delete("ebpfdumps", "default/web")
            t.api.compact()
            for w in t.api.watches:
                w["queue"].queue.clear()
            t.api.cut()
        until("the DaemonSet goes", lambda: t.set() is None)


@scenario
def gone_before_it_was_seen():
    """The DaemonSet is made and deleted while its watch is away: no list ever shows it, and it is made anew."""
    with Test() as t:
        t.operator()
        t.api.dump("first")
        t.ready("default/first")
        t.api.delete("ebpfdumps", "default/first")
        until("the DaemonSet goes", lambda: t.set() is None)
        time.sleep(0.5)
        t.api.fault = lambda verb, resource, key: (lambda h: h.fail(500, "InternalError")) \
            if verb in ("watch", "list") and resource == "daemonsets" else None
        t.api.cut()
        until("its watch is refused", lambda: t.api.calls("watch", "daemonsets") >= 2)
        t.api.dump("web")
        until("it is made", t.set)
        time.sleep(0.3)
        t.api.delete("daemonsets", SET)
        t.api.fault = None
        until("it is made anew", t.set)
        t.ready()


@scenario
def gone_before_its_answer():
    """The DaemonSet is deleted, and the watch tells, before the answer comes that it was made, or changed: it is made anew."""
    with Test() as t:
        late = [1]

        def fault(verb, resource, key):
            if verb != "patch" or resource != "daemonsets" or not late[0]:
                return None
            late[0] -= 1
            return ("late", 0.5)
        t.api.fault = fault
        t.operator()
        t.api.dump("web", interfaces=["a"])
        uid = until("it is made", t.set)["metadata"]["uid"]
        t.api.delete("daemonsets", SET)
        until("it is made anew", lambda: t.set()["metadata"]["uid"] != uid, 5)
        t.ready()
        late[0], uid = 1, t.set()["metadata"]["uid"]
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(interfaces=["b"]))
        until("it is changed", lambda: "--interface=b" in t.args())
        t.api.delete("daemonsets", SET)
        until("it is made anew", lambda: t.set()["metadata"]["uid"] != uid, 5)
        t.ready()


@scenario
def invalid():
    with Test() as t:
        t.operator()
        t.api.dump("web", created=T1, interfaces=["lo"])
        t.ready()
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(bodyBytes=-5))
        until("it is said", lambda: t.state("default/web", "Accepted") == "False/InvalidSpec")
        assert "spec.bodyBytes: -5 is not allowed" in t.condition("default/web", "Accepted")["message"]
        time.sleep(0.5)
        assert "--interface=lo" in t.args(), "what runs goes on"
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(bodyBytes=5))
        until("it is right again", lambda: t.state("default/web", "Accepted") == "True/Accepted" and "--body-bytes=5" in t.args())
        # the next one is invalid: nobody's loaders run for it
        t.api.dump("bad", created=T2, interfaces=["a/b"])
        t.api.delete("ebpfdumps", "default/web")
        until("the loaders go", lambda: t.set() is None)
        until("it is said", lambda: t.state("default/bad", "Accepted") == "False/InvalidSpec")


@scenario
def foreign():
    with Test() as t:
        t.api.put("daemonsets", SET, spec={"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {}}})
        before = t.set()
        t.operator()
        t.api.dump("web")
        until("it is said", lambda: t.state("default/web", "Ready") == "False/NameConflict")
        t.api.delete("ebpfdumps", "default/web")
        time.sleep(1)
        assert t.set()["spec"] == before["spec"] and t.set()["metadata"]["uid"] == before["metadata"]["uid"]
        t.api.dump("web")
        until("it is said", lambda: t.state("default/web", "Ready") == "False/NameConflict")
        t.api.delete("daemonsets", SET)
        t.ready()


@scenario
def selector():
    with Test() as t:
        t.api.put("daemonsets", SET, metadata={"labels": {"app.kubernetes.io/managed-by": "ebpfdump-operator"}},
                  spec={"selector": {"matchLabels": {"old": "one"}}, "template": {"spec": {}}})
        t.operator()
        t.api.dump("web")
        until("it is said", lambda: t.state("default/web", "Ready") == "False/SelectorConflict")
        assert t.set()["spec"]["selector"]["matchLabels"] == {"old": "one"}
        t.api.delete("daemonsets", SET)
        t.ready()


@scenario
def trouble():
    with Test(nodes=None) as t:
        o = t.operator()
        t.api.dump("web")
        until("the DaemonSet", t.set)
        uid = t.set()["metadata"]["uid"]
        # what is looked for is behind the first page
        for n in range(510):
            t.api.put("coreevents", NS + "/a%d" % n, type="Warning", reason="Else", involvedObject={"uid": uid}, message="else")
        t.api.put("coreevents", NS + "/e1", type="Warning", reason="FailedCreate", involvedObject={"uid": uid},
                  message='Error creating: pods "x" is forbidden: violates PodSecurity "baseline:latest"', lastTimestamp=apiserver.now())

        def status(current, ready):
            def fn(s):
                s["status"] = {"observedGeneration": s["metadata"]["generation"], "desiredNumberScheduled": 2,
                               "currentNumberScheduled": current, "updatedNumberScheduled": current,
                               "numberReady": ready, "numberAvailable": ready}
            t.api.change("daemonsets", SET, fn)
        status(0, 0)
        # one node that is new is no refusal: 30 s
        until("it is seen", lambda: t.api.get("ebpfdumps", "default/web")["status"]["nodes"] == "0/2")
        assert t.state("default/web", "Ready") == "False/RolloutInProgress"
        until("the refusal", lambda: t.state("default/web", "Ready") == "False/PodsRejected", 2 * DEADLINE)
        assert "PodSecurity" in t.condition("default/web", "Degraded")["message"]
        until("it is news", lambda: "PodsRejected" in t.events())
        # a restart is not
        o.kill()
        o.start()
        pods = t.api.calls("list", "pods")
        until("it has looked", lambda: t.api.calls("list", "pods") > pods)
        t.quiet(1)
        assert t.state("default/web", "Ready") == "False/PodsRejected" and t.events().count("PodsRejected") == 1
        labels = {"app.kubernetes.io/name": "ebpfdump-operator", "app.kubernetes.io/component": "loader"}
        for n in range(260):
            t.api.put("pods", NS + "/a%d" % n, metadata={"labels": labels}, status={"conditions": [{"type": "Ready", "status": "True"}]})
        t.api.put("pods", NS + "/p1", metadata={"labels": labels}, spec={"nodeName": "n1"}, status={"containerStatuses": [
            {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}]})
        status(2, 1)
        until("the image", lambda: t.state("default/web", "Degraded") == "True/ImagePullFailed")
        assert "n1: no such image" in t.condition("default/web", "Ready")["message"]
        assert t.api.get("ebpfdumps", "default/web")["status"]["nodes"] == "1/2"
        t.api.delete("pods", NS + "/p1")
        status(2, 2)
        t.ready()
        until("events", lambda: {"PodsRejected", "ImagePullFailed", "Ready"} <= set(t.events()))


@scenario
def pod_security():
    """The namespace's label goes: what is there runs on, what is to follow is refused. It comes back, and is history."""
    with Test() as t:
        t.operator()
        t.api.dump("web", interfaces=["a"])
        t.ready()
        t.api.put("coreevents", NS + "/e1", type="Warning", reason="FailedCreate", involvedObject={"uid": t.set()["metadata"]["uid"]},
                  message='Error creating: pods "x" is forbidden: violates PodSecurity "baseline:latest"', lastTimestamp=apiserver.now())
        t.api.play(2, currentNumberScheduled=1, updatedNumberScheduled=0, numberReady=1, numberAvailable=1)
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(interfaces=["b"]))
        until("the refusal", lambda: t.state("default/web", "Ready") == "False/PodsRejected", 2 * DEADLINE)
        assert t.condition("default/web", "Degraded")["message"].startswith("1 of 2 loaders are refused: ")
        assert "PodSecurity" in t.condition("default/web", "Degraded")["message"]
        assert t.api.get("ebpfdumps", "default/web")["status"]["nodes"] == "1/2"
        t.api.play(2)
        t.ready()
        assert t.state("default/web", "Degraded") == "False/AsExpected" and t.state("default/web", "Progressing") == "False/RolloutComplete"


@scenario
def nodes():
    """They come and go, fall silent and are tainted: the status follows, and the DaemonSet is not written for it."""
    with Test() as t:
        t.operator()
        t.api.dump("web")
        t.ready()
        accepted = t.condition("default/web", "Accepted")
        for what, play, ready, progressing, column in (
                ("a new one", (3, {"numberReady": 2, "numberAvailable": 2}), "False/PodsUnavailable", "True/RolloutInProgress", "2/3"),
                ("its loader", (3, {}), "True/AllNodesReady", "False/RolloutComplete", "3/3"),
                ("ready, but not for long enough", (3, {"numberAvailable": 2}), "False/PodsUnavailable", "True/RolloutInProgress", "3/3"),
                ("a silent one", (3, {"numberReady": 1, "numberAvailable": 1}), "False/PodsUnavailable", "True/RolloutInProgress", "1/3"),
                ("which goes", (1, {}), "True/AllNodesReady", "False/RolloutComplete", "1/1"),
                ("a taint", (0, {"numberMisscheduled": 1}), "False/NoMatchingNodes", "False/NoMatchingNodes", "0/0"),
                ("many", (500, {"updatedNumberScheduled": 0}), "False/RolloutInProgress", "True/RolloutInProgress", "500/500"),
                ("all of them", (500, {}), "True/AllNodesReady", "False/RolloutComplete", "500/500")):
            before = t.condition("default/web", "Ready")
            t.api.play(play[0], **play[1])
            until(what, lambda r=ready, p=progressing, c=column: (
                t.state("default/web", "Ready"), t.state("default/web", "Progressing"),
                t.api.get("ebpfdumps", "default/web")["status"]["nodes"]) == (r, p, c))
            after = t.condition("default/web", "Ready")
            assert after["status"] != before["status"] or after["lastTransitionTime"] == before["lastTransitionTime"]
            assert t.state("default/web", "Degraded") == "False/AsExpected"
            if what.endswith("long enough"):
                assert after["message"] == "3 of 3 loaders are ready, 2 of them for long enough (5 s)", after
        assert t.condition("default/web", "Accepted") == accepted
        assert len([w for w in t.api.writes() if w[3] == "daemonsets"]) == 1


@scenario
def callback():
    """The loaders' key is made once, and what is secret is mounted: it is in no argument."""
    with Test() as t:
        o = t.operator()
        t.api.dump("web", callback="http://x.y/", callbackSecretRef={"name": "mine", "hmacKey": "h"})
        t.ready()
        key = t.api.get("secrets", NS + "/ebpfdump-marker-key")["stringData"]["key"]
        assert len(key) == 64 and key not in json.dumps(t.set()) and key not in "\n".join(o.log)
        assert "--callback-hmac-file=/etc/ebpfdump/callback/hmac" in t.args()
        assert "--marker-key-file=/etc/ebpfdump/marker/key" in t.args()
        volumes = {v["name"]: v for v in t.set()["spec"]["template"]["spec"]["volumes"]}
        assert volumes["callback"]["secret"]["secretName"] == "mine"
        o.kill()
        o.start()
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(callback="http://z/"))
        until("the change", lambda: "--callback=http://z/" in t.args())
        assert t.api.get("secrets", NS + "/ebpfdump-marker-key")["stringData"]["key"] == key
        assert t.api.calls("create", "secrets") == 1


# ---- faults ----


# a machine that stalls for some seconds costs nobody the lease
LEASE_FLAGS = ("--lease-duration=9s", "--renew-deadline=6s", "--retry-period=300ms")
SHORT_LEASE = ("--lease-duration=1s", "--renew-deadline=800ms", "--retry-period=150ms")


def outcome(api):
    """What it came to, without what is another each time."""
    with api.lock:
        sets = copy.deepcopy(api.objects["daemonsets"])
        dumps = copy.deepcopy(api.objects["ebpfdumps"])
    text = json.dumps([[(k, o["spec"], o["metadata"]["annotations"].get("research.dynatrace.com/intent"))
                        for k, o in sorted(sets.items())],
                       [(k, sorted((c["type"], c["status"], c["reason"], c["message"]) for c in
                                   o.get("status", {}).get("conditions", []))) for k, o in sorted(dumps.items())]],
                      sort_keys=True)
    return re.sub(r'"[0-9a-f]{16}"', '"hash"', text)


class Life:
    """A short one, from nothing to loaders, to another's, to none, to its own end.

    At one call (a phase, a verb, a resource, and which of them) it is killed just before or just after, or told to end while the
    server has not begun with it ("slow") or has not answered ("late"). Whenever it is gone it is started again.
    """

    def __init__(self, leader, point=None, how=None, lease=None):
        self.point, self.how, self.leader = point, how, leader
        self.phase, self.seen, self.ends = "begin", {}, 0
        self.started, self.hit = threading.Event(), threading.Event()
        with Test() as t:
            self.test = t
            if lease:
                t.api.put("leases", LEASE, spec=lease)
            for n, name in enumerate(("one", "two")):
                t.api.dump(name, created=(T1, T2)[n], interfaces=[name], **({"callback": "http://x.y/"} if leader else {}))
            t.api.fault = self.fault
            # one that is killed keeps the lease for its time; one that is told to end does not
            self.operator = t.operator(*(SHORT_LEASE if how in ("before", "after") else LEASE_FLAGS), leader=leader)
            self.started.set()
            self.live(t)

    def fault(self, verb, resource, key):
        what = (self.phase, verb, resource)  # with "/status", where it is of that
        self.seen[what] = self.seen.get(what, 0) + 1
        if (*what, self.seen[what]) != self.point or self.hit.is_set():
            return None
        self.started.wait(DEADLINE)
        self.operator.process.send_signal(signal.SIGKILL if self.how in ("before", "after") else signal.SIGTERM)
        self.hit.set()
        return self.how if self.how in ("before", "after") else (self.how, 0.15)

    def ended(self, code):
        """How it ended when it was told to: with status 0, without the lease, and the lease was the last that it wrote."""
        if self.how not in ("slow", "late"):
            # a machine that stalls takes the lease away: then it says so
            assert code == -signal.SIGKILL or "not the leader" in "".join(self.operator.log), self.operator.log
            return
        assert code == 0, (code, self.operator.log)
        api = self.test.api
        writes = api.writes(leases=True, events=True)
        time.sleep(0.2)
        assert api.writes(leases=True, events=True) == writes, "something came behind its end"
        lease = api.get("leases", LEASE)
        assert self.leader or not lease
        if lease:
            assert lease["spec"]["holderIdentity"] == "", lease
            assert not writes or writes[-1][3] == "leases", writes[-3:]

    def until(self, what, fn):
        """Starts it again whenever it has ended."""
        end = time.monotonic() + DEADLINE
        while True:
            code = self.operator.process.poll()
            if code is not None:
                self.ended(code)
                self.ends += 1
                self.operator.start()
            try:
                # what it was told to do at the point has an end as well
                if fn() and (self.ends or not self.hit.is_set()):
                    return
            except (KeyError, TypeError):
                pass
            assert time.monotonic() < end, what
            time.sleep(0.01)

    def come(self, what, fn):
        """The phase is over when fn is true and all calls of it have been made, its point among them."""
        self.until(what, fn)
        if self.point and self.point[0] == self.phase and not self.hit.is_set():
            end = time.monotonic() + 3
            self.until("the point", lambda: self.hit.is_set() or time.monotonic() > end)
            self.until(what, fn)
        elif not self.point:
            time.sleep(0.5)

    def live(self, t):
        def renewed():
            return not self.leader or self.seen.get(("begin", "update", "leases"), 0) >= 2
        self.come("both are there", lambda: t.state("default/one", "Ready") == "True/AllNodesReady" and
                  t.state("default/two", "Accepted") == "False/Conflict" and renewed())
        self.phase = "change"
        t.api.delete("ebpfdumps", "default/one")
        self.come("two takes over", lambda: t.state("default/two", "Ready") == "True/AllNodesReady" and "--interface=two" in t.args())
        self.outcome = outcome(t.api)
        self.phase = "gone"
        t.api.delete("ebpfdumps", "default/two")
        self.come("all gone", lambda: t.set() is None)
        self.phase = "end"
        self.end(t)
        # one key for all loaders, for ever
        keys = [h for h in t.api.history if h[1] == "secrets"]
        assert [h[2] for h in keys] == (["ADDED"] if self.leader else []), keys

    def end(self, t):
        while True:
            self.until("it is up", lambda: any(line.endswith(" leading" if self.leader else "loader:1") for line in self.operator.log))
            code = self.operator.kill(signal.SIGTERM)
            if code == 0:
                break
            self.ended(code)
            self.ends += 1
            self.operator.start()
        assert not self.leader or t.api.get("leases", LEASE)["spec"]["holderIdentity"] == ""


def at_every_call(leader, hows):
    """The same comes of it, whatever is done to it at whichever call."""
    usual = Life(leader)
    points = [(point, how, None) for what, n in sorted(usual.seen.items()) for point in [(*what, i + 1) for i in range(n)] for how in hows
              # a lease is renewed again and again; a watch is not answered at once anyway; to be told to end twice is another matter
              if not (what[2] == "leases" and what[0] != "end" and (what[0] != "begin" or point[3] > 2))
              and not (what[1] == "watch" and how in ("after", "late"))
              and not (what[0] == "end" and how in ("slow", "late"))]
    if leader:
        # one that is there already is taken by an update
        there = {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": "2026-01-01T00:00:00.000000Z",
                 "renewTime": "2026-01-01T00:00:00.000000Z", "leaseTransitions": 3}
        points += [(("begin", verb, "leases", 1), how, there) for verb in ("get", "update") for how in hows]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        lives = list(pool.map(lambda p: Life(leader, *p), points))
    for point, life in zip(points, lives):
        assert life.outcome == usual.outcome, "%s: %s instead of %s" % (point, life.outcome, usual.outcome)
    # how often something is asked is a matter of timing, at the end
    missed = [p for p, life in zip(points, lives) if not life.hit.is_set()]
    assert len(missed) <= len(points) // 10, missed
    return {p[0][1:3] for p in points}


@scenario
def crash_points():
    at_every_call(False, ("before", "after"))


@scenario
def crash_points_of_a_leader():
    """With its lease, and with the key that the loaders share: that is made once."""
    what = at_every_call(True, ("before", "after"))
    assert {("get", "leases"), ("create", "leases"), ("update", "leases"), ("get", "secrets"), ("create", "secrets"), ("create", "events"),
            ("patch", "daemonsets"), ("delete", "daemonsets"), ("patch", "ebpfdumps/status"), ("watch", "ebpfdumps")} <= what, what


@scenario
def ends_at_every_call():
    at_every_call(True, ("slow", "late"))


@scenario
def stale_cache():
    """The cache does not know of the new one: the loaders stay."""
    with Test() as t:
        t.operator()
        t.api.dump("one", created=T1)
        t.ready("default/one")
        with t.api.lock:
            t.api.delete("ebpfdumps", "default/one")
            t.api.frozen = True
            t.api.dump("two", created=T2)
        uid = t.set()["metadata"]["uid"]
        before = t.api.calls("list", "ebpfdumps")
        until("it asks", lambda: t.api.calls("list", "ebpfdumps") > before)
        time.sleep(1.5)
        assert t.set()["metadata"]["uid"] == uid and t.api.calls("delete", "daemonsets") == 0
        t.api.frozen = False
        t.api.cut()
        t.ready("default/two")
        assert t.set()["metadata"]["uid"] == uid


@scenario
def crd_gone_and_back():
    with Test() as t:
        t.api.crd = False
        o = t.operator()
        time.sleep(1)
        assert o.process.poll() is None
        t.api.crd = True
        t.api.dump("web")
        t.ready()
        with t.api.lock:
            t.api.delete("ebpfdumps", "default/web")
            t.api.crd = False
            t.api.cut()
        until("the loaders go with it", lambda: t.set() is None)
        time.sleep(1)
        t.api.crd = True
        t.api.dump("web", interfaces=["new"])
        until("it is back", lambda: "--interface=new" in t.args())
        t.ready()
        assert o.process.poll() is None


@scenario
def storm_of_410():
    with Test() as t:
        o = t.operator()
        t.api.dump("web", interfaces=["a"])
        t.ready()
        for n in range(5):
            t.api.change("ebpfdumps", "default/web", lambda d, n=n: d["spec"].update(interfaces=["i%d" % n]))
            t.api.compact()
            t.api.cut()
            time.sleep(0.2)
        until("the last one", lambda: "--interface=i4" in t.args())
        t.ready()
        assert o.process.poll() is None


@scenario
def server_away():
    """What the proxy says while the API server is not there, then 429 and 500 for writes."""
    with Test() as t:
        o = t.operator()
        t.api.dump("web", interfaces=["a"])
        t.ready()
        t.api.down = True
        t.api.cut()
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(interfaces=["b"]))
        time.sleep(3)
        assert o.process.poll() is None
        t.api.down = False
        until("it comes back", lambda: "--interface=b" in t.args())
        refused = [0]

        def fault(verb, resource, key):
            if verb != "patch" or refused[0] >= 4:
                return None
            refused[0] += 1
            code = (429, 500, 503, 429)[refused[0] - 1]
            return lambda h: h.fail(code, "TooManyRequests", headers=[("Retry-After", "1")] if code == 429 else [])
        t.api.fault = fault
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(interfaces=["c"]))
        until("through all that", lambda: "--interface=c" in t.args())
        assert refused[0] == 4


@scenario
def forbidden():
    with Test() as t:
        t.api.fault = lambda verb, resource, key: (lambda h: h.fail(403, "Forbidden", "not yours")) \
            if verb == "patch" and resource == "daemonsets" else None
        t.operator()
        t.api.dump("web")
        until("it is said", lambda: t.state("default/web", "Ready") == "False/ApplyFailed")
        assert "not yours" in t.condition("default/web", "Degraded")["message"]
        t.api.fault = None
        t.ready()


def terminating(h):
    h.fail(403, "Forbidden", "because it is being terminated", causes=[{"reason": "NamespaceTerminating", "field": "metadata.namespace"}])


@scenario
def namespaces_that_end():
    """Those of EbpfDumps, then the operator's own: nobody is asked at full speed, it is said, and the others do not wait."""
    with Test() as t:
        def fault(verb, resource, key):
            if resource == "ebpfdumps/status":
                return {"g403": terminating, "g404": lambda h: h.fail(404, "NotFound"),
                        "g409": lambda h: h.fail(409, "Conflict")}.get(key.split("/")[0])
            return terminating if resource == "events" and key.startswith("g") else None
        t.api.fault = fault
        o = t.operator()
        for n, name in enumerate(("g403", "g404", "g409", "default")):
            t.api.dump("web", namespace=name, created=(T1, T2, T3, T3)[n], interfaces=[name])
        until("the loaders", lambda: "--interface=g403" in t.args())
        until("the other", lambda: t.state("default/web", "Accepted") == "False/Conflict")
        time.sleep(3)
        tries = {n: len([c for c in t.api.log if c[3] == "ebpfdumps/status" and c[4] == n + "/web"]) for n in ("g403", "g404", "g409", "default")}
        # 5, 10, 20 ms and so on
        assert 3 <= tries["g403"] <= 14 and 3 <= tries["g409"] <= 14 and tries["g404"] <= 4 and tries["default"] <= 3, tries
        assert any("g403/web" in line and "being terminated" in line for line in o.log), o.log
        assert not any("kube: event" in line for line in o.log), "that no event is taken there is no news"
        for name in ("g403", "g404", "g409"):
            t.api.delete("ebpfdumps", name + "/web")
        t.ready()
        assert "--interface=default" in t.args()
    with Test() as t:
        own = {"leases", "daemonsets", "secrets", "events"}
        t.api.fault = lambda verb, resource, key: terminating if verb in ("create", "patch") and resource in own and key.startswith(NS) else None
        start = time.monotonic()
        o = t.operator(*LEASE_FLAGS, leader=True)
        t.api.dump("web", created=T1, callback="http://x/")
        t.api.dump("other", created=T2)
        until("it tries", lambda: t.api.calls("create", "leases") >= 3)
        time.sleep(1)
        with t.api.lock:
            tries = t.api.calls("create", "leases")
            assert tries <= 1 + (time.monotonic() - start) / 0.3 and len(t.api.writes(leases=True, events=True)) == tries
        for resource, says in (("leases", "The Secret"), ("secrets", "The DaemonSet")):
            own.remove(resource)
            until("it is said", lambda w=says: t.state("default/web", "Ready") == "False/ApplyFailed" and
                  t.condition("default/web", "Degraded")["message"].startswith(w))
            assert "being terminated" in t.condition("default/web", "Ready")["message"]
        until("the other", lambda: t.state("default/other", "Accepted") == "False/Conflict")
        before = t.api.calls("patch", "daemonsets")
        time.sleep(2)
        # 5, 10, 20 ms and so on: 12 of them take 20 s
        assert t.api.calls("patch", "daemonsets") - before <= 12, t.api.calls("patch", "daemonsets")
        assert o.process.poll() is None
        own.clear()
        t.ready()


@scenario
def token_expired():
    """401 to everything, for less than the lease lasts: nothing is lost, and then it goes on."""
    with Test() as t:
        o = t.operator("--lease-duration=15s", "--renew-deadline=12s", "--retry-period=500ms", leader=True)
        t.api.dump("web", interfaces=["a"])
        t.ready()
        start = len(t.api.log)
        t.api.fault = lambda verb, resource, key: lambda h: h.fail(401, "Unauthorized")
        t.api.cut()
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(interfaces=["b"]))
        t.api.delete("daemonsets", SET)
        time.sleep(3)
        tries = {r: len([c for c in t.api.log[start:] if c[3] == r]) for r in ("ebpfdumps", "daemonsets", "leases")}
        assert all(2 <= n <= 20 for n in tries.values()), tries
        t.api.fault = None
        until("it goes on", lambda: "--interface=b" in t.args())
        t.ready()
        assert o.process.poll() is None and t.api.get("leases", LEASE)["spec"]["leaseTransitions"] == 0


@scenario
def storms():
    """EbpfDumps come, change and go at random, watches are cut, requests fail before or after, it is killed: what it comes to
    follows from what is there, and then it is quiet."""
    def refusal(code, reason):
        return lambda h: h.fail(code, reason)

    def storm(seed):
        rng, failing = random.Random(seed), [True]
        # watches that fail are made anew ever later: few
        left = {"watch": 2, "list": 1, "cut": 3, "kill": 2}

        def fault(verb, resource, key):
            if not failing[0] or rng.random() > 0.15:
                return None
            if verb in ("watch", "list"):
                left[verb] -= 1
                return rng.choice((refusal(410, "Expired"), refusal(500, "InternalError"), "before")) if left[verb] >= 0 else None
            return rng.choice(("before", "after", refusal(409, "Conflict"), refusal(503, "ServiceUnavailable"), ("late", 0.1)))

        def happen(t, o):
            keys, r = list(t.api.objects["ebpfdumps"]), rng.random()
            with t.api.lock:
                if not keys or r < 0.35:
                    name = "d%d" % rng.randrange(8)
                    t.api.dump(name, namespace="ns%d" % rng.randrange(2), created=rng.choice((T1, T2, T3)), interfaces=["i%d" % rng.randrange(9)])
                elif r < 0.6:
                    t.api.change("ebpfdumps", rng.choice(keys), lambda d: d["spec"].update(interfaces=["i%d" % rng.randrange(9)]))
                elif r < 0.85:
                    t.api.delete("ebpfdumps", rng.choice(keys))
                elif t.set() and r < 0.9:
                    t.api.delete("daemonsets", SET)
                elif t.set() and r < 0.95:
                    t.api.change("daemonsets", SET, lambda s: s["spec"]["template"]["spec"]["containers"][0].update(image="evil"))
                elif left["cut"] > 0:
                    left["cut"] -= 1
                    # some of what happened meanwhile is never told
                    for w in t.api.watches:
                        w["queue"].queue.clear()
                    if rng.random() < 0.5:
                        t.api.compact()
                    t.api.cut()
            if rng.random() < 0.03 and left["kill"] > 0:
                left["kill"] -= 1
                o.kill()
                o.start()

        def as_it_should(t):
            with t.api.lock:
                dumps = copy.deepcopy(t.api.objects["ebpfdumps"])
            if not dumps:
                return t.set() is None
            winner = min(dumps, key=lambda k: (dumps[k]["metadata"]["creationTimestamp"], k))
            accepted = t.condition(winner, "Accepted")
            return (t.state(winner, "Ready") == "True/AllNodesReady" and accepted["status"] == "True"
                    and accepted["observedGeneration"] == dumps[winner]["metadata"]["generation"]
                    and "--interface=" + dumps[winner]["spec"]["interfaces"][0] in t.args()
                    and t.set()["spec"]["template"]["spec"]["containers"][0]["image"] == "loader:1"
                    and all(t.state(k, "Accepted") == "False/Conflict" and winner in t.condition(k, "Accepted")["message"]
                            for k in dumps if k != winner))
        with Test() as t:
            o = t.operator()
            t.api.fault = fault
            for _ in range(80):
                happen(t, o)
                time.sleep(rng.random() * 0.05)
            failing[0] = False
            until("what it comes to, with seed %d" % seed, lambda: as_it_should(t), 2 * DEADLINE)
            t.quiet(0.5)
            assert o.process.poll() is None and as_it_should(t)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(storm, range(6)))


@scenario
def a_webhook_that_fails():
    """Its 500 may be over the next time; if it is not, it is said, and not only in the log."""
    with Test() as t:
        t.operator()
        t.api.dump("web")
        t.ready()
        t.api.fault = lambda verb, resource, key: (lambda h: h.fail(500, "InternalError", "failed calling webhook")) \
            if verb == "patch" and resource == "daemonsets" else None
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(interfaces=["b"]))
        until("it is said", lambda: t.state("default/web", "Ready") == "False/ApplyFailed")
        assert "failed calling webhook" in t.condition("default/web", "Degraded")["message"]
        # the loaders run on, and are counted; with the present spec there is none
        status = t.api.get("ebpfdumps", "default/web")["status"]
        assert (status["nodes"], status["readyNodes"], status["updatedNodes"]) == ("2/2", 2, 0), status
        t.api.fault = None
        until("and over", lambda: "--interface=b" in t.args())
        t.ready()


@scenario
def back_after_long():
    """What waits after many failures waits no longer than the API server is away, though no list is needed."""
    with Test() as t:
        t.operator()
        t.api.dump("web")
        t.ready()
        t.api.fault = lambda verb, resource, key: (lambda h: h.fail(500, "InternalError")) if verb == "patch" else None
        calls = t.api.calls("patch", "daemonsets")
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(interfaces=["b"]))
        # 5 ms, 10 ms... 20 s: the next try would be in 20 s
        until("it waits long", lambda: t.api.calls("patch", "daemonsets") >= calls + 13, 2 * DEADLINE)
        lists = t.api.calls("list", "ebpfdumps")
        t.api.down = True
        t.api.fault = None
        t.api.cut()
        time.sleep(0.5)
        t.api.down = False
        until("it is tried at once", lambda: "--interface=b" in t.args(), 12)
        assert t.api.calls("list", "ebpfdumps") == lists


@scenario
def garbage():
    """A watch that speaks nonsense is begun anew."""
    with Test() as t:
        o = t.operator()
        t.api.dump("web", interfaces=["a"])
        t.ready()
        for raw in (b"{\"type\":\"MODIFIED\",\"object\":{", b"nonsense\n", b"{\"type\":\"WHAT\",\"object\":{}}\n", b"\xff\xfe{}\n",
                    b"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":500,\"reason\":\"InternalError\"}}\n"):
            with t.api.lock:
                for w in t.api.watches:
                    w["queue"].put(("raw", raw))
                    w["queue"].put(("cut", None))
            time.sleep(0.3)
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(interfaces=["b"]))
        until("it goes on", lambda: "--interface=b" in t.args())
        assert o.process.poll() is None


@scenario
def many():
    """A hundred in fifty namespaces at once: one wins, and it does not wait for the others' statuses."""
    with Test() as t:
        t.operator()
        for n in range(100):
            t.api.dump("d%02d" % n, namespace="ns%02d" % (n % 50), created=T2 if n else T1, interfaces=["w%d" % n])
        until("the winner", lambda: t.state("ns00/d00", "Ready") == "True/AllNodesReady", 15)
        t.api.delete("daemonsets", SET)
        until("drift", t.set, 10)
        until("all know", lambda: all(t.state(k, "Accepted") == "False/Conflict" for k in list(t.api.objects["ebpfdumps"])
                                      if k != "ns00/d00"))
        writes = [w for w in t.api.writes() if w[3] == "ebpfdumps/status" and not w[4].endswith("d00")]
        assert len(writes) == 99, len(writes)


# ---- several operators ----


@scenario
def two_operators():
    with Test() as t:
        other = t.api.listen()
        a = t.operator(*LEASE_FLAGS, leader=True, name="op-a")
        until("a leads", lambda: t.api.get("leases", LEASE)["spec"]["holderIdentity"].startswith("op-a"))
        b = t.operator(*LEASE_FLAGS, leader=True, name="op-b", port=other)
        t.api.dump("web")
        t.ready()
        time.sleep(1)
        assert not t.api.writes(port=other, leases=True, events=True), "a standby writes nothing"
        # the leader is paused: the other takes over, and nothing is written by the one that wakes up
        a.process.send_signal(signal.SIGSTOP)
        until("b leads", lambda: t.api.get("leases", LEASE)["spec"]["holderIdentity"].startswith("op-b"))
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(interfaces=["b"]))
        until("b acts", lambda: "--interface=b" in t.args())
        start = time.monotonic()
        a.process.send_signal(signal.SIGCONT)
        assert a.process.wait(DEADLINE) == 1, "it was the leader, and says so"
        assert not t.api.writes(since=start, port=t.api.port)
        assert b.process.poll() is None


@scenario
def slow_api():
    """Each answer takes half of the renew deadline, as 5 s of 10 s: slowly it comes to what it should, under one lease."""
    with Test() as t:
        t.api.fault = lambda verb, resource, key: ("slow", 2)
        o = t.operator("--lease-duration=16s", "--renew-deadline=4s", "--retry-period=500ms", leader=True)
        t.api.dump("web", interfaces=["a"], callback="http://x/")
        until("Ready", lambda: t.state("default/web", "Ready") == "True/AllNodesReady", 2 * DEADLINE)
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(interfaces=["b"]))
        until("the change", lambda: "--interface=b" in t.args())
        until("its status", lambda: t.condition("default/web", "Ready")["observedGeneration"] == 2, 2 * DEADLINE)
        assert o.process.poll() is None and t.api.get("leases", LEASE)["spec"]["leaseTransitions"] == 0
        assert t.api.calls("create", "leases") == 1 and t.api.calls("create", "secrets") == 1
        assert o.kill(signal.SIGTERM) == 0, o.log


@scenario
def clocks_that_jump():
    """The leader's and the standby's, by hours and back: the lease stays where it is and is renewed, and all goes on."""
    library = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    assert library, "Debian's package faketime is needed"

    def seconds(text, form="%Y-%m-%dT%H:%M:%SZ"):
        return datetime.datetime.strptime(text, form).replace(tzinfo=datetime.timezone.utc).timestamp()
    with Test() as t, tempfile.TemporaryDirectory() as folder:
        other = t.api.listen()

        def jump(name, offset):
            with open(folder + "/new", "w", encoding="ascii") as f:
                f.write("%+ds\n" % offset)
            os.rename(folder + "/new", folder + "/" + name)

        def start(name, port):
            jump(name, 0)
            return t.operator(*LEASE_FLAGS, leader=True, name=name, port=port, env={
                "LD_PRELOAD": library[0], "FAKETIME_TIMESTAMP_FILE": folder + "/" + name, "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1", "ASAN_OPTIONS": "verify_asan_link_order=0"})

        def lease():
            return t.api.get("leases", LEASE)["spec"]
        a = start("op-a", t.api.port)
        until("a leads", lambda: lease()["holderIdentity"].startswith("op-a"))
        b = start("op-b", other)
        t.api.dump("web")
        t.ready()
        until("b stands by", lambda: any("held by op-a" in line for line in b.log))
        for n, (of_a, of_b) in enumerate(((3600, 0), (-3600, 3600), (3600, -3600), (0, 3600))):
            jump("op-a", of_a)
            jump("op-b", of_b)
            t.api.play(2, numberReady=n % 2, numberAvailable=n % 2)
            until("a watches", lambda: t.state("default/web", "Ready") == "False/PodsUnavailable")
            since = t.condition("default/web", "Ready")["lastTransitionTime"]
            assert abs(seconds(since) - time.time() - of_a) < DEADLINE, (since, of_a)
            t.api.change("ebpfdumps", "default/web", lambda d, n=n: d["spec"].update(interfaces=["i%d" % n]))
            until("a acts", lambda n=n: "--interface=i%d" % n in t.args())
            t.api.play(2)
            t.ready()
            # for as long as others wait for one that is silent
            end = time.monotonic() + (9.5 if n == 1 else 0.5)
            while time.monotonic() < end:
                before = lease()["renewTime"]
                until("it is renewed", lambda x=before: lease()["renewTime"] != x, 5)
            assert abs(seconds(lease()["renewTime"], "%Y-%m-%dT%H:%M:%S.%fZ") - time.time() - of_a) < DEADLINE, lease()
        assert a.process.poll() is None and b.process.poll() is None
        assert lease()["holderIdentity"].startswith("op-a") and lease()["leaseTransitions"] == 0
        assert not t.api.writes(port=other, leases=True, events=True), "a standby writes nothing"
        # the leader's last word is of another time than the standby's
        a.kill()
        until("b leads", lambda: lease()["holderIdentity"].startswith("op-b"), 20)
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(interfaces=["b"]))
        until("b acts", lambda: "--interface=b" in t.args())


@scenario
def ends_well():
    """SIGTERM: status 0, the lease is given up, the loaders stay; the successor comes at once."""
    with Test() as t:
        a = t.operator(*LEASE_FLAGS, leader=True, name="op-a")
        t.api.dump("web")
        t.ready()
        assert a.kill(signal.SIGTERM) == 0, a.log
        assert t.api.get("leases", LEASE)["spec"]["holderIdentity"] == ""
        assert t.set()
        notes = [e["note"] for e in t.api.objects["events"].values() if e["reason"] == "LeaderElection"]
        assert sorted(notes) == ["op-a became leader", "op-a stopped leading"], notes
        start = time.monotonic()
        t.operator(*LEASE_FLAGS, leader=True, name="op-b")
        until("the successor", lambda: t.api.get("leases", LEASE)["spec"]["holderIdentity"].startswith("op-b"))
        assert time.monotonic() - start < 8, "it waited for the lease to run out"
        t.quiet(1)


@scenario
def ends_in_the_middle():
    """SIGTERM while a request is slow; twice: at once."""
    with Test() as t:
        t.api.fault = lambda verb, resource, key: ("slow", 1.5) if verb == "patch" and resource == "daemonsets" else None
        o = t.operator()
        t.api.dump("web")
        until("it applies", lambda: t.api.calls("patch", "daemonsets"))
        assert o.kill(signal.SIGTERM) == 0
        assert t.set(), "what was under way came to its end"
        t.api.fault = lambda verb, resource, key: ("slow", 20) if verb == "patch" else None
        before = t.api.calls("patch", "daemonsets")
        o.start()
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(interfaces=["b"]))
        until("it applies", lambda: t.api.calls("patch", "daemonsets") > before)
        o.process.send_signal(signal.SIGTERM)
        # two that wait are one
        until("the first is taken", lambda: any("terminated: finishing" in line for line in o.log))
        assert o.kill(signal.SIGTERM) == 1


@scenario
def ends_with_a_request_that_hangs():
    """The lease is given up only when nothing is under way any more: else the next leader writes beside it."""
    with Test() as t:
        held, states = [], []

        def fault(verb, resource, key):
            if verb == "patch" and resource == "daemonsets":
                def hang(h):
                    held.append(h.connection)
                    time.sleep(20)
                    raise apiserver.Cut
                return hang
            if verb == "update" and resource == "leases" and held:
                try:
                    states.append("closed" if held[0].recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"" else "data")
                except BlockingIOError:
                    states.append("open")
            return None
        t.api.fault = fault
        o = t.operator(*LEASE_FLAGS, leader=True)
        t.api.dump("web")
        until("it applies", lambda: held)
        assert o.kill(signal.SIGTERM) == 0, o.log
        assert t.api.get("leases", LEASE)["spec"]["holderIdentity"] == "", "the lease is given up"
        assert states[-1] == "closed", states


@scenario
def ends_without_the_lease():
    """A standby, one whose API server is away, one whose proxy is not up: status 0, and nothing is written."""
    with Test() as t:
        other = t.api.listen()
        a = t.operator(*LEASE_FLAGS, leader=True, name="op-a")
        t.api.dump("web")
        t.ready()
        b = t.operator(*LEASE_FLAGS, leader=True, name="op-b", port=other)
        until("b stands by", lambda: any("held by op-a" in line for line in b.log))
        assert b.kill(signal.SIGTERM) == 0, b.log
        assert not t.api.writes(port=other, leases=True, events=True)
        assert a.process.poll() is None and t.api.get("leases", LEASE)["spec"]["holderIdentity"].startswith("op-a")
        # the leader cannot give it up: nobody is there to take it
        t.api.down = True
        assert a.kill(signal.SIGTERM) == 0, a.log
        t.api.down = False
    with Test() as t, tempfile.TemporaryDirectory() as folder:
        with open(folder + "/kubectl", "w", encoding="ascii") as f:
            f.write("#!/bin/sh\nexec sleep 1000\n")
        os.chmod(folder + "/kubectl", 0o755)
        o = t.operator("--kubectl=" + folder + "/kubectl", "--proxy-socket=" + folder + "/kube.sock", leader=True, proxy=True)
        until("it waits", lambda: any("loader:1" in line for line in o.log))
        child = until("the proxy", lambda: children(o.process.pid))[0]
        assert o.kill(signal.SIGTERM) == 0, o.log
        assert not os.path.exists("/proc/%d" % child) and not t.api.log


# ---- kubectl proxy ----


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid), encoding="ascii") as f:
        return [int(p) for p in f.read().split()]


def behind_kubectl(t, folder):
    """Flags for a real kubectl proxy to the server."""
    with open(folder + "/kubeconfig", "w", encoding="ascii") as f:
        json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "x",
                   "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:%d" % t.api.port}}],
                   "contexts": [{"name": "x", "context": {"cluster": "x", "user": ""}}]}, f)
    return "--kubeconfig=" + folder + "/kubeconfig", "--proxy-socket=" + folder + "/kube.sock"


def ask(port, path):
    """Once more where the loop had no time for it, as on a machine that stalls."""
    for _ in range(10):
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d%s" % (port, path), timeout=DEADLINE) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            answer = e.code, e.read().decode()
        if answer[1] != "the event loop does not answer\n":
            break
    return answer


@scenario
def proxy():
    """A real kubectl proxy between them: killed, stopped, and gone with the operator."""
    with Test() as t, tempfile.TemporaryDirectory() as folder:
        o = t.operator(*behind_kubectl(t, folder), *LEASE_FLAGS, leader=True, proxy=True)
        t.api.dump("web", interfaces=["a"])
        t.ready()
        first = until("kubectl", lambda: children(o.process.pid))[0]
        lists = t.api.calls("list", "ebpfdumps")
        os.kill(first, signal.SIGKILL)
        t.api.change("ebpfdumps", "default/web", lambda d: d["spec"].update(interfaces=["b"]))
        until("it goes on", lambda: "--interface=b" in t.args())
        assert t.api.calls("list", "ebpfdumps") == lists, "from where it was: no new list"
        second = children(o.process.pid)[0]
        assert second != first and o.process.poll() is None
        # all that it asks for is let through, events too, and nothing else is
        until("events", lambda: "LoaderUpdated" in t.events())
        assert not [line for line in o.log if "filtered" in line], o.log
        r = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", folder + "/kube.sock",
                            "http://localhost/api/v1/namespaces/%s/secrets/other" % NS], capture_output=True, text=True, check=True)
        assert r.stdout == "403", r.stdout
        assert o.kill(signal.SIGTERM) == 0, o.log
        assert t.api.get("leases", LEASE)["spec"]["holderIdentity"] == "", "the proxy went last"
        assert not os.path.exists("/proc/%d" % second)


@scenario
def proxy_that_hangs():
    """Stopped for good: a leader ends for want of its lease, and takes the proxy with it; else it is replaced, by and by."""
    with Test() as t, tempfile.TemporaryDirectory() as folder:
        o = t.operator(*behind_kubectl(t, folder), *LEASE_FLAGS, leader=True, proxy=True)
        t.api.dump("web")
        t.ready()
        child = children(o.process.pid)[0]
        os.kill(child, signal.SIGSTOP)
        assert o.process.wait(DEADLINE) == 1 and any("not the leader any more" in line for line in o.log), o.log
        assert not os.path.exists("/proc/%d" % child)
        t.api.delete("daemonsets", SET)
        port = free_port()
        o = t.operator(*behind_kubectl(t, folder), "--listen=127.0.0.1:%d" % port, proxy=True)
        until("it begins where the first one ended", t.set)
        until("it is ready", lambda: ask(port, "/readyz")[0] == 200)
        child = children(o.process.pid)[0]
        os.kill(child, signal.SIGSTOP)
        t.api.delete("daemonsets", SET)

        # three times it does not answer; a restart of the operator would be no help
        def replaced():
            assert ask(port, "/livez")[0] == 200 and o.process.poll() is None
            return [c for c in children(o.process.pid) if c != child] and not os.path.exists("/proc/%d" % child)
        until("another proxy", replaced, 45 + DEADLINE)
        until("it goes on", t.set)
        t.ready()
        until("it is ready", lambda: ask(port, "/readyz")[0] == 200)
        assert o.kill(signal.SIGTERM) == 0, o.log


# ---- telemetry, flags ----


@scenario
def telemetry():
    with Test() as t:
        port = free_port()
        o = t.operator("--listen=127.0.0.1:%d" % port)
        until("ready", lambda: ask(port, "/readyz") == (200, "ready: leader\n"))
        t.api.dump("web")
        t.ready()
        assert ask(port, "/livez") == (200, "ok\n") and ask(port, "/healthz") == (200, "ok\n")
        status, text = ask(port, "/metrics")
        assert status == 200
        for line in ("ebpfdump_operator_leader 1", "ebpfdump_operator_nodes_ready 2",
                     'ebpfdump_operator_actions_total{action="apply"} 1',
                     'ebpfdump_operator_cache_objects{resource="ebpfdumps"} 1'):
            assert line + "\n" in text, line
        assert re.search(r'api_requests_total\{verb="apply",resource="daemonsets",code="201"\} 1', text), text
        check = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False)
        assert check.returncode == 0, check.stdout + check.stderr
        # without an EbpfDump no node is without its loader
        t.api.delete("ebpfdumps", "default/web")
        until("none is wanted", lambda: "ebpfdump_operator_nodes_desired 0\n" in ask(port, "/metrics")[1])
        # it lives while the API server is away
        t.api.down = True
        t.api.cut()
        time.sleep(1)
        assert ask(port, "/livez")[0] == 200
        assert o.kill(signal.SIGTERM) == 0


@scenario
def quiet_cluster():
    """Without a lease, and with a server that sends no bookmarks: nothing happens for minutes, and it stays ready."""
    with Test() as t:
        port = free_port()
        t.operator("--listen=127.0.0.1:%d" % port)
        until("ready", lambda: ask(port, "/readyz")[0] == 200)
        end = time.monotonic() + 65
        while time.monotonic() < end:
            assert ask(port, "/readyz") == (200, "ready: leader\n"), ask(port, "/readyz")
            time.sleep(1)


@scenario
def says_why():
    """No definition, and no right to the lease: the log says so, once each."""
    with Test() as t:
        t.api.crd = False
        t.api.fault = lambda verb, resource, key: (lambda h: h.fail(403, "Forbidden", "not yours")) if resource == "leases" else None
        o = t.operator(*LEASE_FLAGS, leader=True)
        until("the lease", lambda: [line for line in o.log if "lease " + LEASE + ": " in line and "not yours" in line])
        until("the list", lambda: [line for line in o.log if "EbpfDump: not_served: " in line and "404 page not found" in line])
        t.api.crd, t.api.fault = True, None
        t.api.dump("web")
        t.ready()
        assert len([line for line in o.log if "not yours" in line]) == 1 and len([line for line in o.log if "it goes on" in line]) == 2, o.log


@scenario
def flags():
    def run(*args, env=None):
        return subprocess.run([PROGRAM, *args], env=env or {"PATH": os.environ["PATH"]}, text=True, capture_output=True,
                              timeout=DEADLINE, check=False)
    for args, code, says in (
            (["--what"], 2, "there is no such flag"),
            (["--renew-deadline=20s"], 2, "less than --lease-duration"),
            (["--retry-period=5s", "--renew-deadline=6s"], 2, "--retry-period: 5000ms is not allowed: less than"),
            (["--lease-duration=15500ms"], 2, "whole seconds"),
            (["--server=https://x"], 2, "http:// only"),
            ([], 1, "there is no namespace"),
            (["--namespace=A/b"], 1, "there is no namespace"),
            (["--namespace=x"], 1, "there is no image"),
            (["--namespace=x", "--loader-image=y", "--deployment=a?b"], 1, "--deployment=a?b"),
            (["--namespace=x", "--loader-image=y", "--kubectl=/nonexistent", "--listen="], 1, "/nonexistent")):
        r = run(*args)
        assert r.returncode == code and says in r.stderr, (args, r)
    assert run("--version").stdout.startswith("ebpfdump-operator ")
    assert "--loader-privileged" in run("--help").stdout


# ---- the API server is not to suffer ----


@scenario
def roll_out_over_many_nodes():
    """The DaemonSet changes many times a second: neither pods are listed nor the status is written as often."""
    with Test(nodes=None) as t:
        t.operator()
        t.api.dump("web")
        until("the DaemonSet", t.set)
        start, lists, writes = time.monotonic(), t.api.calls("list", "pods"), len(t.api.writes())
        n = 0
        while time.monotonic() - start < 4 or n <= 50:
            n += 1
            t.api.change("daemonsets", SET, lambda s, n=n: s.update(status={
                "observedGeneration": s["metadata"]["generation"], "desiredNumberScheduled": 5000, "currentNumberScheduled": 5000,
                "updatedNumberScheduled": n, "numberReady": 4500, "numberAvailable": 4500}))
            time.sleep(0.01)
        took = time.monotonic() - start
        lists, writes = t.api.calls("list", "pods") - lists, len(t.api.writes()) - writes
        assert n > 50 and lists <= 2 + took / 5 + 1 and writes <= 5 + took + 1, (n, lists, writes, took)
        # what was held back follows
        until("the last of it", lambda: t.condition("default/web", "Ready")["message"].startswith("%d of 5000" % n))


@scenario
def two_installations():
    """In two namespaces, which nobody wants: two DaemonSets, one status. They contradict each other without haste."""
    with Test() as t:
        play = t.api.roll_out

        def roll_out(key, o):
            t.api.numbers = {"numberReady": 1, "numberAvailable": 1} if key.startswith("other/") else {}
            play(key, o)
        t.api.roll_out = roll_out
        t.operator()
        t.operator("--namespace=other", name="op-2")
        t.api.dump("web")
        until("both", lambda: t.set() and t.api.get("daemonsets", "other/ebpfdump-loader"))
        start = time.monotonic()
        time.sleep(4)
        writes = t.api.writes(since=start)
        assert len(writes) <= 2 * (5 + time.monotonic() - start + 1), len(writes)


@scenario
def thousands():
    """The time for a list grows with what is in it, and not with its square: the lease must be renewed meanwhile."""
    with Test() as t:
        for n in range(4000):
            t.api.dump("d%04d" % n, created=T2 if n != 3999 else T1)
        o = t.operator()
        until("the DaemonSet", t.set)
        assert t.set()["metadata"]["annotations"]["research.dynatrace.com/ebpfdump"] == "default/d3999"
        with open("/proc/%d/stat" % o.process.pid, encoding="ascii") as f:
            ticks = f.read().rsplit(")", 1)[1].split()
        cpu = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
        assert cpu < 8, cpu


# ---- what a user sees ----


@scenario
def refused_in_other_letters():
    """A refusal whose text has to be cut, wherever a character ends."""
    for shift in range(3):
        with Test() as t:
            t.api.fault = lambda verb, resource, key, n=shift: \
                (lambda h: h.fail(403, "Forbidden", "x" * n + "\u2026" * 300)) if (verb, resource) == ("patch", "daemonsets") else None
            t.operator()
            t.api.dump("web")
            until("it is said", lambda t=t: t.state("default/web", "Ready") == "False/ApplyFailed")
            assert "x" * shift + "\u2026" in t.condition("default/web", "Ready")["message"]


@scenario
def key_deleted():
    """The loaders' key goes: what runs has it, what comes waits for it, and that is cause enough to look."""
    with Test() as t:
        t.operator()
        t.api.dump("web", callback="http://x.y/")
        t.ready()
        t.api.delete("secrets", NS + "/ebpfdump-marker-key")
        t.api.put("pods", NS + "/p1", spec={"nodeName": "n1"}, status={
            "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]})
        t.api.put("coreevents", NS + "/e1", type="Warning", reason="FailedMount", message='secret "ebpfdump-marker-key" not found',
                  involvedObject={"uid": t.api.get("pods", NS + "/p1")["metadata"]["uid"]}, lastTimestamp=apiserver.now())
        t.api.play(3, numberReady=2, numberAvailable=2)
        until("why", lambda: t.state("default/web", "Ready") == "False/MountFailed")
        until("a new key", lambda: t.api.get("secrets", NS + "/ebpfdump-marker-key"))
        t.api.delete("pods", NS + "/p1")
        t.api.play(3)
        t.ready()


def run_one(fn):
    start = time.monotonic()
    try:
        fn()
        print("ok %s (%.1f s)" % (fn.__name__, time.monotonic() - start), flush=True)
        return True
    except Exception:
        print("not ok %s (%.1f s)\n%s" % (fn.__name__, time.monotonic() - start, traceback.format_exc()), flush=True)
        return False


def main():
    chosen = [s for s in scenarios if not sys.argv[2:] or s.__name__ in sys.argv[2:]]
    # the long ones among the first: the others fill the time
    first = ("quiet_cluster", "trouble", "pod_security", "slow_api", "proxy_that_hangs", "crash_points_of_a_leader", "back_after_long", "ends_at_every_call", "crash_points")
    chosen.sort(key=lambda s: first.index(s.__name__) if s.__name__ in first else len(first))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run_one, chosen))
    print("%d passed, %d failed" % (sum(results), len(results) - sum(results)))
    sys.exit(0 if results and all(results) else 1)


main()
