# SPDX-License-Identifier: Apache-2.0
"""The resource: what is accepted, what is refused and how, what kubectl shows of it."""
import json
import pathlib
import re

from cluster import NAMESPACE, TREE, Failure, check, crd_path, dump, equal, short, test, until

SEED = """
apiVersion: research.dynatrace.com/v1alpha1
kind: EbpfDump
metadata:
  labels:
    app.kubernetes.io/name: ebpfdump-operator
  name: ebpfdump-sample
  namespace: ebpfdump-operator-system
spec:
  interfaces:
    - lo
  callback: "http://example.com"
"""


def fresh(c):
    """The CustomResourceDefinition, installed as a user does it, and no EbpfDump."""
    c.kubectl("apply", "-k", TREE / "config/crd")
    c.kubectl("wait", "--for=condition=Established", "crd/ebpfdumps.research.dynatrace.com", "--timeout=30s")
    if not c.get("namespace", NAMESPACE):
        c.kubectl("create", "namespace", NAMESPACE)
    if "/v1alpha1" in c.kubectl("api-versions"):
        c.kubectl("delete", "ebpfdumps", "--all", "-A")


@test
def the_definition_is_installed(c):
    c.kubectl("apply", "-k", TREE / "config/crd")
    c.kubectl("wait", "--for=condition=Established", "crd/ebpfdumps.research.dynatrace.com", "--timeout=30s")
    crd = c.get("crd", "ebpfdumps.research.dynatrace.com")
    wrong = [x for x in crd["status"]["conditions"] if x["type"] == "NonStructuralSchema"]
    check(not wrong, f"the schema: {wrong}")
    check("unchanged" in c.kubectl("apply", "-k", TREE / "config/crd"), "applied again it is a change")
    c.kubectl("apply", "--server-side", "--force-conflicts", "-k", TREE / "config/crd")
    names = c.kubectl("api-resources", "--api-group=research.dynatrace.com", "--no-headers").split()
    for word in "ebpfdumps", "EbpfDump", "true":
        check(word in names, f"{word} is not in {names}")
    c.kubectl("create", "namespace", NAMESPACE)


@test
def every_field_is_described(c):
    text = c.kubectl("get", "crd", "ebpfdumps.research.dynatrace.com", "-o", "json")
    schema = json.loads(text)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    without = []

    def walk(node, path):
        for name, child in node.get("properties", {}).items():
            if path or name not in ("apiVersion", "kind", "metadata"):
                if not child.get("description", "").strip():
                    without.append(f"{path}.{name}")
                walk(child, f"{path}.{name}")
        if "items" in node:
            walk(node["items"], path + "[]")
    walk(schema, "")
    check(not without, f"no description: {' '.join(without)}")
    shown = c.kubectl("explain", "ebpfdump.spec.interfaces")
    check("network" in shown.lower() or "device" in shown.lower(), f"kubectl explain: {short(shown)}")


@test
def every_sample_is_accepted(c):
    fresh(c)
    samples = sorted((TREE / "config/samples").glob("*.yaml"))
    seen = 0
    for sample in samples:
        if "kind: EbpfDump" not in sample.read_text():
            continue
        c.kubectl("apply", "-f", sample)
        check("unchanged" in c.kubectl("apply", "-f", sample), f"{sample.name}: applied again it is a change")
        c.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", sample)
        seen += 1
    check(seen >= 3, f"{seen} samples")


@test
def the_seeds_example_word_for_word(c):
    fresh(c)
    c.kubectl("apply", "-f", "-", input=SEED)
    got = c.get("ebpfdump", "ebpfdump-sample", "-n", NAMESPACE)
    equal(got["spec"]["interfaces"], ["lo"], "interfaces")
    equal(got["spec"]["callback"], "http://example.com", "callback")
    shared = TREE / "config/samples/research_v1alpha1_ebpfdump.yaml"
    lines = [line for line in shared.read_text().splitlines() if not line.startswith("#") and line != "---"]
    equal("\n".join(lines).strip(), SEED.strip(), "the sample")


@test
def interfaces_may_be_empty_or_absent(c):
    fresh(c)
    c.apply(dump("none"))
    c.apply(dump("empty", interfaces=[]))
    c.apply({k: v for k, v in dump("nothing").items() if k != "spec"} | {"spec": {}})


# What is wrong, and what must be in the message: the field, and why.
WRONG = [
    ("an interface that is no name", {"interfaces": ["a/b"]}, ["spec.interfaces[0]"]),
    ("an interface with a space", {"interfaces": ["a b"]}, ["spec.interfaces[0]"]),
    ("an interface that is too long", {"interfaces": ["a234567890123456"]}, ["spec.interfaces[0]", "15"]),
    ("an empty interface", {"interfaces": [""]}, ["spec.interfaces[0]"]),
    ("an interface that is a folder", {"interfaces": [".."]}, ["must not be . or .."]),
    ("an interface twice", {"interfaces": ["lo", "lo"]}, ["spec.interfaces[1]", "Duplicate"]),
    ("too many interfaces", {"interfaces": [f"e{n}" for n in range(1000)]}, ["spec.interfaces", "Too many"]),
    ("a namespace that cannot be", {"namespaces": ["Shop"]}, ["spec.namespaces[0]"]),
    ("a namespace that ends in a dash", {"namespaces": ["shop-"]}, ["spec.namespaces[0]"]),
    ("interfaces that are no list", {"interfaces": "lo"}, ["spec.interfaces", "array"]),
    ("a direction that is none", {"directions": ["up"]}, ["spec.directions[0]", "egress", "ingress"]),
    ("a message that is none", {"messages": ["reply"]}, ["spec.messages[0]", "request", "response"]),
    ("a negative body", {"bodyBytes": -1}, ["spec.bodyBytes", "greater than or equal to 0"]),
    ("a body that is too large", {"bodyBytes": 1 << 30}, ["spec.bodyBytes", "less than or equal to"]),
    ("a body that is a text", {"bodyBytes": "many"}, ["spec.bodyBytes", "integer"]),
    ("a header that is none", {"redactHeaders": ["a b"]}, ["spec.redactHeaders[0]"]),
    ("none and another header", {"redactHeaders": ["none", "Cookie"]}, ["none stands alone"]),
    ("lines too short", {"limits": {"lineBytes": 1}}, ["spec.limits.lineBytes", "greater than or equal to"]),
    ("a number between two allowed ones", {"limits": {"captureBytes": 17}}, ["spec.limits.captureBytes", "256"]),
    ("a time that is none", {"limits": {"idle": "soon"}}, ["spec.limits.idle"]),
    ("a time that is too long", {"limits": {"idle": "1000h"}}, ["spec.limits.idle", "must be"]),
    ("a level that is none", {"logLevel": "loud"}, ["spec.logLevel", "info"]),
    ("a field that does not exist", {"interface": ["lo"]}, ['unknown field "spec.interface"']),
    ("a limit that does not exist", {"limits": {"lines": 1}}, ['unknown field "spec.limits.lines"']),
    ("a selector that is no text", {"nodeSelector": {"a": 1}}, ["spec.nodeSelector.a", "string"]),
    ("a selector by what is no label", {"nodeSelector": {"a b": "c"}}, ["spec.nodeSelector", "a key must be a label's"]),
    ("a selector by a value that no label has", {"nodeSelector": {"example.com/a": "b c"}}, ["spec.nodeSelector.example.com/a"]),
    ("a toleration of what is no taint", {"tolerations": [{"key": "a b", "operator": "Exists"}]}, ["spec.tolerations[0].key"]),
    ("a toleration of a value that no taint has", {"tolerations": [{"key": "a", "value": "-"}]}, ["spec.tolerations[0].value"]),
    ("a toleration of nothing", {"tolerations": [{"effect": "NoExecute"}]}, ["without a key, operator must be Exists"]),
    ("a toleration of everything with a value", {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, ["with operator Exists there is no value"]),
    ("seconds without their effect", {"tolerations": [{"key": "a", "tolerationSeconds": 3}]}, ["tolerationSeconds needs effect NoExecute"]),
    ("an image that is none", {"image": "a b"}, ["spec.image"]),
    ("a priority class that is no name", {"priorityClassName": "High!"}, ["spec.priorityClassName"]),
    ("resources below nothing", {"resources": {"limits": {"cpu": -1}}}, ["spec.resources.limits.cpu", "greater than or equal to 0"]),
    ("resources that are no quantity", {"resources": {"limits": {"memory": "much"}}}, ["spec.resources.limits.memory"]),
]
# Of the callback, as far as the definition has it.
WRONG_CALLBACK = [
    ("a callback that is no URL", {"callback": "example.com/ingest"}, ["spec.callback"]),
    ("a callback of another scheme", {"callback": "ftp://example.com/"}, ["spec.callback"]),
    ("a callback without a host", {"callback": "http:///ingest"}, ["spec.callback"]),
    ("a callback with a space", {"callback": "http://example.com/a b"}, ["spec.callback"]),
    ("a callback with credentials", {"callback": "http://user:secret@example.com/"}, ["spec.callback"]),
    ("a callback that is no text", {"callback": 5}, ["spec.callback", "string"]),
    ("a callback that is endless", {"callback": "http://example.com/" + "a" * 5000}, ["spec.callback", "Too long"]),
]


def refuse(c, table):
    wrong = []
    for name, spec, words in table:
        done = c.run("apply", "-f", "-", input=dump("wrong", **spec))
        if done.returncode == 0:
            wrong.append(f"{name}: accepted")
            c.kubectl("delete", "ebpfdump", "wrong", "-n", NAMESPACE)
            continue
        wrong += [f"{name}: '{w}' is not in: {short(done.stderr)}" for w in words if w not in done.stderr]
    check(not wrong, lambda: "\n    ".join(["", *wrong]))


@test
def wrong_resources_are_refused(c):
    fresh(c)
    refuse(c, WRONG)


@test
def wrong_callbacks_are_refused(c):
    fresh(c)
    refuse(c, WRONG_CALLBACK)


@test
def the_definition_and_the_loader_agree(c):
    """A value at each bound is accepted, one beyond is not; that the loader's options say the same is another test's."""
    crd = c.get("crd", "ebpfdumps.research.dynatrace.com")
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    fresh(c)
    tried, wrong = 0, []

    def nest(path, value):
        for name in reversed(path):
            value = {name: value}
        return value

    def walk(node, path):
        nonlocal tried
        for name, child in node.get("properties", {}).items():
            here = [*path, name]
            walk(child, here)
            for bound, beyond in ("minimum", -1), ("maximum", 1):
                if child.get("type") == "integer" and bound in child:
                    tried += 1
                    ok = c.run("apply", "--dry-run=server", "-f", "-", input=dump("bound", **nest(here, child[bound])))
                    bad = c.run("apply", "--dry-run=server", "-f", "-", input=dump("bound", **nest(here, child[bound] + beyond)))
                    if ok.returncode or not bad.returncode:
                        wrong.append(f"{'.'.join(here)} {bound} {child[bound]}: {short(ok.stderr)}")
    # the tolerations' and resources' are Kubernetes'
    walk({"properties": {k: v for k, v in spec["properties"].items() if k not in ("tolerations", "resources")}}, [])
    check(tried >= 10 and not wrong, lambda: f"{tried} tried {wrong}")


@test
def kubectl_shows_it(c):
    fresh(c)
    c.apply(dump("shown", interfaces=["eth0", "lo"]))
    header, line = c.kubectl("get", "ebpfdumps", "-n", NAMESPACE).splitlines()
    equal(header.split(), ["NAME", "ACCEPTED", "READY", "NODES", "INTERFACES", "AGE"], "columns")
    check('["eth0","lo"]' in line.replace('", "', '","'), line)
    c.kubectl("patch", "ebpfdump", "shown", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", json.dumps({"status": {
        "observedGeneration": 1, "nodes": "2/3", "desiredNodes": 3, "readyNodes": 2, "updatedNodes": 3, "conditions": [
            {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Ready", "status": "False", "reason": "RolloutInProgress", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
    line = c.kubectl("get", "ebpfdumps", "-n", NAMESPACE).splitlines()[1]
    equal(line.split()[:4], ["shown", "True", "False", "2/3"], "its line")
    check("RolloutInProgress" in c.kubectl("get", "ebpfdumps", "-n", NAMESPACE, "-o", "wide"), "wide: the reason")
    short_names = c.get("crd", "ebpfdumps.research.dynatrace.com")["spec"]["names"]["shortNames"]
    check(short_names, "no short name")
    for name in [*short_names, "ebpfdump", "EbpfDump"]:
        check("shown" in c.kubectl("get", name, "-n", NAMESPACE), f"kubectl get {name}")
    check("RolloutInProgress" in c.kubectl("describe", "ebpfdump", "shown", "-n", NAMESPACE), "kubectl describe")


@test
def spec_and_status_are_apart(c):
    fresh(c)
    c.apply({**dump("apart"), "status": {"nodes": "9/9"}})
    got = c.get("ebpfdump", "apart", "-n", NAMESPACE)
    check("status" not in got, f"a status came in by the front door: {got.get('status')}")
    equal(got["metadata"]["generation"], 1, "generation")
    c.kubectl("patch", "ebpfdump", "apart", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", '{"status":{"nodes":"1/1"},"spec":{"bodyBytes":5}}')
    got = c.get("ebpfdump", "apart", "-n", NAMESPACE)
    check("bodyBytes" not in got["spec"] or got["spec"]["bodyBytes"] != 5, "a spec came in by the back door")
    equal(got["metadata"]["generation"], 1, "generation after a status")
    c.kubectl("patch", "ebpfdump", "apart", "-n", NAMESPACE, "--type=merge", "-p", '{"spec":{"bodyBytes":5}}')
    got = c.get("ebpfdump", "apart", "-n", NAMESPACE)
    equal((got["metadata"]["generation"], got["status"]["nodes"]), (2, "1/1"), "after a change")
    message = c.refused("patch", "ebpfdump", "apart", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p",
                        '{"status":{"conditions":[{"type":"Ready","status":"Perhaps","reason":"x","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}')
    check("Unsupported value" in message, message)


@test
def waiting_for_a_condition(c):
    fresh(c)
    c.apply(dump("waits"))
    check("timed out" in c.refused("wait", "--for=condition=Ready", "ebpfdump/waits", "-n", NAMESPACE, "--timeout=1s"), "no time-out")
    c.kubectl("patch", "ebpfdump", "waits", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", json.dumps({"status": {"conditions": [
        {"type": "Ready", "status": "True", "reason": "AllNodesReady", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}]}}))
    c.kubectl("wait", "--for=condition=Ready", "ebpfdump/waits", "-n", NAMESPACE, "--timeout=30s")
