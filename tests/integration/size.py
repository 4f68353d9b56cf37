# SPDX-License-Identifier: GPL-2.0-or-later
"""What an import costs, and that sparse memory costs what is in it."""

import time

from world import MIB, SLOW, Failure, World, expect, host

VMS = 8
GUEST_GIB = 1
IDLE_BYTES_MAX = 1 * MIB + 128 * 1024 * GUEST_GIB


def _rss(daemon):
    """Bytes resident, shared ones (the page tables' memfds) among them."""
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
    return 0


def idle_imports():
    """Armed imports of 1 GiB guests, nothing arriving yet."""
    with World() as world:
        pairs = [world.vms(f"vm{i}", mem=1024 * GUEST_GIB, fill=1) for i in range(VMS + 1)]
        world.offer(pairs[0][0])  # what comes with the first is the daemon's, not the import's
        time.sleep(0.5)
        before = _rss(world.destination)
        for source, _ in pairs[1:]:
            world.offer(source)
        time.sleep(0.5)
        after = _rss(world.destination)
        imports = world.destination.stats()["imports"]
        expect(len(imports) == VMS + 1 and all(i["state"] == "armed" for i in imports), imports)
        table = sum(i["table_bytes"] for i in imports[1:])
        each = (after - before + table) / VMS
        for source, _ in pairs:
            source.do("cancel")
        for _, destination in pairs:
            destination.wait_event("cancelled")
        said = f"{each / 1024:.0f} KiB each, {table / VMS / 1024:.0f} of them table"
        if SLOW == 1:  # a sanitizer's own memory is not ours
            expect(each <= IDLE_BYTES_MAX, said)
        return said


def _moved(mem, fill, **shape):
    """Seconds until complete, and the import's figures."""
    with World(destination={"import": {"stream_delay_ms": 0}}) as world:
        source, destination = world.vms(mem=mem, fill=fill, sparse=True, read_only=True, **shape)
        world.offer(source)
        source.do("seal")
        destination.wait_event("released")
        arrived, _ = world.figures()
        destination.do("run")
        destination.verified(1)
        expect(arrived["populated_bytes"] == fill * MIB, arrived)
        return arrived


def _told(arrived):
    return (f"{arrived['memory_bytes'] // MIB} MiB: {arrived['complete_ms']:.0f} ms, table "
            f"{arrived['table_bytes'] // 1024} KiB, wire {arrived['received_bytes'] // 1024} KiB")


def one_tebibyte():
    """64 MiB in a sparse TiB cost about what they cost by themselves."""
    dense = _moved(64, 64)
    try:
        sparse = _moved(1 << 20, 64)
    except Failure as failure:
        if "Cannot allocate memory" not in str(failure):
            raise
        raise host.Unavailable("this process has no room for a TiB of addresses") from failure
    said = f"{_told(dense)}; {_told(sparse)}"
    print(said, flush=True)
    expect(sparse["received_bytes"] < dense["received_bytes"] * 1.2, said)
    # A page of the table stands for 8192 of memory; scattered runs touch one each at worst.
    expect(sparse["table_bytes"] <= 64 * MIB // 8 + MIB, said)
    expect(sparse["complete_ms"] < dense["complete_ms"] * 10 + 1000, said)
    return said
