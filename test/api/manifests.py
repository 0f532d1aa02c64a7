# SPDX-License-Identifier: Apache-2.0
"""Every overlay of config/ as a user applies it, and the kubectl plug-in."""
import json
import os
import re
import signal
import subprocess
import sys
import time

from cluster import NAMESPACE, TREE, check, dump, equal, short, test, until
from operators import Operator, daemonset, deploy, play, says

PLUGIN = TREE / "hack/kubectl-ebpfdump"
# kinds of the Prometheus operator, which this API server does not have: checked by test/config
FOREIGN = {"PodMonitor", "ServiceMonitor", "PrometheusRule", "Configuration", "ClusterServiceVersion"}


@test
def every_overlay_is_accepted(c):
    deploy(c)
    tried = 0
    for folder in sorted((TREE / "config").iterdir()):
        if not (folder / "kustomization.yaml").exists() or folder.name in ("prometheus", "scorecard", "manifests"):
            continue
        # strict: an unknown or repeated field is an error
        said = c.kubectl("apply", "-k", folder, "--dry-run=server", "--validate=strict", limit=120)
        check(said.strip(), f"config/{folder.name}: nothing")
        tried += 1
    check(tried >= 8, f"{tried} overlays")
    for name in "prometheus", "manifests":
        kinds = set(re.findall(r"^kind: (\w+)", c.kubectl("kustomize", TREE / "config" / name), re.M))
        check(kinds & FOREIGN, f"config/{name}: {kinds}")
    wrong = c.kubectl("kustomize", TREE / "config/callback").replace("terminationGracePeriodSeconds:", "terminationGraceSeconds:")
    check("unknown field" in c.refused("apply", "-f", "-", "--dry-run=server", "--validate=strict", input=wrong), "a wrong field is accepted")


@test
def one_file(c):
    """`kubectl apply -f config/install.yaml`, twice, and away again."""
    file = TREE / "config/install.yaml"
    deploy(c)
    c.kubectl("apply", "-f", file)
    check(all(line.endswith("unchanged") for line in c.kubectl("apply", "-f", file).splitlines()), "applied again it is a change")
    c.kubectl("apply", "--server-side", "--force-conflicts", "-f", file)
    c.kubectl("delete", "-f", file, "--timeout=60s")
    check(not c.get("crd", "ebpfdumps.research.dynatrace.com") and not c.get("namespace", NAMESPACE), "something is left")


@test
def make_deploys_and_undeploys(c):
    """`make deploy`, `make install` and their opposites, with images of one's own."""
    deploy(c)

    def make(*words):
        done = subprocess.run(["make", "--no-print-directory", "-s", *words], cwd=TREE, env=c.environment(), capture_output=True, text=True, timeout=300)
        check(done.returncode == 0, lambda: f"make {' '.join(words)}: {short(done.stdout + done.stderr)}")
    make("undeploy")
    until(lambda: not c.get("crd", "ebpfdumps.research.dynatrace.com"), "the definition to go")
    make("install")
    c.kubectl("wait", "--for=condition=Established", "crd/ebpfdumps.research.dynatrace.com", "--timeout=30s")
    make("deploy", "ENV=demo", "IMG=r.example/o:1", "LOADER_IMG=r.example/l:1", "CALLBACK_IMG=r.example/c:1")
    container = c.get("deployment", "ebpfdump-operator", "-n", NAMESPACE)["spec"]["template"]["spec"]["containers"][0]
    equal((container["image"], [e.get("value") for e in container["env"] if e["name"] == "LOADER_IMAGE"]),
          ("r.example/o:1", ["r.example/l:1"]), "images")
    check(c.get("service", "callback-service", "-n", NAMESPACE), "no receiver")
    check(c.get("ebpfdump", "callback", "-n", NAMESPACE), "no EbpfDump")
    make("undeploy", "ENV=demo")
    make("deploy")


@test
def the_plugin(c):
    deploy(c)

    def plugin(*words):
        return subprocess.run([sys.executable, PLUGIN, *words], env=c.environment(), capture_output=True, text=True, timeout=120)
    done = plugin("status")
    check(done.returncode == 1 and "nothing is captured" in done.stdout, done)
    with Operator(c):
        began = subprocess.Popen([sys.executable, PLUGIN, "start", "--interface", "eth0", "--for", "1h"], env=c.environment(), text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            until(lambda: daemonset(c), "the DaemonSet")
            play(c, desired=2, ready=2)
            says(c, "Ready", "True", name="ebpfdump")
            equal(c.get("ebpfdump", "ebpfdump", "-n", NAMESPACE)["spec"]["interfaces"], ["eth0"], "interfaces")
            done = plugin("status")
            check(done.returncode == 0 and "eth0" in done.stdout and "2/2" in done.stdout, done)
            c.apply(dump("later"))
            says(c, "Accepted", "False", "Conflict", name="later")
            done = plugin("status")
            check(done.returncode == 1 and "later" in done.stdout, done)
            done = plugin("stop", "--name", "later")
            check(done.returncode == 0, done)
            time.sleep(1.5)  # it has seen that it is ready
            began.send_signal(signal.SIGINT)
            out, err = began.communicate(timeout=60)
            check(began.returncode == 0 and "capturing on 2/2" in out, (out, err))
        finally:
            began.kill()
            began.wait()
        check(not c.get("ebpfdump", "ebpfdump", "-n", NAMESPACE), "it was not deleted")
        until(lambda: not daemonset(c), "the DaemonSet to go")
    done = plugin("start", "--interface", "a/b", "--timeout", "5s")
    check(done.returncode == 1 and "interfaces" in done.stderr, done)
    done = plugin("check", "--node", "none")
    check(done.returncode == 1 and "no Linux node none" in done.stderr, done)
    made = json.loads(subprocess.run([sys.executable, "-c", "import sys, json, runpy\n"
                                      "m = runpy.run_path(sys.argv[1], run_name='plugin')\n"
                                      "print(json.dumps(m['check_pod']('node-1', 'image:1', 'ns')))", PLUGIN],
                                     env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, check=True).stdout)
    made["metadata"]["namespace"] = NAMESPACE
    c.kubectl("apply", "-f", "-", "--dry-run=server", "--validate=strict", input=made)
