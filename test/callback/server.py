# SPDX-License-Identifier: Apache-2.0
"""A receiver that misbehaves as it is told, in a thread of its own, and keeps what it accepted."""
import asyncio
import gzip
import json
import pathlib
import socket
import struct
import sys
import threading
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
from ports import free_port


class Request:
    def __init__(self, line, headers, body, at):
        self.line, self.headers, self.body, self.at = line, headers, body, at

    def messages(self):
        body = gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body
        return [json.loads(line) for line in body.split(b"\n") if line]


class Answer:
    """What becomes of a request. fault: None, "reset" or "silent"."""

    def __init__(self, status=200, headers=(), body=b"", fault=None, delay=0, endless=False):
        self.status, self.headers, self.body, self.fault = status, headers, body, fault
        self.delay, self.endless = delay, endless


def ok(_=None):
    return Answer()


class Server:
    """behave(request) -> Answer, for each request as a whole; early(): Answer or None once the head is read."""

    def __init__(self, behave=ok, early=None, port=None, host="127.0.0.1", tls=None, read_slowly=0, garbage=None):
        self.behave, self.early, self.read_slowly, self.garbage = behave, early, read_slowly, garbage
        self.host, self.tls = host, tls
        self.port = port or free_port(host)
        self.accepted, self.seen, self.connections = [], [], 0
        self.writers = set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = None
        self.open()

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def open(self):
        async def start():
            self.server = await asyncio.start_server(self.serve, self.host, self.port, ssl=self.tls, limit=1 << 20)

        self.call(start())

    def close(self):
        """No more connections, and those that are open end."""

        async def stop():
            self.server.close()
            for w in list(self.writers):
                w.transport.abort()

        self.call(stop())

    def done(self):
        async def end():
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()
            await asyncio.sleep(0)

        self.close()
        self.call(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def numbers(self):
        return [m["seq"] for r in list(self.accepted) for m in r.messages()]

    async def body_of(self, reader, length):
        if not self.read_slowly:
            return await reader.readexactly(length)
        body = b""
        while len(body) < length:
            body += await reader.readexactly(min(self.read_slowly, length - len(body)))
            await asyncio.sleep(0.05)
        return body

    @staticmethod
    def reset(writer):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def answer(self, writer, a):
        """Whether the connection goes on."""
        if a.delay:
            await asyncio.sleep(a.delay)
        if a.fault == "reset":
            self.reset(writer)
            return False
        if a.fault == "silent":
            await asyncio.sleep(3600)
        length = [] if a.endless else [("Content-Length", str(len(a.body)))]
        head = f"HTTP/1.1 {a.status} X\r\n" + "".join(f"{n}: {v}\r\n" for n, v in [*a.headers, *length]) + "\r\n"
        writer.write(head.encode() + a.body)
        await writer.drain()
        while a.endless:
            writer.write(b"x" * 65536)
            await writer.drain()
        return True

    async def serve(self, reader, writer):
        self.connections += 1
        self.writers.add(writer)
        try:
            if self.garbage:
                writer.write(self.garbage)
                await writer.drain()
                return
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {}
                for line in head[1:-2]:
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                early = self.early() if self.early else None
                if early and not await self.answer(writer, early):
                    return
                body = await self.body_of(reader, int(headers.get("content-length", 0)))
                request = Request(head[0], headers, body, time.monotonic())
                self.seen.append(request)
                a = self.behave(request)
                if a.status // 100 == 2 and not a.fault:
                    self.accepted.append(request)
                if not await self.answer(writer, a):
                    return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, OSError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()
