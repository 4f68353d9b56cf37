# SPDX-License-Identifier: GPL-2.0-or-later
"""A slow link between two network namespaces: pages that are needed do not wait for all the others."""

import contextlib
import os
import subprocess
import time

from world import Failure, World, expect, host

LINK_BYTES_S = 125_000_000
SECONDS = 2.5
ATTEMPTS = 3  # on a machine that has other things to do


def _ip(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True,
                          check=False, timeout=20)
    if done.returncode:
        raise host.Unavailable(f"{' '.join(map(str, words))}: {done.stderr.strip()}")


@contextlib.contextmanager
def _link(rate="1gbit"):
    """Two namespaces with a link of that rate, both ways; their names and addresses."""
    spaces = [f"pcp-{os.getpid()}-{end}" for end in "ab"]
    addresses = ["10.213.77.1", "10.213.77.2"]
    with contextlib.ExitStack() as ends:
        for space in spaces:
            _ip("ip", "netns", "add", space)
            ends.callback(subprocess.run, ["ip", "netns", "del", space], check=False)
        _ip("ip", "link", "add", "pcp0", "netns", spaces[0], "type", "veth",
            "peer", "name", "pcp0", "netns", spaces[1])
        for space, address in zip(spaces, addresses):
            _ip("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "pcp0")
            _ip("ip", "-n", space, "link", "set", "lo", "up")
            _ip("ip", "-n", space, "link", "set", "pcp0", "up")
            _ip("tc", "-n", space, "qdisc", "add", "dev", "pcp0", "root", "tbf",
                "rate", rate, "burst", "64kb", "latency", "50ms")
        yield list(zip(spaces, addresses))


def _daemon(end, **sections):
    """The settings of a daemon at an end of the link."""
    return {"netns": end[0], "host_address": end[1], "peer": {"insecure_plaintext": "yes"},
            **sections}


def _bulk_bytes(arrived):
    return sum(c["bytes"] for c in arrived["channels"] if c["kind"] == "bulk")


def _measure(stream, *, fill=384, pause=500):
    """The figures of an import after some seconds of faults, and what the stream took of the link."""
    never = {"import": {"stream_delay_ms": 60000}}
    with _link() as ends, World(source=_daemon(ends[0]),
                                destination=_daemon(ends[1], **never)) as world:
        source, destination = world.vms(mem=fill, fill=fill, threads=1, pause=pause)
        world.offer(source)
        source.do("seal")
        destination.do("run" if stream else "guest")
        time.sleep(0.3)
        before, begin = world.destination.imported("vm"), time.monotonic()
        time.sleep(SECONDS)
        after, end = world.destination.imported("vm"), time.monotonic()
        destination.no_bad_word()
        destination.kill()
        source.kill()
        rate = (_bulk_bytes(after) - _bulk_bytes(before)) / (end - begin)
        return after, rate / LINK_BYTES_S


def _compare():
    """Whether faults and stream get along, and the figures."""
    quiet, _ = _measure(False)
    busy, share = _measure(True)
    expect(quiet["pages"]["by_stream"] == 0, quiet["pages"])
    p99 = [figures["latency"]["p99_ns"] / 1e6 for figures in (quiet, busy)]
    said = (f"p99 {p99[0]:.2f} ms of {quiet['latency']['count']} faults, with the stream "
            f"{p99[1]:.2f} ms of {busy['latency']['count']}; {share:.0%} of the link")
    return p99[1] <= 8 * p99[0] and share >= 0.6, said


def slow_link():
    """The stream keeps most of a link of 1 Gbit/s, and faults take little longer for it."""
    for _ in range(ATTEMPTS):
        good, said = _compare()
        if good:
            return said
    raise Failure(said)
