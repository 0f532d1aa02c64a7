# SPDX-License-Identifier: Apache-2.0
"""From `kubectl apply` to a message, and back to nothing."""
import json
import os
import signal
import subprocess
import time

import node as nodes
from cluster import NAMESPACE, check, dump, equal, short, test, until
from harness import Container, DEVICE
from operators import Operator, daemonset, deploy, status_of

QUICK = "--lease-duration=9s", "--renew-deadline=6s"  # for a test that kills it
SECRET = "sesame-" + os.urandom(6).hex()


class World:
    """What the tests have in common: one operator, one node, two hosts; they follow each other."""

    def __init__(self, c, net, image):
        self.c, self.net = c, net
        deploy(c)
        self.operator = Operator(c, *QUICK)
        self.node = nodes.Node(c, net.server, image)
        self.pod = Container(self.node.logs, "shop", "web-0", "server")
        self.pod.link()
        self.web = net.server.popen([*self.pod.wrap, "/usr/bin/python3", "-c", SERVER, net.server.ip4], stdin=subprocess.DEVNULL)
        self.count = 0

    def close(self):
        self.node.close()
        self.operator.process.kill()
        self.web.kill()
        self.web.wait()
        self.pod.close()

    def explain(self):
        print("    the resource:", json.dumps(status_of(self.c)))
        print("    the node:", "; ".join(self.node.wrong[-3:]))
        for name, process in ("operator", self.operator.process), ("loader", self.node.container and self.node.container.process):
            if process:
                print(f"    the {name}:\n        " + "\n        ".join(line[:400] for line in process.tail(8).splitlines()))

    def curl(self, *more):
        """From the other host; the path that it asked for."""
        self.count += 1
        path = f"/e2e-{os.getpid()}-{self.count}-{os.urandom(4).hex()}"
        with self.net.client.inside():
            done = subprocess.run(["curl", "-sS", "--retry", "5", "--retry-connrefused", "--max-time", "30", *more, f"http://{self.net.server.ip4}:8000{path}"],
                                  capture_output=True, text=True)
        equal((done.returncode, done.stdout), (0, "hello from the node\n"), f"curl ({done.stderr})")
        return path

    def loader(self):
        """The loader that is there, once the cluster says that it is ready."""
        self.c.kubectl("wait", "--for=condition=Ready", "ebpfdump/example", "-n", NAMESPACE, "--timeout=40s")
        return until(lambda: self.node.container, "the loader")


SERVER = r"""
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "20")
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(b"hello from the node\n")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer((sys.argv[1], 8000), Handler).serve_forever()
"""


def pair(messages, path):
    """The request for this path and its response at the server's end, if both are there."""
    messages = [m for m in messages if m["direction"] == (0 if m["status_code"] else 1)]
    request = [m for m in messages if m["path"] == path]
    if not request:
        return None
    ends = [request[0][k] for k in ("dst_ip", "dst_port", "src_ip", "src_port")]
    answer = [m for m in messages if m["status_code"] and [m[k] for k in ("src_ip", "src_port", "dst_ip", "dst_port")] == ends]
    return (request[0], answer[0]) if answer else None


def examine(found):
    request, answer = found
    equal((request["method"], answer["status_code"], answer["body"]), ("GET", 200, "hello from the node\n"), "the exchange")
    equal({request["node"], answer["node"]}, {"node-1"}, "the node")
    equal({(m["namespace"], m["pod"], m["container"]) for m in found}, {("shop", "web-0", "server")}, "whose it is")


@test
def a_resource_and_a_message(w):
    w.c.apply(dump("example", interfaces=[DEVICE]))
    loader = w.loader()
    path = w.curl("-H", "Authorization: Bearer top-secret")
    found = until(lambda: pair(loader.lines(), path), lambda: f"the message; the loader said {short(loader.process.tail(5))}")
    examine(found)
    check("top-secret" not in loader.log.read_text(), "a credential is in the log")
    line = w.c.kubectl("get", "ebpfdump", "example", "-n", NAMESPACE).splitlines()[1].split()
    equal(line[1:4], ["True", "True", "1/1"], "what kubectl get shows")
    w.node.right()


@test
def the_operator_is_away(w):
    """Loaders go on without it, and a new one leaves them as they are."""
    loader = w.loader()
    w.operator.process.kill()
    path = w.curl()
    until(lambda: pair(loader.lines(), path), "the message without an operator")
    w.operator = Operator(w.c, *QUICK)
    until(w.operator.leads, "the next one leads", 60)
    time.sleep(1)
    check(w.node.container is loader and loader.process.alive(), "the loader was replaced")
    w.node.right()


@test
def a_loader_dies(w):
    loader = w.loader()
    things = nodes.held(loader.process.pid)
    check({"prog", "map"} <= {kind for kind, _ in things}, f"the loader holds {things}")
    loader.process.kill()
    until(lambda: loader.restarts == 1 and loader.process.alive(), "the kubelet restarts it")
    loader = w.loader()
    path = w.curl()
    until(lambda: pair(loader.lines(), path), "a message of the new one")
    nodes.wait_gone(things)
    w.node.right()


@test
def a_callback_is_added(w):
    """With a token that only the Secret holds, and a key by which the loaders' own messages are told."""
    tokens = w.c.dir / "token"
    tokens.write_text(SECRET)
    out = w.c.dir / "received"
    with w.net.client.inside():
        receiver = nodes.Process([w.node.image / "ebpfdump-callback", f"--listen={w.net.client.ip4}:9376", f"--token-file={tokens}", "--log-level=warn"], out)
    w.c.started.append(receiver)
    w.c.kubectl("create", "secret", "generic", "receiver", "-n", NAMESPACE, f"--from-literal=headers=Authorization: Bearer {SECRET}\n")
    w.c.kubectl("patch", "ebpfdump", "example", "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": {
        "callback": f"http://{w.net.client.ip4}:9376/ingest", "callbackSecretRef": {"name": "receiver", "headersKey": "headers"}}}))
    until(lambda: "callback" in str(w.node.container and w.node.container.arguments()), "the roll-out")
    loader = w.loader()
    check(SECRET not in " ".join(loader.arguments()), "the secret is in the arguments")
    path = w.curl()

    def received():
        return [json.loads(line) for line in out.read_text(errors="replace").splitlines() if line.startswith('{"direction"')]
    found = until(lambda: pair(received(), path), lambda: f"the message at the receiver; loader: {short(loader.process.tail(4))}; receiver: {receiver.tail(4)}")
    examine(found)
    equal(loader.lines(), [], "messages on standard output, which has the callback instead")
    path = w.curl()
    until(lambda: pair(received(), path), "another one")
    time.sleep(1)
    posts = [m["path"] for m in received() if m["path"].startswith("/ingest")]
    equal(posts, [], "the loader's own messages")
    w.node.right()


@test
def an_interface_that_is_not_there(w):
    """Neither a crash loop nor silence."""
    w.c.kubectl("patch", "ebpfdump", "example", "-n", NAMESPACE, "--type=json", "-p", json.dumps([
        {"op": "remove", "path": "/spec/callback"}, {"op": "remove", "path": "/spec/callbackSecretRef"},
        {"op": "replace", "path": "/spec/interfaces", "value": ["nosuch0"]}]))
    until(lambda: "--interface=nosuch0" in (w.node.container.arguments() if w.node.container else []), "the roll-out")
    loader = w.node.container
    time.sleep(2)
    check(loader.process.alive() and loader.restarts == 0, f"the loader ended: {loader.process.tail()}")
    check("nosuch0" in loader.log.read_text(), "the loader does not say it")
    w.c.kubectl("patch", "ebpfdump", "example", "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": {"interfaces": [DEVICE]}}))
    until(lambda: f"--interface={DEVICE}" in (w.node.container.arguments() if w.node.container else []), "the roll-out")
    loader = w.loader()
    path = w.curl()
    until(lambda: pair(loader.lines(), path), "a message")
    w.node.right()


@test
def the_resource_is_deleted(w):
    loader = w.loader()
    pid = loader.process.pid
    things = nodes.held(pid)
    equal(nodes.there(things), things, "what it holds is in the kernel")
    check({"prog", "map", "link"} <= {kind for kind, _ in things}, f"the loader holds {things}")
    w.c.kubectl("delete", "ebpfdump", "example", "-n", NAMESPACE)
    until(lambda: not daemonset(w.c), "no DaemonSet")
    until(lambda: w.node.container is None, "no loader")
    until(lambda: loader in w.node.ended and not loader.process.alive(), "its end")
    equal(loader.process.popen.returncode, 0, "its exit status")
    nodes.wait_gone(things)
    until(lambda: not w.c.get("pods", "-n", NAMESPACE), "no pods")
    w.node.right()
    equal(w.operator.stop(), 0, "the operator's exit status")
