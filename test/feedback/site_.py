# SPDX-License-Identifier: Apache-2.0
"""site_: three hosts (a, b, c) around a router, which may translate addresses."""
import random
import subprocess

import harness
from harness import DEVICE, Host


class Site:
    """
    Each host's only device has the name that a loader of the tests looks at; its loopback has not, so that the test can
    ask a loader there unseen. With nat, a and b reach c at the router's
    address (public) alone, and c sees the router's address as theirs.
    """

    def __init__(self, nat=False):
        number = next(harness.Net.numbers)
        prefix = f"{harness._PREFIX}{harness.os.getpid()}-{number}"
        x = random.randrange(1, 250)
        self.router = f"{prefix}r"
        self.hosts = [Host(f"{prefix}{name}", f"10.{x}.{i}.2", f"fd00:{x:x}:{i}::2") for i, name in enumerate("abc")]
        self.a, self.b, self.c = self.hosts
        self.public = f"10.{x}.0.1" if nat else self.c.ip4
        self.inside_address = f"10.{x}.2.1"  # the router's, as c sees it
        try:
            self._build(x)
            if nat:
                self._translate()
        except BaseException:
            self.close()
            raise

    def _build(self, x):
        harness._ip(f"netns add {self.router}", *[f"netns add {h.name}" for h in self.hosts])
        for i, host in enumerate(self.hosts):
            harness._ip(f"link add {DEVICE} netns {host.name} type veth peer name r{i} netns {self.router}")
            harness._ip("link set lo up", f"addr add {host.ip4}/24 dev {DEVICE}",
                        f"addr add {host.ip6}/64 dev {DEVICE} nodad", f"link set {DEVICE} up",
                        f"route add default via 10.{x}.{i}.1", netns=host.name)
            harness._ip(f"addr add 10.{x}.{i}.1/24 dev r{i}", f"addr add fd00:{x:x}:{i}::1/64 dev r{i} nodad",
                        f"link set r{i} up", netns=self.router)
            harness._ip(f"route add ::/0 via fd00:{x:x}:{i}::1", netns=host.name)
        self._router("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")

    def _router(self, *argv, stdin=None):
        done = subprocess.run(["ip", "netns", "exec", self.router, *argv], input=stdin, text=True, capture_output=True)
        if done.returncode:
            raise harness.Failure(f"{argv[0]} on the router: {done.stderr}")

    def _translate(self):
        self._router("nft", "-f", "-", stdin=f"""
            table ip t {{
              chain pre {{ type nat hook prerouting priority dstnat;
                iifname {{ "r0", "r1" }} ip daddr {self.public} dnat to {self.c.ip4}; }}
              chain post {{ type nat hook postrouting priority srcnat; oifname "r2" masquerade random; }}
            }}""")

    def close(self):
        for name in [self.router, *[h.name for h in self.hosts]]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
