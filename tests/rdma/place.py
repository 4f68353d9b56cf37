# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's memory goes over by RDMA, whole and once, in each way of placing it."""

from soft_roce import BOTH, PAGE, RoceWorld, by_rdma, came_by_rdma, told, with_keys
from world import MIB, expect, fetched

NOT_AHEAD = {"import": {"preallocate": "no"}}


def _once(figures, populated):
    """Every page with content was placed once, and nothing else but holes that were asked for."""
    arrived, left = figures
    pages = arrived["pages"]
    expect(arrived["state"] == "released" and left["state"] == "done", figures)
    expect(arrived["present_bytes"] == arrived["populated_bytes"], arrived)
    expect(pages["eexist"] == pages["poisoned"] == 0, pages)
    holes = fetched(pages) - populated
    expect(0 <= holes <= pages["zero"], f"{fetched(pages)} pages came, {populated} have content")


def _moved(*, landed, settings=None, share=0.95, **shape):
    """A VM of half-filled memory goes over."""
    with RoceWorld(destination=settings) as world:
        source, destination = world.vms(**{"mem": 48, "fill": 24, "threads": 2, **shape})
        with_keys(world, source, destination)
        figures = world.complete(source, destination, passes=1)
        _once(figures, source.populated)
        by_tcp_pages = figures[1]["pages_read"]
        expect(by_tcp_pages <= (1 - share) * source.populated, f"{by_tcp_pages} pages were read by TCP")
        return told(by_rdma(figures[0], source.populated, landed=landed, share=share))


def anonymous():
    """From a memfd to anonymous memory: every page is copied."""
    return _moved(landed=False, to={"backing": "anonymous"})


def memfd():
    """To a memfd that nobody allocated ahead: the same."""
    return _moved(landed=False, settings=NOT_AHEAD)


def allocated():
    """To a memfd that was allocated: pages land where they belong."""
    return _moved(landed=True, mem=32, fill=32)


def allocated_staged():
    """To an allocated memfd, where the budget is just enough for staging: pages are written to it and then shown."""
    settings = {"rdma": {"pinned": "8M"}, "import": {"resolvers": 2, "around": "256K"}}
    return _moved(landed=False, settings=settings, mem=32, fill=32)


def half_allocated():
    """Half filled, with holes in every chunk: some chunks were allocated, and holes are zero."""
    return _moved(landed=BOTH)


def at_once():
    """The guest does not wait for keys: what it wants before goes by TCP, and the rest by RDMA."""
    with RoceWorld() as world:
        source, destination = world.vms(mem=64, fill=48, threads=4)
        world.move(source, destination)
        figures = world.complete(source, destination, passes=1)
        _once(figures, source.populated)
        share = came_by_rdma(figures[0]) / source.populated
        expect(share >= 0.5, f"only {share:.0%} by RDMA: {figures[0]['transport']}")
        return f"{share:.0%} by RDMA, {figures[1]['pages_read']} pages by TCP"


def many_resolvers():
    """Several threads READ into one VM's memory, of several spans, and no page comes twice."""
    settings = {"import": {"resolvers": 4, "shards": 4, "bulk_channels": 2}}
    return _moved(landed=True, settings=settings, share=0.6, mem=128, fill=96)


def regions_reversed():
    """The two sides number their regions differently."""
    return _moved(landed=BOTH, share=0.7, regions=4, to={"reverse": True})


def zero_pages():
    """Pages that are zero, though they are allocated at the source, do not travel."""
    with RoceWorld(destination={"import": {"stream_delay_ms": 0}}) as world:
        source, destination = world.vms(mem=48, fill=8, zeroed=24)
        world.offer(source)
        source.do("seal")
        destination.wait_event("released")
        source.wait_event("done")
        arrived, _ = world.figures()
        figures = by_rdma(arrived, source.populated)
        content = source.populated * PAGE
        expect(arrived["populated_bytes"] >= 3 * content, arrived)
        expect(figures["bytes"] <= 1.02 * content, figures)
        expect(arrived["received_bytes"] <= 1.05 * content, arrived["received_bytes"])
        destination.do("run")
        destination.verified(1)
        return f"{figures['bytes'] / MIB:.2f} MiB of {arrived['populated_bytes'] // MIB}; {told(figures)}"


def two_vms():
    """Two VMs at once, each with keys of its own."""
    with RoceWorld() as world:
        pairs = [world.vms(f"vm{i}", seed=i + 1, mem=48, fill=24, to={"backing": backing})
                 for i, backing in enumerate(("memfd", "anonymous"))]
        for source, _ in pairs:
            world.offer(source)
        for source, destination in pairs:
            source.do("seal")
            destination.do("running")
        for source, destination in pairs:
            world.destination.wait_import(source.vm, lambda i: i["transport"]["spans"] > 0)
            destination.do("run")
        for source, destination in pairs:
            figures = world.complete(source, destination, passes=1)
            _once(figures, source.populated)
            by_rdma(figures[0], source.populated)


def source_anonymous():
    """Memory that the source's daemon cannot map goes by TCP, and so it is said."""
    with RoceWorld() as world:
        source, destination = world.vms(mem=32, fill=16, backing="anonymous")
        world.move(source, destination)
        figures = world.complete(source, destination, passes=1)
        _once(figures, source.populated)
        transport = figures[0]["transport"]
        expect(came_by_rdma(figures[0]) == transport["reads"] == 0, transport)
        expect(transport["reason"], f"no reason: {transport}")
        return transport["reason"]
