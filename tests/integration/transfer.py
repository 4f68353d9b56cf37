# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's memory goes over, whole and once, whatever it is made of."""

import time

from wire import PAGE
from world import MIB, World, expect, fetched, host, threads


def _once(figures, populated):
    """Every page with content was read once, and nothing else but holes that were asked for."""
    arrived, left = figures
    pages = arrived["pages"]
    expect(arrived["state"] == "released" and left["state"] == "done", figures)
    expect(left["pages_read"] == fetched(pages),
           f"{left['pages_read']} pages read, {fetched(pages)} came: {pages}")
    expect(arrived["present_bytes"] == arrived["populated_bytes"], arrived)
    expect(pages["eexist"] == pages["poisoned"] == 0, pages)
    holes = fetched(pages) - populated
    expect(0 <= holes <= pages["zero"], f"{fetched(pages)} pages came, {populated} have content")
    return holes


def _moved(backing, **shape):
    """A VM of half-filled memory goes over."""
    with World() as world:
        source, destination = world.vms(backing=backing, threads=4, **shape)
        world.move(source, destination)
        figures = world.complete(source, destination)
        holes = _once(figures, source.populated)
        # Chunks that are half full, or more, were allocated ahead: memory is placed in both ways.
        expect((figures[0]["pages"]["continued"] > 0) == (backing == "memfd"), figures[0]["pages"])
        return f"{source.populated} pages once, {holes} holes asked for"


def anonymous():
    """Anonymous memory."""
    return _moved("anonymous")


def memfd():
    """A memfd."""
    return _moved("memfd")


def private():
    """A private mapping of a file: all of it counts as content."""
    with World() as world:
        source, destination = world.vms(backing="private", mem=32, fill=16)
        world.move(source, destination)
        arrived, left = world.complete(source, destination)
        expect(left["pages_read"] == fetched(arrived["pages"]), arrived["pages"])
        return f"{left['pages_read']} pages"


def file():
    """A file on tmpfs, another one at the destination."""
    with World() as world:
        source, destination = world.vms(backing=f"file:{world.folder}/ram-a",
                                        to={"backing": f"file:{world.folder}/ram-b"})
        world.move(source, destination)
        _once(world.complete(source, destination), source.populated)


def hugetlb():
    """Pages of 2 MiB, some filled and some not."""
    with host.hugepages(2 * 64), World() as world:
        source, destination = world.vms(backing="hugetlb", mem=64, fill=32)
        world.move(source, destination)
        arrived, left = world.complete(source, destination)
        expect(fetched(arrived["pages"]) == left["pages_read"], (arrived, left))
        # hugetlbfs does not tell its holes: they are read, and travel as a word.
        expect(arrived["pages"]["copied"] == 16, arrived["pages"])
        expect(arrived["received_bytes"] < 32 * MIB * 1.02, arrived["received_bytes"])
        return f"{left['pages_read']} pages read, {arrived['pages']['zero']} of them zero"


def regions_reversed():
    """Regions are told in the opposite order at the destination: the same id finds the same."""
    with World() as world:
        source, destination = world.vms(regions=8, to={"reverse": True})
        world.move(source, destination)
        _once(world.complete(source, destination), source.populated)


def only_content_travels():
    """What nobody touches and has no content costs nothing on the wire."""
    with World(destination={"import": {"stream_delay_ms": 0}}) as world:
        source, destination = world.vms(mem=1024, fill=16)
        world.offer(source)
        source.do("seal")
        destination.wait_event("released")
        source.wait_event("done")
        arrived, left = world.figures()
        pages = arrived["pages"]
        expect(fetched(pages) == pages["copied"] == left["pages_read"] == source.populated,
               f"{pages}, {left['pages_read']} read")
        expect(arrived["populated_bytes"] == 16 * MIB, arrived)
        expect(arrived["received_bytes"] < 16 * MIB * 1.02, arrived["received_bytes"])
        destination.do("run")
        destination.verified(1)
        return f"{arrived['received_bytes'] / MIB:.2f} MiB for 16"


def _stream_sleeps(daemon):
    """How often the stream's thread has gone to sleep."""
    return int(threads(daemon.process.pid, "stream")["stream"]["voluntary_ctxt_switches"])


def delayed():
    """Until its delay is over the stream leaves the CPUs to those who serve faults, and then it goes on."""
    with World(destination={"import": {"stream_delay_ms": 3000}}) as world:
        source, destination = world.vms()
        world.offer(source)
        source.do("seal")
        begin = time.monotonic()
        world.destination.wait_import("vm", lambda i: i["populated_bytes"] == source.populated * PAGE)
        before, since = _stream_sleeps(world.destination), time.monotonic()
        time.sleep(1)
        often = (_stream_sleeps(world.destination) - before) / (time.monotonic() - since)
        early = world.destination.imported("vm")["pages"]["by_stream"]
        expect(often < 60, f"the stream woke {often:.0f} times a second")
        expect(early == 0 or time.monotonic() - begin > 3, f"{early} pages before the delay was over")
        world.destination.wait_import("vm", lambda i: i["pages"]["by_stream"] > 0)
        expect(time.monotonic() - begin > 2.5, "the stream did not wait")
        destination.do("run")
        world.complete(source, destination)
        return f"{often:.0f} wake-ups a second"


def single_pages():
    """Faults take no pages along, and race for every page with each other and with the stream."""
    settings = {"import": {"around": "4K", "chunk": "4K"}}
    with World(destination=settings) as world:
        source, destination = world.vms(mem=16, fill=16, threads=16, read_only=True)
        world.move(source, destination)
        arrived, left = world.complete(source, destination)
        pages = arrived["pages"]
        expect(pages["by_around"] == 0, pages)
        expect(fetched(pages) == left["pages_read"] == source.populated, (pages, left))
        return f"{pages['by_fault']} by fault, {pages['by_stream']} by stream"


def many_resolvers():
    """Several resolvers and bulk channels share one VM's memory, and no page comes twice."""
    settings = {"import": {"resolvers": 4, "shards": 4, "bulk_channels": 4}}
    with World(destination=settings) as world:
        source, destination = world.vms(mem=256, fill=64, threads=8)
        world.move(source, destination)
        figures = world.complete(source, destination)
        _once(figures, source.populated)
        return f"{[r['faults'] for r in figures[0]['resolvers']]} faults"


def two_vms():
    """Two VMs at once through the same daemons, with memory of the same shape."""
    with World() as world:
        pairs = [world.vms(f"vm{i}", seed=i + 1, backing=backing)
                 for i, backing in enumerate(("memfd", "anonymous"))]
        for source, _ in pairs:
            world.offer(source)
        for source, destination in pairs:
            source.do("seal")
            destination.do("run")
        for source, destination in pairs:
            _once(world.complete(source, destination), source.populated)


def both_ways():
    """Each daemon is source and destination at once."""
    with World() as world:
        forth = world.vms("forth", seed=3)
        world.source, world.destination = world.destination, world.source
        back = world.vms("back", seed=4)
        back[0].do(f"offer {world.destination.address}")
        world.source, world.destination = world.destination, world.source
        world.offer(forth[0])
        for source, destination in (forth, back):
            source.do("seal")
            destination.do("run")
        for source, destination in (forth, back):
            destination.wait_event("released")
            source.wait_event("done")
            destination.verified(1)


def there_and_back():
    """A VM that has arrived leaves again, with what it has written since."""
    with World() as world:
        source, destination = world.vms(read_only=True)
        world.move(source, destination)
        world.complete(source, destination)
        destination.do("stop")
        source.quit()
        world.source, world.destination = world.destination, world.source
        again = world.add(type(source)(world.destination, "destination", read_only=True))
        world.move(destination, again)
        world.complete(destination, again)
        world.source, world.destination = world.destination, world.source
