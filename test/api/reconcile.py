# SPDX-License-Identifier: Apache-2.0
"""The operator: one EbpfDump becomes a DaemonSet, whatever happens meanwhile."""
import contextlib
import json
import os
import pathlib
import signal
import time

from cluster import API, NAMESPACE, OPERATOR, TREE, check, dump, equal, short, test, until
from operators import IMAGE, LOADER, Operator, args_of, clear, daemonset, deploy, event, play, pod, says, status_of

# Short enough to wait for its end, and long enough for a machine that stalls; and one that an API server's start does not outlast.
QUICK = "--lease-duration=9s", "--renew-deadline=6s", "--retry-period=500ms"
LONG = "--lease-duration=60s", "--renew-deadline=50s"


@test
def it_is_deployed(c):
    c.kubectl("apply", "-k", TREE / "config/default")
    again = c.kubectl("apply", "-k", TREE / "config/default").splitlines()
    check(again and all(line.endswith("unchanged") for line in again), f"applied again it is a change: {again}")
    c.kubectl("apply", "--server-side", "--force-conflicts", "-f", TREE / "config/install.yaml")
    labels = c.get("namespace", NAMESPACE)["metadata"]["labels"]
    equal(labels.get("pod-security.kubernetes.io/enforce"), "privileged", "the namespace's Pod Security level")


@test
def its_rights_are_what_it_needs(c):
    deploy(c)
    may = [("list", "ebpfdumps.research.dynatrace.com", "-A"), ("watch", "ebpfdumps.research.dynatrace.com", "-A"),
           ("patch", "ebpfdumps.research.dynatrace.com", "--subresource=status", "-A"), ("create", "daemonsets.apps", "-n", NAMESPACE),
           ("patch", f"daemonsets.apps/{LOADER}", "-n", NAMESPACE), ("delete", f"daemonsets.apps/{LOADER}", "-n", NAMESPACE),
           ("create", "leases.coordination.k8s.io", "-n", NAMESPACE), ("create", "events.events.k8s.io", "-n", "default")]
    must_not = [("create", "ebpfdumps.research.dynatrace.com", "-A"), ("patch", "ebpfdumps.research.dynatrace.com", "-A"),
                ("delete", "ebpfdumps.research.dynatrace.com", "-A"), ("create", "daemonsets.apps", "-n", "default"),
                ("patch", "daemonsets.apps/other", "-n", NAMESPACE), ("delete", "daemonsets.apps/other", "-n", NAMESPACE),
                ("list", "secrets", "-n", NAMESPACE), ("get", "secrets/other", "-n", NAMESPACE), ("list", "secrets", "-n", "default"),
                ("list", "pods", "-n", "default"), ("create", "pods", "-n", NAMESPACE), ("get", "nodes"), ("list", "namespaces"),
                ("create", "clusterrolebindings.rbac.authorization.k8s.io"), ("update", "daemonsets.apps/" + LOADER, "-n", "kube-system"),
                ("update", "leases.coordination.k8s.io/other", "-n", NAMESPACE), ("create", "pods", "--subresource=exec", "-n", NAMESPACE)]
    wrong = [f"may not {' '.join(w)}" for w in may if c.run("auth", "can-i", *w, "--as", OPERATOR).stdout.strip() != "yes"]
    wrong += [f"may {' '.join(w)}" for w in must_not if c.run("auth", "can-i", *w, "--as", OPERATOR).stdout.strip() != "no"]
    check(not wrong, lambda: f"the operator {'; '.join(wrong)}")
    # who may edit in a namespace may not read the cluster's HTTP
    for role in "ebpfdump-viewer", "ebpfdump-editor":
        aggregated = [k for k in c.get("clusterrole", role)["metadata"]["labels"] if "aggregate-to" in k]
        equal(aggregated, ["rbac.authorization.k8s.io/aggregate-to-view"] if role.endswith("viewer") else [], role)


@test
def from_a_resource_to_loaders_and_back(c):
    deploy(c)
    with Operator(c) as op:
        c.apply(dump("example", interfaces=["lo"], bodyBytes=100))
        ds = until(lambda: daemonset(c), "the DaemonSet")
        args = args_of(ds)
        check("--interface=lo" in args, f"arguments: {args}")
        equal(ds["spec"]["template"]["spec"]["containers"][0]["image"], IMAGE, "image")
        owners = ds["metadata"].get("ownerReferences", [])
        deployment = c.get("deployment", "ebpfdump-operator", "-n", NAMESPACE)
        equal([(o["kind"], o["uid"]) for o in owners], [("Deployment", deployment["metadata"]["uid"])], "owners")
        says(c, "Accepted", "True", "Accepted")
        says(c, "Ready", "False")
        play(c, desired=2, ready=1)
        says(c, "Ready", "False")
        play(c, desired=2)
        c.kubectl("wait", "--for=condition=Ready", "ebpfdump/example", "-n", NAMESPACE, "--timeout=30s")
        says(c, "Progressing", "False")
        says(c, "Degraded", "False")
        line = until(lambda: [x for x in c.kubectl("get", "ebpfdumps", "-n", NAMESPACE).splitlines() if "2/2" in x], "NODES 2/2")[0]
        equal(line.split()[1:4], ["True", "True", "2/2"], "what kubectl get shows")

        c.kubectl("patch", "ebpfdump", "example", "-n", NAMESPACE, "--type=merge", "-p", '{"spec":{"interfaces":["lo","eth0"]}}')
        changed = until(lambda: (d := daemonset(c)) and "--interface=eth0" in args_of(d) and d, "the new interface")
        check(changed["metadata"]["generation"] > ds["metadata"]["generation"], "the generation stands still")
        check(changed["spec"]["template"]["metadata"]["annotations"] != ds["spec"]["template"]["metadata"]["annotations"], "the hash of the spec")
        until(lambda: status_of(c).get("observedGeneration") == 2, "observedGeneration 2")
        says(c, "Ready", "False", "RolloutInProgress")
        play(c, desired=2)
        says(c, "Ready", "True", "AllNodesReady")

        events = until(lambda: (t := c.kubectl("get", "events", "-n", NAMESPACE)) and "LoaderCreated" in t and "LoaderUpdated" in t and t, "events")
        check("Accepted" in events, events)
        c.kubectl("delete", "ebpfdump", "example", "-n", NAMESPACE)
        until(lambda: not daemonset(c), "no DaemonSet")
        equal(op.metric("ebpfdump_operator_leader"), 1, "leader")


@test
def callbacks_and_secrets(c):
    """A Secret is mounted, never copied; the marker's key is made once and kept."""
    deploy(c)
    c.kubectl("create", "secret", "generic", "sink", "-n", NAMESPACE, "--from-literal=headers=Authorization: Bearer sesame", "--from-literal=hmac=key")
    with Operator(c) as op:
        c.apply(dump("example", callback="https://example.com/in?a=$(HOME)", callbackSecretRef={"name": "sink", "headersKey": "headers", "hmacKey": "hmac"}))
        ds = until(lambda: daemonset(c), "the DaemonSet")
        pod_spec = ds["spec"]["template"]["spec"]
        volumes = {v["secret"]["secretName"]: v["secret"] for v in pod_spec["volumes"] if "secret" in v}
        check("sink" in volumes and "ebpfdump-marker-key" in volumes, f"volumes: {volumes}")
        check("--callback=https://example.com/in?a=$$(HOME)" in args_of(ds), f"a variable in the URL is not one of the pod's: {args_of(ds)}")
        check("sesame" not in json.dumps(ds), "the secret is in the DaemonSet")
        key = c.get("secret", "ebpfdump-marker-key", "-n", NAMESPACE)["data"]
        c.kubectl("delete", "ebpfdump", "example", "-n", NAMESPACE)
        until(lambda: not daemonset(c), "no DaemonSet")
        c.apply(dump("example", callback="http://example.com/"))
        until(lambda: daemonset(c), "the DaemonSet")
        equal(c.get("secret", "ebpfdump-marker-key", "-n", NAMESPACE)["data"], key, "the key, the second time")
        check("sesame" not in op.process.text(), "the secret is in the log")
    c.kubectl("delete", "secret", "sink", "-n", NAMESPACE)


@test
def it_matters_not_where_the_resource_is(c):
    deploy(c)
    with Operator(c):
        c.run("create", "namespace", "team-a")
        c.apply(dump("example", "team-a", interfaces=["lo"]))
        until(lambda: daemonset(c), "the DaemonSet, in the operator's namespace")
        says(c, "Accepted", "True", namespace="team-a")
        check(not c.get("daemonset", "-n", "team-a"), "a DaemonSet where the resource is")


@test
def what_is_edited_by_hand_is_repaired(c):
    deploy(c)
    with Operator(c):
        c.apply(dump("example", interfaces=["lo"]))
        before = until(lambda: daemonset(c), "the DaemonSet")
        c.kubectl("set", "image", f"daemonset/{LOADER}", "loader=evil:1", "-n", NAMESPACE)
        until(lambda: daemonset(c)["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGE, "the image again")
        c.kubectl("patch", "daemonset", LOADER, "-n", NAMESPACE, "--type=json", "-p",
                  '[{"op":"replace","path":"/spec/template/spec/containers/0/args","value":["--help"]}]')
        until(lambda: args_of(daemonset(c)) == args_of(before), "the arguments again")
        c.kubectl("patch", "daemonset", LOADER, "-n", NAMESPACE, "--type=strategic", "-p",
                  '{"spec":{"template":{"spec":{"containers":[{"name":"loader","securityContext":{"allowPrivilegeEscalation":true}}]}}}}')
        until(lambda: not daemonset(c)["spec"]["template"]["spec"]["containers"][0]["securityContext"].get("allowPrivilegeEscalation"), "escalation is off again")
        c.kubectl("delete", "daemonset", LOADER, "-n", NAMESPACE)
        again = until(lambda: daemonset(c), "the DaemonSet again")
        check(again["metadata"]["uid"] != before["metadata"]["uid"], "it was not deleted")
        # what others add stays
        c.kubectl("annotate", "daemonset", LOADER, "-n", NAMESPACE, "example.com/note=mine")
        c.kubectl("patch", "ebpfdump", "example", "-n", NAMESPACE, "--type=merge", "-p", '{"spec":{"bodyBytes":7}}')
        until(lambda: any("=7" in a for a in args_of(daemonset(c))), "a change")
        equal(daemonset(c)["metadata"]["annotations"].get("example.com/note"), "mine", "another's annotation")


@test
def a_foreign_daemonset_is_left_alone(c):
    deploy(c)
    foreign = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": LOADER, "namespace": NAMESPACE}, "spec": {
        "selector": {"matchLabels": {"app": "other"}}, "template": {"metadata": {"labels": {"app": "other"}}, "spec": {
            "containers": [{"name": "c", "image": "other:1"}]}}}}
    c.apply(foreign)
    with Operator(c):
        c.apply(dump("example"))
        says(c, "Ready", "False", "NameConflict")
        ds = daemonset(c)
        equal((ds["metadata"]["generation"], ds["spec"]["template"]["spec"]["containers"][0]["image"]), (1, "other:1"), "the foreign one")
        c.kubectl("delete", "ebpfdump", "example", "-n", NAMESPACE)
        time.sleep(1)
        check(daemonset(c), "the foreign one was deleted")
        c.apply(dump("example"))
        c.kubectl("delete", "daemonset", LOADER, "-n", NAMESPACE)
        until(lambda: (d := daemonset(c)) and d["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGE, "ours, once it is gone")
        says(c, "Accepted", "True")


@test
def one_resource_in_a_cluster(c):
    deploy(c)
    c.run("create", "namespace", "team-a")
    with Operator(c):
        c.apply(dump("first", "team-a", interfaces=["eth1"]))
        until(lambda: daemonset(c), "the DaemonSet")
        time.sleep(1.1)  # creation times are seconds
        c.apply(dump("b-second", interfaces=["eth2"]))
        time.sleep(1.1)
        c.apply(dump("a-third", interfaces=["eth3"]))
        for name in "b-second", "a-third":
            lost = says(c, "Accepted", "False", "Conflict", name=name)
            check("team-a/first" in lost["message"], f"it does not name the winner: {lost['message']}")
            says(c, "Ready", "False", "NotAccepted", name=name)
        check("--interface=eth1" in args_of(daemonset(c)), "another took over")
        uid = daemonset(c)["metadata"]["uid"]
        c.kubectl("delete", "ebpfdump", "first", "-n", "team-a")
        until(lambda: "--interface=eth2" in args_of(daemonset(c)), "the next oldest takes over")
        equal(daemonset(c)["metadata"]["uid"], uid, "the DaemonSet in place")
        says(c, "Accepted", "True", name="b-second")
        check("b-second" in says(c, "Accepted", "False", "Conflict", name="a-third")["message"], "the loser names the old winner")
        # one that comes again is the youngest
        c.apply(dump("first", "team-a", interfaces=["eth1"]))
        says(c, "Accepted", "False", "Conflict", name="first", namespace="team-a")
        check("--interface=eth2" in args_of(daemonset(c)), "the youngest took over")


@test
def why_loaders_do_not_come_up(c):
    deploy(c)
    with Operator(c, "--resync=1s"):
        c.apply(dump("example"))
        until(lambda: daemonset(c), "the DaemonSet")
        play(c, desired=1, ready=0)
        pod(c, status={"phase": "Pending", "containerStatuses": [{"name": "loader", "image": IMAGE, "imageID": "", "ready": False, "restartCount": 0,
                       "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"nowhere\""}}}]})
        bad = says(c, "Degraded", "True", "ImagePullFailed")
        check("nowhere" in bad["message"] or "Back-off" in bad["message"], bad["message"])
        says(c, "Ready", "False")
        pod(c, status={"phase": "Running", "containerStatuses": [{"name": "loader", "image": IMAGE, "imageID": "", "ready": False, "restartCount": 5,
                       "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
                       "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "no such thing\n"}}}]})
        bad = says(c, "Degraded", "True", "CrashLooping")
        check("no such thing" in bad["message"], f"not what the loader said last: {bad['message']}")
        # an event of the real API server; refused pods, which take 30 s, are test/operator's
        pod(c, status={"phase": "Pending", "containerStatuses": [{"name": "loader", "image": IMAGE, "imageID": "", "ready": False, "restartCount": 0,
                       "state": {"waiting": {"reason": "ContainerCreating"}}}]})
        made = c.get("pod", "ebpfdump-loader-abcde", "-n", NAMESPACE)
        event(c, "unmounted", {**made, "apiVersion": "v1", "kind": "Pod"}, "FailedMount", 'MountVolume.SetUp failed: secret "mine" not found')
        bad = says(c, "Degraded", "True", "MountFailed")
        check("mine" in bad["message"], bad["message"])
        c.kubectl("delete", "pods", "--all", "-n", NAMESPACE)
        play(c, desired=1)
        says(c, "Degraded", "False")
        says(c, "Ready", "True")


def writes(c):
    """How many writes but the lease's the API server has seen, by who asks: the operator is all there is."""
    total = 0
    for line in c.kubectl("get", "--raw", "/metrics").splitlines():
        if line.startswith("apiserver_request_total{") and any(f'verb="{v}"' in line for v in ("POST", "PUT", "PATCH", "APPLY", "DELETE")):
            if 'resource="leases"' not in line and 'resource="selfsubjectaccessreviews"' not in line:
                total += float(line.rsplit(" ", 1)[1])
    return total


@test
def nothing_is_written_when_nothing_changes(c):
    deploy(c)
    with Operator(c, "--resync=1s") as op:
        c.apply(dump("example"))
        c.apply(dump("loser"))
        until(lambda: daemonset(c), "the DaemonSet")
        play(c, desired=1)
        says(c, "Ready", "True")
        says(c, "Accepted", "False", name="loser")
        # two or three events may be on their way; six seconds are several times --resync
        now = lambda: (writes(c), daemonset(c)["metadata"]["resourceVersion"])
        until(lambda: (before := now(), time.sleep(6), now() == before)[2], "six seconds without a write, or another version of the DaemonSet")
        check(op.process.alive(), "it ended")


@test
def the_api_server_crashes_and_comes_back(c):
    deploy(c)
    with Operator(c, *LONG) as op:
        c.apply(dump("example", interfaces=["lo"]))
        until(lambda: daemonset(c), "the DaemonSet")
        c.stop_api()
        time.sleep(1)
        equal(op.ask("/livez")[0], 200, "/livez while the API server is down")
        c.start_api()
        c.kubectl("patch", "ebpfdump", "example", "-n", NAMESPACE, "--type=merge", "-p", '{"spec":{"interfaces":["eth7"]}}')
        until(lambda: "--interface=eth7" in args_of(daemonset(c)), "the change")
        until(lambda: op.ask("/readyz")[0] == 200, "ready again")
        check(op.process.alive(), "it ended")


@test
def the_api_server_is_away_for_long(c):
    """A leader that cannot renew its lease ends, as it must; its successor starts without an API server and waits."""
    deploy(c)
    with Operator(c, *QUICK) as op:
        c.apply(dump("example", interfaces=["lo"]))
        until(lambda: daemonset(c), "the DaemonSet")
        c.stop_api()
        check(op.process.wait() != 0, "a leader that lost its lease ended as if nothing were wrong")
        with Operator(c, *QUICK, ready=False) as next_one:
            until(lambda: next_one.ask("/livez")[0] == 200, "/livez without an API server")
            equal(next_one.ask("/readyz")[0], 503, "/readyz without an API server")
            c.start_api()
            c.kubectl("delete", "daemonset", LOADER, "-n", NAMESPACE)
            until(lambda: daemonset(c), "the DaemonSet again")
            until(lambda: next_one.ask("/readyz")[0] == 200, "/readyz")


@test
def what_happens_while_it_is_cut_off(c):
    """Its way to the API server stands still; meanwhile objects go and come, and etcd forgets what they were."""
    deploy(c)
    with Operator(c, *LONG) as op:
        c.apply(dump("old", interfaces=["eth1"]))
        until(lambda: daemonset(c), "the DaemonSet")
        proxy = op.proxy_pid()
        os.kill(proxy, signal.SIGSTOP)
        try:
            c.kubectl("delete", "ebpfdump", "old", "-n", NAMESPACE)
            c.apply(dump("new", interfaces=["eth2"]))
            c.apply(dump("newer", interfaces=["eth3"]))
            c.kubectl("delete", "ebpfdump", "newer", "-n", NAMESPACE)
            c.compact()
            c.restart_api()
            c.compact()
        finally:
            with contextlib.suppress(ProcessLookupError):  # on a slow machine it may have been taken for dead, and replaced
                os.kill(proxy, signal.SIGCONT)
        until(lambda: (d := daemonset(c)) and "--interface=eth2" in args_of(d), "the new resource's loaders")
        says(c, "Accepted", "True", name="new")
        c.kubectl("delete", "ebpfdump", "new", "-n", NAMESPACE)
        until(lambda: not daemonset(c), "no DaemonSet")


@test
def its_proxy_dies(c):
    deploy(c)
    with Operator(c) as op:
        c.apply(dump("example", interfaces=["lo"]))
        until(lambda: daemonset(c), "the DaemonSet")
        first = op.proxy_pid()
        os.kill(first, signal.SIGKILL)
        until(lambda: op.proxy_pid() not in (None, first), "another kubectl")
        c.kubectl("delete", "daemonset", LOADER, "-n", NAMESPACE)
        until(lambda: daemonset(c), "the DaemonSet again")
        check(op.process.alive(), "it ended")


@test
def the_operator_dies_anytime(c):
    """Killed shortly after a change, at ever later moments; the next one ends where it would have."""
    deploy(c)
    c.apply(dump("example"))
    for n in range(8):
        c.kubectl("patch", "ebpfdump", "example", "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": {"interfaces": [f"eth{n}"]}}))
        op = Operator(c, "--no-leader-election", ready=False)
        time.sleep(0.15 * n)
        op.process.kill()
    with Operator(c, "--no-leader-election"):
        until(lambda: (d := daemonset(c)) and "--interface=eth7" in args_of(d), "the last change")
        play(c, desired=1)
        says(c, "Ready", "True")
        equal(len(c.get("daemonsets", "-n", NAMESPACE)), 1, "DaemonSets")


@test
def two_operators_and_a_lease(c):
    deploy(c)
    with Operator(c, *QUICK, name="one") as one:
        until(one.leads, "the first one leads")
        c.apply(dump("example", interfaces=["lo"]))
        ds = until(lambda: daemonset(c), "the DaemonSet")
        with Operator(c, *QUICK, name="two") as two:
            play(c, desired=1)
            says(c, "Ready", "True")
            time.sleep(2)
            check(one.leads() and not two.leads(), "both or the wrong one lead")
            generation = daemonset(c)["metadata"]["generation"]
            equal(one.stop(), 0, "the first one's exit status")
            until(two.leads, "the second one leads soon after the first one let go", 20)
            lease = c.get("lease", "ebpfdump-operator", "-n", NAMESPACE)
            check(lease["spec"]["leaseTransitions"] >= 1, lease["spec"])
            equal(daemonset(c)["metadata"]["generation"], generation, "the generation of what is as it should be")
            c.kubectl("delete", "daemonset", LOADER, "-n", NAMESPACE)
            until(lambda: (d := daemonset(c)) and d["metadata"]["uid"] != ds["metadata"]["uid"], "the second one works")
            with Operator(c, *QUICK, name="three") as three:
                two.process.kill()
                until(three.leads, "the third one leads once the lease has run out", 40)
                c.kubectl("patch", "ebpfdump", "example", "-n", NAMESPACE, "--type=merge", "-p", '{"spec":{"interfaces":["eth5"]}}')
                until(lambda: "--interface=eth5" in args_of(daemonset(c)), "the third one works")
    equal(c.get("lease", "ebpfdump-operator", "-n", NAMESPACE)["spec"].get("holderIdentity", ""), "", "the holder after all have ended")


@test
def a_leader_that_was_paused_ends(c):
    deploy(c)
    with Operator(c, *QUICK, name="one") as one:
        until(one.leads, "the first one leads")
        one.process.send(signal.SIGSTOP)
        with Operator(c, *QUICK, name="two") as two:
            until(two.leads, "the second one leads", 40)
            one.process.send(signal.SIGCONT)
            check(one.process.wait() != 0, "a leader that lost its lease ended as if nothing were wrong")
            check(two.leads(), "the second one lost it")
            c.apply(dump("example"))
            until(lambda: daemonset(c), "the DaemonSet")


@test
def the_definition_goes_and_comes_back(c):
    deploy(c)
    with Operator(c) as op:
        c.apply(dump("example", interfaces=["lo"]))
        until(lambda: daemonset(c), "the DaemonSet")
        c.kubectl("delete", "crd", "ebpfdumps.research.dynatrace.com")
        until(lambda: not daemonset(c), "no DaemonSet without the definition", 90)
        equal(op.ask("/livez")[0], 200, "/livez")
        c.kubectl("apply", "-k", TREE / "config/crd")
        c.kubectl("wait", "--for=condition=Established", "crd/ebpfdumps.research.dynatrace.com", "--timeout=30s")
        until(lambda: c.run("apply", "-f", "-", input=dump("example", interfaces=["eth4"])).returncode == 0, "the resource can be made again")
        until(lambda: (d := daemonset(c)) and "--interface=eth4" in args_of(d), "the DaemonSet", 120)
        check(op.process.alive(), "it ended")


@test
def its_rights_are_taken_and_given_back(c):
    deploy(c)
    with Operator(c) as op:
        c.apply(dump("example", interfaces=["lo"]))
        until(lambda: daemonset(c), "the DaemonSet")
        role = c.kubectl("get", "rolebinding", "ebpfdump-operator", "-n", NAMESPACE, "-o", "json")
        c.kubectl("delete", "rolebinding", "ebpfdump-operator", "-n", NAMESPACE)
        c.kubectl("patch", "ebpfdump", "example", "-n", NAMESPACE, "--type=merge", "-p", '{"spec":{"interfaces":["eth6"]}}')
        said = until(lambda: [x for x in status_of(c).get("conditions", []) if x["type"] == "Ready" and x["reason"] == "ApplyFailed"] or
                     not op.process.alive(), "it says that it may not", 30)
        check(said is not True, "it ended")  # the lease is refused too, and is not lost within these seconds
        check("forbidden" in said[0]["message"].lower(), said[0]["message"])
        made = json.loads(role)
        for name in "resourceVersion", "uid", "creationTimestamp", "managedFields":
            made["metadata"].pop(name, None)
        c.apply(made)
        if not op.process.alive():
            op = Operator(c)
        until(lambda: "--interface=eth6" in args_of(daemonset(c)), "the change", 90)
        says(c, "Accepted", "True")


@test
def many_resources(c):
    deploy(c)
    with Operator(c):
        everything = {"apiVersion": "v1", "kind": "List", "items": [dump(f"n{i:03}", interfaces=[f"eth{i % 16}"]) for i in range(40)]}
        c.apply(everything)
        until(lambda: daemonset(c), "the DaemonSet")

        def settled():
            items = c.get("ebpfdumps", "-n", NAMESPACE)
            reasons = [cond["reason"] for i in items for cond in i.get("status", {}).get("conditions", []) if cond["type"] == "Accepted"]
            return sorted(set(reasons)) == ["Accepted", "Conflict"] and reasons.count("Accepted") == 1 and len(reasons) == 40
        until(settled, "one of them is accepted", 120)
        # all in one request, as the deletion of a namespace does it
        c.kubectl("delete", "--raw", f"{API}/namespaces/{NAMESPACE}/ebpfdumps")
        until(lambda: not daemonset(c), "no DaemonSet")


@test
def it_is_taken_away(c):
    """`make undeploy`, while a resource is there: nothing hangs, nothing is left that waits for the operator."""
    deploy(c)
    with Operator(c) as op:
        c.apply(dump("example"))
        until(lambda: daemonset(c), "the DaemonSet")
        equal(op.stop(), 0, "its exit status")
    check(daemonset(c), "the DaemonSet went with the operator's process")
    equal(daemonset(c)["metadata"].get("finalizers", []), [], "finalizers")
    equal(c.get("ebpfdump", "example", "-n", NAMESPACE)["metadata"].get("finalizers", []), [], "finalizers of the resource")
    c.kubectl("delete", "-k", TREE / "config/default", "--timeout=60s")
    check(not c.get("crd", "ebpfdumps.research.dynatrace.com") and not c.get("namespace", NAMESPACE), "something is left")
