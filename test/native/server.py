# SPDX-License-Identifier: Apache-2.0
"""
usage: server.py ADDRESS PORT

A web server for the tests. It takes any method, reads the body (by length or chunked) and answers as the query says:
  (nothing)   the body's SHA-256, as text        echo=1     the body itself
  size=N      N bytes of the pattern             chunks=1   chunked: the answer in chunks of 1000
  close=1     no length: until the connection closes
  sum=1       a random body behind its own SHA-256, text or bytes by chance
A header X-Id of the request comes back.
"""
import hashlib
import http.server
import os
import random
import socket
import sys
import urllib.parse


def pattern(size):
    return b"".join(b"%07d\n" % i for i in range(size // 8 + 1))[:size]


def summed(limit):
    """A body that says whether it is whole: the SHA-256 of the rest, then the rest."""
    rest = os.urandom(random.randrange(limit))
    if random.randrange(2):
        rest = rest.hex().encode()[:len(rest)]
    return hashlib.sha256(rest).hexdigest().encode() + rest


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def read_body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            body += self.rfile.read(size)
            if not size:
                break
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def answer(self):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        body = self.read_body()
        if "size" in query:
            body = pattern(int(query["size"]))
        elif "sum" in query:
            body = summed(40000)
        elif "echo" not in query:
            body = hashlib.sha256(body).hexdigest().encode() + b"\n"
        self.send_response(200)
        if "X-Id" in self.headers:
            self.send_header("X-Id", self.headers["X-Id"])
        if "chunks" in query:
            self.send_header("Transfer-Encoding", "chunked")
        elif "close" in query:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if "chunks" in query:
            for i in range(0, len(body), 1000):
                part = body[i:i + 1000]
                self.wfile.write(b"%x;name=value\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\nX-Trailer: last\r\n\r\n")
        else:
            self.wfile.write(body)

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET


if __name__ == "__main__":
    Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
