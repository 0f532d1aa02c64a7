# SPDX-License-Identifier: Apache-2.0
"""A scripted API server: as much of Kubernetes as the operator speaks, over plain HTTP, with faults on demand.

Objects are kept as the real one keeps them, as far as it matters here: resource versions, generations, server-side apply by
manager (fields that a manager stops to apply go away, a patch that changes nothing writes nothing), the status subresource,
deletion by preconditions, watches from a version on with bookmarks, 410 for what was compacted away.
"""
import copy
import io
import json
import queue
import re
import socket
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GROUP = "research.dynatrace.com/v1alpha1"
KINDS = {
    "ebpfdumps": (GROUP, "EbpfDump"),
    "daemonsets": ("apps/v1", "DaemonSet"),
    "deployments": ("apps/v1", "Deployment"),
    "leases": ("coordination.k8s.io/v1", "Lease"),
    "events": ("events.k8s.io/v1", "Event"),
    "coreevents": ("v1", "Event"),
    "pods": ("v1", "Pod"),
    "secrets": ("v1", "Secret"),
}


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def list_key(items):
    for key in ("mountPath", "uid", "type", "name"):
        if items and all(isinstance(i, dict) and key in i for i in items):
            return key
    return None


def merge(have, want):
    """What server-side apply makes of an object and an intent."""
    if isinstance(have, dict) and isinstance(want, dict):
        out = dict(have)
        for k, v in want.items():
            out[k] = merge(have.get(k), v)
        return out
    if isinstance(have, list) and isinstance(want, list):
        key = list_key(want)
        if key and list_key(have) == key:
            known = {i[key]: i for i in have}
            out = [merge(known.pop(i[key], None), i) for i in want]
            return [i for i in have if i[key] in known] + out
    return copy.deepcopy(want)


def prune(have, old, new):
    """Removes what the manager applied before and does not any more."""
    if isinstance(have, dict) and isinstance(old, dict):
        new = new if isinstance(new, dict) else {}
        for k in list(have):
            if k in old and k not in new:
                del have[k]
            elif k in old:
                prune(have[k], old[k], new[k])
    elif isinstance(have, list) and isinstance(old, list) and isinstance(new, list):
        key = list_key(old)
        if key and list_key(have) == key:
            kept = {i[key]: i for i in new if key in i}
            gone = {i[key]: i for i in old}
            have[:] = [i for i in have if i[key] not in gone or i[key] in kept]
            for i in have:
                if i[key] in gone:
                    prune(i, gone[i[key]], kept[i[key]])


def canonical(resources):
    for part in resources.values():
        for name, value in part.items():
            if name == "cpu" and re.fullmatch(r"0\.\d", str(value)):
                part[name] = str(int(float(value) * 1000)) + "m"


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # a client whose SYN is dropped tries again after a second


class Server:
    def __init__(self, nodes=None):
        self.lock = threading.RLock()
        self.rv = 100
        self.objects = {r: {} for r in KINDS}
        self.applied = {}
        self.log = []  # (time, port, verb, resource, key)
        self.history = []  # (rv, resource, type, object)
        self.compacted = 0
        self.watches = []
        self.crd = True
        self.down = False  # what the proxy says when the API server is not there
        self.frozen = False  # watches get nothing
        self.nodes = nodes  # plays the DaemonSet controller if not None
        self.numbers = {}  # of its status, where it is not simply done
        # f(verb, resource, key) -> None, "before" or "after": cut off there; ("slow", s), ("late", s): it waits before it is
        # done, or then before it is answered; or a function of the handler, which answers
        self.fault = None
        self.servers = []
        self.listen()

    # ---- as a test uses it ----

    def listen(self):
        """One more port; the log tells them apart."""
        server = Listener(("127.0.0.1", 0), Handler)
        server.api = self
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.servers.append(server)
        return server.server_address[1]

    @property
    def port(self):
        return self.servers[0].server_address[1]

    def close(self):
        with self.lock:
            self.cut()
        for s in self.servers:
            s.shutdown()
            s.server_close()

    def get(self, resource, key):
        with self.lock:
            return copy.deepcopy(self.objects[resource].get(key))

    def put(self, resource, key, **fields):
        """Makes or changes an object; fields are merged."""
        with self.lock:
            have = self.objects[resource].get(key)
            new = merge(have or {}, fields)
            return copy.deepcopy(self.store(resource, key, new))

    def change(self, resource, key, fn):
        with self.lock:
            new = copy.deepcopy(self.objects[resource][key])
            fn(new)
            self.store(resource, key, new)

    def delete(self, resource, key):
        with self.lock:
            o = self.objects[resource].pop(key, None)
            if o:
                self.rv += 1
                o["metadata"]["resourceVersion"] = str(self.rv)
                self.applied = {k: v for k, v in self.applied.items() if k[:2] != (resource, key)}
                self.tell(resource, "DELETED", o)

    def dump(self, name, namespace="default", created=None, **spec):
        meta = {"creationTimestamp": created} if created else {}
        return self.put("ebpfdumps", namespace + "/" + name, metadata=meta, spec=spec)

    def play(self, nodes, **numbers):
        """What the DaemonSet controller does from now on."""
        with self.lock:
            self.nodes, self.numbers = nodes, numbers
            for key, o in list(self.objects["daemonsets"].items()):
                self.roll_out(key, o)

    def cut(self):
        """Ends all watches in the middle."""
        with self.lock:
            for w in self.watches:
                w["queue"].put(("cut", None))

    def compact(self):
        with self.lock:
            self.history = []
            self.compacted = self.rv

    def writes(self, since=0, port=None, leases=False, events=False):
        with self.lock:
            return [l for l in self.log if l[0] >= since and l[2] not in ("get", "list", "watch")
                    and (port is None or l[1] == port) and (leases or l[3] != "leases")
                    and (events or l[3] != "events")]

    def calls(self, verb, resource):
        with self.lock:
            return len([l for l in self.log if l[2] == verb and l[3] == resource])

    # ---- the store ----

    def store(self, resource, key, new):
        old = self.objects[resource].get(key)
        namespace, name = key.split("/")
        meta = new.setdefault("metadata", {})
        new.setdefault("apiVersion", KINDS[resource][0])
        new.setdefault("kind", KINDS[resource][1])
        if old is None:
            meta.update(name=name, namespace=namespace, uid=str(uuid.uuid4()), generation=1)
            meta.setdefault("creationTimestamp", now())
        else:
            meta["uid"] = old["metadata"]["uid"]
            meta["generation"] = old["metadata"]["generation"]
            meta["resourceVersion"] = old["metadata"]["resourceVersion"]
            if resource == "daemonsets":
                self.default_set(new)
            if new.get("spec") != old.get("spec"):
                meta["generation"] += 1
        if resource == "daemonsets":
            self.default_set(new)
        if old == new:
            return old
        self.rv += 1
        meta["resourceVersion"] = str(self.rv)
        self.objects[resource][key] = new
        self.tell(resource, "ADDED" if old is None else "MODIFIED", new)
        if resource == "daemonsets" and self.nodes is not None:
            self.roll_out(key, new)
        return new

    def default_set(self, o):
        pod = o.get("spec", {}).get("template", {}).get("spec")
        if pod is not None:
            pod.setdefault("dnsPolicy", "ClusterFirst")
            pod.setdefault("restartPolicy", "Always")
            for c in pod.get("containers", []):
                c.setdefault("terminationMessagePath", "/dev/termination-log")
                canonical(c.get("resources", {}))

    def roll_out(self, key, o):
        n = self.nodes
        status = {"observedGeneration": o["metadata"]["generation"], "desiredNumberScheduled": n,
                  "currentNumberScheduled": n, "updatedNumberScheduled": n, "numberReady": n, "numberAvailable": n, **self.numbers}
        if o.get("status") != status:
            new = copy.deepcopy(o)
            new["status"] = status
            self.store("daemonsets", key, new)

    def tell(self, resource, kind, o):
        item = (self.rv, resource, kind, copy.deepcopy(o))
        self.history.append(item)
        if not self.frozen:
            for w in self.watches:
                if w["resource"] == resource:
                    w["queue"].put(("event", item))

    def apply(self, resource, key, manager, intent, part):
        """part: "status" or None. Returns (code, object)."""
        have = self.objects[resource].get(key)
        if have is None and part:
            return 404, None
        uid = intent.get("metadata", {}).pop("uid", None)
        if have and uid and uid != have["metadata"]["uid"]:
            return 409, None
        intent = {k: v for k, v in intent.items() if k == part} if part else \
            {k: v for k, v in intent.items() if k != "status"}
        owned = (resource, key, manager, part)
        new = copy.deepcopy(have) if have else {}
        prune(new, self.applied.get(owned, {}), intent)
        new = merge(new, intent)
        self.applied[owned] = copy.deepcopy(intent)
        return 200 if have else 201, self.store(resource, key, new)


class Cut(Exception):
    pass


PATHS = re.compile(r"^/(?:api/v1|apis/(?P<group>[^/]+)/(?P<version>[^/]+))(?:/namespaces/(?P<ns>[^/]+))?"
                   r"/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>status))?$")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (Cut, ConnectionError, BrokenPipeError):
            self.close_connection = True
            try:
                self.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def answer(self, code, body, kind="application/json", headers=()):
        data = body.encode() if isinstance(body, str) else json.dumps(body, separators=(",", ":")).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for k, v in headers:
            self.send_header(k, v)
        self.end_headers()
        self.wfile.write(data)

    def fail(self, code, reason, message="", headers=(), causes=()):
        self.answer(code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
                           "message": message or reason, "details": {"causes": list(causes)}}, headers=headers)

    def hung_up(self):
        """Whether nobody waits for the answer any more: the real one does not begin with such a request either."""
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False

    def do(self):
        api = self.server.api
        url = urllib.parse.urlsplit(self.path)
        query = {k: v[0] for k, v in urllib.parse.parse_qs(url.query).items()}
        length = int(self.headers.get("Content-Length", 0))
        data = self.rfile.read(length)
        if len(data) < length:  # it was killed meanwhile
            raise Cut
        body = json.loads(data) if length else {}
        assert "Authorization" not in self.headers
        if url.path in ("/version", "/readyz"):
            return self.answer(200, {"gitVersion": "v1.32.0"} if url.path == "/version" else "ok",
                               "application/json" if url.path == "/version" else "text/plain")
        m = PATHS.match(url.path)
        if not m:
            return self.answer(404, "404 page not found\n", "text/plain")
        resource = m["resource"]
        if resource == "events" and not m["group"]:
            resource = "coreevents"
        key = (m["ns"] or "") + "/" + (m["name"] or "")
        verb = {"GET": "get" if m["name"] else "watch" if query.get("watch") else "list", "POST": "create", "PUT": "update",
                "PATCH": "patch", "DELETE": "delete"}[self.command]
        with api.lock:
            what = resource + ("/status" if m["sub"] else "")
            api.log.append((time.monotonic(), self.server.server_address[1], verb, what, key))
            fault = api.fault and api.fault(verb, what, key)
        if fault == "before":
            raise Cut
        if callable(fault):
            return fault(self)
        if api.down:
            return self.answer(500, "dial tcp 10.0.0.1:443: connect: connection refused\n", "text/plain")
        if resource == "ebpfdumps" and not api.crd:
            return self.answer(404, "404 page not found\n", "text/plain")
        if fault and fault[0] == "slow":
            time.sleep(fault[1])
            if self.hung_up():
                raise Cut
        if verb == "watch":
            return self.watch(api, resource, m["ns"], query)
        out, late = self.wfile, fault and fault[0] == "late"
        if fault == "after" or late:
            self.wfile = io.BytesIO()
        with api.lock:
            getattr(self, "on_" + verb)(api, resource, key, m, query, body)
        if fault == "after":
            raise Cut
        if late:
            time.sleep(fault[1])
            out.write(self.wfile.getvalue())
            self.wfile = out

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

    def on_get(self, api, resource, key, m, query, body):
        o = api.objects[resource].get(key)
        if o is None:
            return self.fail(404, "NotFound")
        self.answer(200, o)

    def selected(self, api, resource, ns, query):
        field = dict(p.split("=", 1) for p in query.get("fieldSelector", "").split(",") if "=" in p)
        return [o for k, o in sorted(api.objects[resource].items())
                if (not ns or k.split("/")[0] == ns)
                and field.get("metadata.name") in (None, o["metadata"]["name"])]

    def on_list(self, api, resource, key, m, query, body):
        items = self.selected(api, resource, m["ns"], query)
        start, limit = int(query.get("continue", 0)), int(query.get("limit", 0))
        meta = {"resourceVersion": str(api.rv)}
        if limit and start + limit < len(items):
            meta["continue"] = str(start + limit)
        if limit:
            items = items[start:start + limit]
        self.answer(200, {"apiVersion": KINDS[resource][0], "kind": KINDS[resource][1] + "List", "metadata": meta,
                          "items": items})

    def on_create(self, api, resource, key, m, query, body):
        name = body["metadata"]["name"]
        key = m["ns"] + "/" + name
        if key in api.objects[resource]:
            return self.fail(409, "AlreadyExists")
        self.answer(201, api.store(resource, key, body))

    def on_update(self, api, resource, key, m, query, body):
        o = api.objects[resource].get(key)
        if o is None:
            return self.fail(404, "NotFound")
        if body["metadata"].get("resourceVersion") not in (None, o["metadata"]["resourceVersion"]):
            return self.fail(409, "Conflict")
        self.answer(200, api.store(resource, key, body))

    def on_patch(self, api, resource, key, m, query, body):
        if self.headers["Content-Type"] != "application/apply-patch+yaml":
            if key not in api.objects[resource]:
                return self.fail(404, "NotFound")
            return self.answer(200, api.store(resource, key, merge(api.objects[resource][key], body)))
        assert query.get("fieldManager") and query.get("force") == "true"
        assert "managedFields" not in body["metadata"] and "resourceVersion" not in body["metadata"]
        code, o = api.apply(resource, key, query["fieldManager"], body, m["sub"])
        if o is None:
            return self.fail(code, "NotFound" if code == 404 else "Conflict")
        self.answer(code, o)

    def on_delete(self, api, resource, key, m, query, body):
        o = api.objects[resource].get(key)
        if o is None:
            return self.fail(404, "NotFound")
        for k, v in body.get("preconditions", {}).items():
            if o["metadata"][k] != v:
                return self.fail(409, "Conflict")
        api.delete(resource, key)
        self.answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    # ---- watch ----

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def watch(self, api, resource, ns, query):
        name = dict(p.split("=", 1) for p in query.get("fieldSelector", "").split(",") if "=" in p).get("metadata.name")
        q = queue.Queue()
        with api.lock:
            rv = int(query["resourceVersion"])
            if rv < api.compacted:
                return self.fail(410, "Expired", "too old resource version")
            for item in api.history:
                if item[0] > rv and item[1] == resource:
                    q.put(("event", item))
            me = {"resource": resource, "queue": q}
            api.watches.append(me)
        try:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.flush()
            self.serve_watch(q, ns, name, time.monotonic() + int(query.get("timeoutSeconds", 300)))
        finally:
            with api.lock:
                api.watches.remove(me)

    def serve_watch(self, q, ns, name, until):
        while time.monotonic() < until:
            try:
                what, item = q.get(timeout=min(1, max(0.01, until - time.monotonic())))
            except queue.Empty:
                continue
            if what == "cut":
                raise Cut
            if what == "raw":
                self.chunk(item)
                continue
            o = item[3]
            if (ns and o["metadata"]["namespace"] != ns) or (name and o["metadata"]["name"] != name):
                continue
            self.chunk(json.dumps({"type": item[2], "object": o}, separators=(",", ":")).encode() + b"\n")
        self.chunk(b"")
