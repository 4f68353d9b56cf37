# SPDX-License-Identifier: GPL-2.0-or-later
"""Regions that come and go while faults are served, as memory that is plugged and unplugged."""

import re

from world import World, expect, mentions

SHAPE = {"regions": 4, "pluggable": True}
HOMES = {"import": {"resolvers": 4, "shards": 4}}


def _world(rate=None, config=None, absent=False, source=None, **shape):
    """A VM on its way, slowly if there is a rate, whose last region is not looked at by its guest."""
    world = World(destination=config, proxied=rate is not None)
    try:
        left, arrived = world.vms(**{**SHAPE, **shape, **(source or {})},
                                  to={"absent": True} if absent else None)
        world.offer(left)
        if rate:
            world.proxy.slow(rate)
        left.do("seal")
    except BaseException:
        world.__exit__(None, None, None)
        raise
    return world, left, arrived


def _added(backing):
    world, source, destination = _world(absent=True, backing=backing)
    with world:
        destination.do("run")
        # Everything else comes, and it waits for the region that is not there.
        missing = 32 * (1 << 20) // 4
        world.destination.wait_import(
            "vm", lambda i: i["populated_bytes"] - i["present_bytes"] < missing * 1.3)
        destination.verified(2)
        expect(world.destination.imported("vm")["state"] == "running", "complete without a region")
        destination.do("plug")
        destination.do("check")
        arrived, _ = world.complete(source, destination)
        return f"{arrived['faults']} faults"


def added():
    """An absent region comes in mid-import; every word of it is the source's."""
    return _added("memfd")


def added_anonymous():
    """Of anonymous memory."""
    return _added("anonymous")


def removed():
    """A region goes in mid-import, faults go on elsewhere, and the import completes without it."""
    world, source, destination = _world(rate=8 << 20, backing="memfd")
    with world:
        destination.do("run")
        destination.do("unplug")
        mentions(destination.refused("unplug"), "no region")
        arrived, left = world.complete(source, destination)
        expect(left["pages_read"] < source.populated, f"{left['pages_read']} pages read")
        return f"{left['pages_read']} of {source.populated} pages read, {arrived['faults']} faults"


def removed_and_added():
    """What was removed is fresh memory when it comes back, whatever its pages were."""
    world, source, destination = _world(rate=2 << 20, backing="memfd")
    with world:
        destination.do("run")
        for _ in range(3):
            destination.do("unplug")
            destination.do("plug")
            destination.do("check")
        expect(world.destination.imported("vm")["state"] == "running", "it was over before")
        world.proxy.slow(1 << 30)
        world.complete(source, destination)


def removed_slowly():
    """While pages of it are being received in place, over a link that hardly moves."""
    world, source, destination = _world(rate=1 << 20, backing="memfd", mem=32, fill=16)
    with world:
        destination.do("run")
        for _ in range(5):
            destination.do("unplug")
            destination.do("plug")
        destination.do("check")
        world.proxy.slow(1 << 30)
        world.complete(source, destination)


def _churn(config=None, **shape):
    config = {"import": {"stream_delay_ms": 60000, **(config or {}).get("import", {})}}
    world, source, destination = _world(
        config=config, **{"backing": "memfd", "mem": 256, "fill": 128, "threads": 4, "churn": True,
                          **shape})
    with world:
        destination.do("faults")
        line = destination.wait_line("FAULTED")
        changes = int(re.search(r"changes=(\d+)", line).group(1))
        expect(changes >= 4, line)
        destination.do("run")
        world.complete(source, destination)
        return line


def churn():
    """A region comes and goes in a loop while the others fault."""
    return _churn()


def churn_removable():
    """The same of anonymous memory, absent at first."""
    return _churn(backing="anonymous", absent=True)


def churn_many_resolvers():
    """Several resolvers wait for each shard, and hand faults over to each other."""
    return _churn(HOMES, threads=8)


def _dies(absent, command):
    world, source, destination = _world(rate=8 << 20, backing="memfd", absent=absent)
    with world:
        destination.do("run")
        begun = destination.begin(command)
        world.destination.kill()
        destination.wait_event("disconnected")
        world.destination.start()
        refusal = destination.answered(begun)
        if refusal is not None:
            expect(absent, refusal)
            destination.do(command)
        if not absent:
            destination.do("plug")
        destination.do("check")
        world.complete(source, destination)
        return refusal


def daemon_dies():
    """The daemon is killed while a region comes: it came, or comes at the second call."""
    return _dies(True, "plug")


def daemon_dies_removing():
    """The daemon is killed while a region goes: its successor hears of it."""
    return _dies(False, "unplug")
