#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: hack/demo.sh LOADER
# A web server in one network namespace, a client in another, and what the loader shows of them. Cleans up.
set -eu
loader=$1
[ "$(id -u)" -eq 0 ] || exec sudo "$0" "$@"
if ! command -v curl >/dev/null || [ ! -x /usr/bin/python3 ]; then
	echo "demo.sh: curl and python3 are needed (hack/deps.sh test)" >&2
	exit 1
fi

tag=ebpfdump$$
dir=$(mktemp -d)
pids=''
clean() {
	for p in $pids; do kill "$p" 2>/dev/null || :; done
	wait 2>/dev/null || :
	ip netns del "$tag-s" 2>/dev/null || :
	ip netns del "$tag-c" 2>/dev/null || :
	rm -rf "$dir"
}
trap clean EXIT
trap 'exit 130' INT TERM

ip netns add "$tag-s"
ip netns add "$tag-c"
ip link add eth0 netns "$tag-s" type veth peer name eth0 netns "$tag-c"
ip -n "$tag-s" addr add 10.99.0.1/24 dev eth0
ip -n "$tag-c" addr add 10.99.0.2/24 dev eth0
for ns in "$tag-s" "$tag-c"; do
	ip -n "$ns" link set lo up
	ip -n "$ns" link set eth0 up
done

cat >"$dir/server.py" <<'P'
import http.server, json
class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status, body, kind="application/json"):
        body = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
    def do_GET(self):
        if self.path == "/":
            self.answer(200, "<h1>shop</h1>\n", "text/html")
        elif self.path.startswith("/items"):
            self.answer(200, json.dumps({"items": ["tea", "coffee"]}))
        else:
            self.answer(404, '{"error": "no such page"}')
    do_HEAD = do_GET
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(201 if self.path == "/orders" else 500, '{"id": 1}')
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("10.99.0.1", 80), Shop).serve_forever()
P
ip netns exec "$tag-s" /usr/bin/python3 "$dir/server.py" &
pids="$pids $!"

echo "A client (10.99.0.2) visits a server (10.99.0.1). Each message is seen twice, as it is sent and as it is received:"
echo
"$loader" --interface eth0 --output text --listen '' --log-level warn &
loader_pid=$!
pids="$pids $loader_pid"
sleep 2

visit() { ip netns exec "$tag-c" curl -s -o /dev/null --max-time 5 "$@" || :; }
visit http://10.99.0.1/
visit 'http://10.99.0.1/items?kind=drink'
visit -X POST -H 'Content-Type: application/json' -d '{"item": "tea"}' http://10.99.0.1/orders
visit -I http://10.99.0.1/
visit http://10.99.0.1/nothing-here
visit -d x http://10.99.0.1/broken
sleep 1
kill -TERM $loader_pid
wait $loader_pid || :
