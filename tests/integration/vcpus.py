# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose fault it is: figures of each vCPU, resolvers that follow their vCPUs, home resolvers."""

import os
import re
from pathlib import Path

from world import World, expect, fetched, host, threads

# A fault takes no other page along and nothing is streamed until the guest is said to run.
SINGLE = {"around": "4K", "stream_delay_ms": 60000}
STEP = 40


def _settings(**more):
    return {"import": {**SINGLE, **more}}


def _probe(world, vms, words=STEP):
    """Threads of the destination touch pages of their own; what each did, and the figures."""
    source, destination = vms
    world.offer(source)
    source.do("seal")
    destination.do(f"probe {words}")
    lines = [re.fullmatch(r"PROBED vcpu=(\d+) tid=(\d+) pages=(\d+) bad=0", line)
             for line in destination.lines if line.startswith("PROBED")]
    expect(lines and all(lines), destination.lines)
    probed = [tuple(map(int, line.groups())) for line in lines]
    total = sum(pages for *_, pages in probed)
    # A fault is entered in the books after its thread was woken.
    return probed, world.destination.wait_import("vm", lambda i: i["latency"]["count"] >= total)


def _counted(probed, arrived):
    """Each thread's faults stand under its own id, and none anywhere else."""
    seen = [(v["vcpu"], v["tid"], v["faults"]) for v in arrived["vcpus"]]
    expect(seen == probed, f"{seen}, but {probed}")
    expect(all(v["latency"]["count"] == sum(v["latency"]["histogram"]) == v["faults"]
               for v in arrived["vcpus"]), arrived["vcpus"])
    total = sum(pages for *_, pages in probed)
    expect(arrived["faults"] == arrived["latency"]["count"] == total, arrived)


def _finish(world, vms):
    """All the rest comes, and what was probed is still right."""
    source, destination = vms
    destination.do("run")
    arrived, left = world.complete(source, destination)
    expect(left["pages_read"] == fetched(arrived["pages"]), (arrived["pages"], left))
    return arrived


def _cpus(world, n):
    """The CPUs of each of n resolvers."""
    resolvers = threads(world.destination.process.pid, "resolver-")
    expect(len(resolvers) == n, resolvers.keys())
    return [resolvers[f"resolver-{i}"]["Cpus_allowed_list"] for i in range(n)]


def _two_cpus():
    """Two CPUs that we may use, and all of them, as the kernel lists them."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise host.Unavailable("there is only one CPU here")
    everywhere = threads(os.getpid(), "")
    return allowed[:2], next(iter(everywhere.values()))["Cpus_allowed_list"]


def pid_namespace():
    """The client lives in another pid namespace: faults are told by thread ids of that one."""
    with World(destination=_settings(resolvers=2)) as world:
        vms = world.vms(mem=16, fill=8, threads=5, to={"pid_namespace": True})
        probed, arrived = _probe(world, vms)
        _counted(probed, arrived)
        inner = threads(arrived["pid"], "vmm")
        expect(all(len(status["NSpid"].split()) == 2 for status in inner.values()), inner)
        outer = {task.name for task in Path(f"/proc/{arrived['pid']}/task").iterdir()}
        expect(all(str(tid) not in outer for _, tid, _ in probed), (probed, outer))
        _finish(world, vms)
        return f"{probed}"


def pinned():
    """All vCPUs are kept to one CPU: so are all resolvers, until vCPUs may go anywhere again."""
    (_, cpu), everywhere = _two_cpus()
    for resolvers, namespace in ((1, False), (2, True)):
        with World(destination=_settings(resolvers=resolvers)) as world:
            vms = world.vms(mem=16, fill=8, threads=3, to={"pid_namespace": namespace})
            probed, arrived = _probe(world, vms, f"{STEP} {cpu}")
            _counted(probed, arrived)
            expect(_cpus(world, resolvers) == [str(cpu)] * resolvers, _cpus(world, resolvers))
            vms[1].do("run")
            expect(_cpus(world, resolvers) == [everywhere] * resolvers, _cpus(world, resolvers))
            world.complete(*vms)


def pinned_to_homes():
    """Each home resolver follows the vCPUs it serves."""
    (one, other), _ = _two_cpus()
    with World(destination=_settings(resolvers=2, dispatch="home")) as world:
        vms = world.vms(mem=16, fill=8, threads=4)
        probed, arrived = _probe(world, vms, f"{STEP} {one},{other}")
        _counted(probed, arrived)
        expect(_cpus(world, 2) == [str(one), str(other)], _cpus(world, 2))
        _finish(world, vms)


def pinned_apart():
    """vCPUs on different CPUs: whoever serves any of them stays where it is."""
    (one, other), everywhere = _two_cpus()
    with World(destination=_settings(resolvers=2)) as world:
        vms = world.vms(mem=16, fill=8, threads=4)
        _counted(*_probe(world, vms, f"{STEP} {one},{other}"))
        expect(_cpus(world, 2) == [everywhere] * 2, _cpus(world, 2))
        _finish(world, vms)


def homes():
    """Each fault is resolved by the home resolver of its vCPU, whoever read it."""
    with World(destination=_settings(resolvers=4, shards=4, dispatch="home")) as world:
        vms = world.vms(mem=256, fill=16, threads=8)
        probed, arrived = _probe(world, vms)
        _counted(probed, arrived)
        by_home = [sum(pages for vcpu, _, pages in probed if vcpu % 4 == i) for i in range(4)]
        _balance(arrived, by_home)
        arrived = _finish(world, vms)
        _balance(arrived)
        return ", ".join(f"{name} {_sum(arrived, name)}" for name in
                         ("faults", "handed_over", "wakes_owed", "queue_full"))


def looking():
    """How long resolvers look for work is what somebody said, or follows from this host's wake-ups."""
    found = []
    for said in (None, "auto", 0, 7, 1000):
        with World(destination={"import": {} if said is None else {"busy_poll_us": said}}) as world:
            found.append(world.destination.stats()["busy_poll_us"])
    expect(found[2:] == [0, 7, 1000], found)
    expect(all(50 <= measured <= 500 for measured in found[:2]), found)
    return f"found: {found[:2]} us"


def _sum(arrived, name):
    return sum(resolver[name] for resolver in arrived["resolvers"])


def _balance(arrived, by_home=None):
    """What was handed over was taken over, for less than a wake each."""
    resolvers = arrived["resolvers"]
    handed, taken = _sum(arrived, "handed_over"), _sum(arrived, "taken_over")
    expect(_sum(arrived, "faults") == arrived["faults"], arrived)
    # At the very end some may lie in a queue whose pages came by the stream meanwhile.
    expect(0 < taken <= handed, resolvers)
    expect(_sum(arrived, "wakes_owed") <= handed, resolvers)
    expect(all(r["handed_over"] + r["queue_full"] <= r["faults"] for r in resolvers), resolvers)
    expect(not by_home or taken == handed, resolvers)
    if by_home and not _sum(arrived, "queue_full"):
        resolved = [r["faults"] - r["handed_over"] + r["taken_over"] for r in resolvers]
        expect(resolved == by_home, f"{resolved}, but {by_home}")
