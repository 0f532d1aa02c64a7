# SPDX-License-Identifier: Apache-2.0
"""Ports for servers that come later, or go and come back.

What bind() gives for port 0 is of the range from which connections and other servers are given theirs: until it is used, or while it is
closed, somebody else may have it. These lie below.
"""
import pathlib
import random
import socket

_given = set()


def free_port(host="127.0.0.1"):
    """One that is free, and is given once to a process."""
    end = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    for _ in range(1000):
        port = random.SystemRandom().randrange(10000, max(end, 20000))
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((host, port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port
    raise OSError("no port is free")
