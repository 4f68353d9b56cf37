# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory arrives no faster than it may, in fair shares, and whoever waits for a page gets it at once."""

import json
import time

from world import MIB, SLOW, Client, World, expect, mentions

NEVER = {"stream_delay_ms": 60000}


def _received(daemon, vms):
    """Bytes that came for each VM, and when."""
    figures = {i["vm"]: i["received_bytes"] for i in daemon.stats()["imports"]}
    return [figures[vm] for vm in vms], time.monotonic()


def _rates(daemon, vms, seconds=2.0, settle=0.4):
    """Bytes a second of each VM, counted over so long."""
    time.sleep(settle)
    before, begin = _received(daemon, vms)
    time.sleep(seconds)
    after, end = _received(daemon, vms)
    return [(b - a) / (end - begin) for a, b in zip(before, after)]


def _near(rate, wanted, tolerance, what):
    """Not above by more, and not below, where nothing else slows it down."""
    lowest = 1 - tolerance * (5 if SLOW > 1 else 1)
    expect(lowest * wanted <= rate <= (1 + tolerance) * wanted,
           f"{what}: {rate / MIB:.2f} MiB/s, not {wanted / MIB:.2f}")


def _limit(daemon, *words):
    """postcopyctl limit, which has to succeed; its answer."""
    done = daemon.ctl("limit", "--json", *map(str, words))
    expect(done.returncode == 0, done.stderr)
    return json.loads(done.stdout)


def _streaming(world, vm, fill=128, **shape):
    """A VM that streams, its guest at rest."""
    source, destination = world.vms(vm, mem=fill, fill=fill, **shape)
    world.offer(source)
    source.do("seal")
    destination.do("running")
    return source, destination


def respected():
    """Of the configuration, by the stream and faults together."""
    with World(destination={"import": {**NEVER, "limit": "20M"}}) as world:
        source, destination = world.vms(mem=128, fill=128, threads=1, pause=4000)
        world.move(source, destination)
        rate, = _rates(world.destination, ["vm"], 3.0)
        arrived = world.destination.imported("vm")
        _near(rate, 20 * MIB, 0.1, "limit of the host")
        expect(arrived["limit_bytes_s"] == 20 * MIB, arrived)
        expect(arrived["faults"] > 50 and arrived["pages"]["by_stream"] > 0, arrived["pages"])
        _limit(world.destination, "none")
        destination.wait_event("released")
        source.wait_event("done")
        destination.no_bad_word()
        return f"{rate / MIB:.2f} MiB/s of 20, {arrived['faults']} faults"


def faults_are_not_held_back():
    """A guest that touches all its memory has it long before the limit would allow."""
    fill = 32
    with World(destination={"import": {**NEVER, "vm_limit": "64K"}}) as world:
        source, destination = world.vms(mem=fill, fill=fill, threads=2)
        world.move(source, destination)
        begin = time.monotonic()
        arrived, _ = world.complete(source, destination, passes=1)
        took = time.monotonic() - begin
        allowed = fill * MIB / (64 << 10)
        expect(took < allowed / 8, f"{took:.0f} s")
        by_stream = arrived["pages"]["by_stream"] * 4096
        expect(by_stream <= (64 << 10) * (took + 1) + (1 << 20), arrived["pages"])
        return f"{fill} MiB in {took:.1f} s, {by_stream >> 10} KiB of it by the stream"


def fair():
    """Two VMs share a host's limit evenly, and what one leaves is the other's."""
    vms = ["one", "two"]
    with World(destination={"import": {**NEVER, "limit": "16M"}}) as world:
        pairs = [_streaming(world, vm) for vm in vms]
        even = _rates(world.destination, vms)
        for vm, rate in zip(vms, even):
            _near(rate, 8 * MIB, 0.15, vm)
        answer = _limit(world.destination, "two", "4M")
        expect({v["vm"]: v["limit_bytes_s"] for v in answer["vms"]} == {"two": 4 * MIB}, answer)
        uneven = _rates(world.destination, vms)
        _near(uneven[0], 12 * MIB, 0.15, "one")
        _near(uneven[1], 4 * MIB, 0.15, "two")
        answer = _limit(world.destination)
        expect({v["vm"]: v["share_bytes_s"] for v in answer["vms"]}
               == {"one": 12 * MIB, "two": 4 * MIB}, answer)
        _limit(world.destination, "none")
        expect(pairs[0][1].wait_event("released"), "never released")
        alone, = _rates(world.destination, ["two"])
        _near(alone, 4 * MIB, 0.15, "two alone")
        _limit(world.destination, "two", "none")
        for source, destination in pairs:
            destination.wait_event("released")
            source.wait_event("done")
        return " and ".join(f"{rate / MIB:.2f}" for rate in (*even, *uneven)) + " MiB/s"


def changes():
    """Another limit counts at once, and so does none."""
    with World(destination={"import": NEVER}) as world:
        _limit(world.destination, "8M")
        source, destination = _streaming(world, "vm", 192)
        slow, = _rates(world.destination, ["vm"])
        _near(slow, 8 * MIB, 0.1, "8M")
        _limit(world.destination, "vm", "24M")
        still, = _rates(world.destination, ["vm"])
        _near(still, 8 * MIB, 0.1, "the host's 8M")
        _limit(world.destination, "32M")
        fast, = _rates(world.destination, ["vm"])
        _near(fast, 24 * MIB, 0.1, "the VM's 24M")
        _limit(world.destination, "vm", "none")
        _limit(world.destination, "none")
        begin = time.monotonic()
        destination.wait_event("released")
        source.wait_event("done")
        left = 192 - (2 * 2.4 * 8 + 2.4 * 24)
        took = time.monotonic() - begin
        expect(took < left / 32, f"{took:.1f} s for {left:.0f} MiB without a limit")
        arrived = world.destination.imported("vm")
        expect(arrived["faulted_share"] == 0, arrived)
        return f"{slow / MIB:.2f}, {still / MIB:.2f} and {fast / MIB:.2f} MiB/s"


def _refused(daemon, words, *mentioned):
    done = daemon.ctl("limit", *words)
    expect(done.returncode != 0 and not done.stdout, f"{words}: {done}")
    mentions(done.stderr, "postcopyctl:", *mentioned)


def bad_input():
    """What is no rate, no VM or no sense is told in a line, and changes nothing."""
    with World() as world:
        daemon = world.destination
        source, _ = world.vms()
        before = _limit(daemon, "48M")
        for words, *mentioned in (
                (["20Q"], "20Q", "no rate", "no VM"), (["5"], "no rate"),
                (["-3"], "-3"), (["1K"], "1K", "64K"),
                (["vm", "fast"], "fast", "none"), (["vm", ""], "rate"), (["vm", "2T"], "1T"),
                (["nobody", "20M"], "nobody"), (["nobody"], "nobody"),
                (["vm", "20M", "30M"], "30M"), (["--fast"], "--fast")):
            _refused(daemon, words, *mentioned)
        _refused(world.source, [source.vm, "20M"], "destination")
        with Client(daemon.socket) as client:
            for value in (-1, 1, "20M", 1.5, [], None, True, 1 << 62):
                answer = client.ask(op="limit", bytes_per_s=value)
                expect("bytes_per_s" in answer.get("error", ""), (value, answer))
            expect("error" in client.ask(op="limit", vm=7, bytes_per_s=0), "vm 7")
        expect(_limit(daemon) == before and before["limit_bytes_s"] == 48 * MIB, before)
        shown = daemon.ctl("limit")
        expect("48.0 MiB/s" in shown.stdout and "vm" in shown.stdout, shown.stdout)
        expect("48.0 MiB/s" in daemon.ctl("status").stdout, "not in the status")
