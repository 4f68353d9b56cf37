# SPDX-License-Identifier: GPL-2.0-or-later
"""Test programs that need a device."""

import subprocess

from soft_roce import ADDRESSES
from world import expect, postcopyd


def _run(name, *words):
    path = postcopyd.BUILD / "tests" / "rdma" / name
    done = subprocess.run([path, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    expect(done.returncode == 0, f"{name}: {done.returncode}: {done.stdout[-1400:]}")
    return done.stdout.strip().splitlines()[-1]


def transport():
    """Devices, memory, pairs and READs by themselves."""
    return _run("rdma_transport", *ADDRESSES)


def source():
    """What an export lets a device READ, and when no more."""
    return _run("rdma_source", *ADDRESSES)
