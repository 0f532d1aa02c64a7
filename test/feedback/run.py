#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
usage: run.py LOADER [WORD...]

A callback does not feed itself: loaders that see everything, their own POSTs among it, on hosts around a router, with
receivers of ours and of others. Runs the tests whose names contain one of the words, or all. Needs root: for eBPF, and
for network namespaces.
"""
import os
import pathlib
import signal
import sys

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "native")]

import harness  # noqa: E402
import marked  # noqa: E402,F401
import callback  # noqa: E402,F401


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__.strip())
    if os.geteuid() != 0:
        sys.exit("run.py: needs root (eBPF, network namespaces): sudo make feedback")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "NO_COLOR":
            del os.environ[name]
    os.environ["LC_ALL"] = "C.UTF-8"
    harness.Loader.program = os.path.abspath(sys.argv[1])
    harness.remove_stale_hosts()
    sys.exit(harness.run_tests(sys.argv[2:]))


if __name__ == "__main__":
    main()
