#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
usage: run.py BUILD

From `kubectl apply` of an EbpfDump to messages, and back to nothing: a real API server, the operator, and the loader
started as the DaemonSet's template says, by a stand-in for a node. BUILD: the folder of the programs. Needs root: for eBPF, and for
network namespaces. Where Debian's packages cannot be had today it says so, and is skipped.
"""
import os
import pathlib
import signal
import sys

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "api"), str(HERE.parent / "native")]

import cluster  # noqa: E402
import harness  # noqa: E402
import operators  # noqa: E402
import scenario  # noqa: E402


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__.strip())
    if os.geteuid() != 0:
        sys.exit("run.py: needs root (eBPF, network namespaces): sudo make e2e")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "NO_COLOR":
            del os.environ[name]
    os.environ["LC_ALL"] = "C.UTF-8"
    operators.Operator.program = pathlib.Path(sys.argv[1]).resolve() / "ebpfdump-operator"
    bin = cluster.programs()
    if bin is None:
        print("SKIPPED: no API server, since Debian sid's packages cannot be had\n0 passed, 0 failed, 1 skipped")
        return 0
    harness.remove_stale_hosts()
    net = harness.Net()
    c = world = None
    passed, failed = 0, 1
    try:
        c = cluster.Cluster(bin)
        world = scenario.World(c, net, sys.argv[1])
        passed, failed = cluster.run_tests([world], [], chain=True)
        if failed:
            world.explain()
    finally:
        if world:
            world.close()
        if c:
            c.close()
        net.close()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
