#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
usage: run.py OPERATOR [WORD...]

The resource and the operator against a real API server, through `kubectl proxy` and kubectl. Runs the tests whose names
contain one of the words, or all. Where Debian's packages cannot be had today it says so, and is skipped.
"""
import os
import signal
import sys

sys.dont_write_bytecode = True
os.environ.setdefault("LC_ALL", "C.UTF-8")

import cluster  # noqa: E402
import operators  # noqa: E402
import resources  # noqa: E402,F401
import reconcile  # noqa: E402,F401
import manifests  # noqa: E402,F401


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__.strip())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "NO_COLOR":
            del os.environ[name]
    operators.Operator.program = os.path.abspath(sys.argv[1])
    bin = cluster.programs()
    if bin is None:
        print("SKIPPED: no API server, since Debian sid's packages cannot be had\n0 passed, 0 failed, 1 skipped")
        return 0
    print((bin / "versions").read_text() if (bin / "versions").exists() else "", end="")
    c = cluster.Cluster(bin)
    try:
        passed, failed = cluster.run_tests([c], sys.argv[2:])
    finally:
        c.close()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
