# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that is given back while it arrives, as by a balloon: it reads as zero from then on, nothing
brings it back, and whoever gives it back never hangs."""

from world import World, expect

RUNS = 600


def _figures(world, source, destination):
    arrived, _ = world.complete(source, destination)
    pages = arrived["pages"]
    expect(pages["removed"] > 0, pages)
    return f"{pages['removed']} pages given back, {pages['retried']} placings retried"


def _given_back(backing, config=None, **shape):
    """Half of the memory is one region that is given back piece by piece."""
    with World(destination=config) as world:
        source, destination = world.vms(backing=backing, regions=2, removable=True, **shape)
        world.move(source, destination)
        destination.do(f"discard {RUNS}")
        return _figures(world, source, destination)


def anonymous():
    """Anonymous memory."""
    return _given_back("anonymous")


def memfd():
    """A sealed memfd: its pages are placed by CONTINUE."""
    return _given_back("memfd")


def unsealed():
    """A memfd that could shrink: its pages are copied."""
    return _given_back("unsealed")


def many_resolvers():
    """Every shard has one owner, and the stream places beside it."""
    return _given_back("memfd", {"import": {"resolvers": 4, "shards": 4, "around": "16K"}},
                       mem=512, fill=128)


def slowly():
    """Over a slow link, so that most of it is on its way when it is given back."""
    with World(proxied=True) as world:
        source, destination = world.vms(backing="memfd", regions=2, removable=True)
        world.offer(source)
        world.proxy.slow(16 << 20)
        source.do("seal")
        destination.do("run")
        destination.do(f"discard {RUNS}")
        return _figures(world, source, destination)


def _killed(backing):
    """The daemon dies in the midst of it; its successor goes on."""
    with World(proxied=True) as world:
        source, destination = world.vms(backing=backing, regions=2, removable=True)
        world.offer(source)
        world.proxy.slow(16 << 20)
        source.do("seal")
        destination.do("run")
        begun = destination.begin(f"discard {RUNS}")
        world.destination.wait_import("vm", lambda i: i["pages"]["removed"] > 100)
        world.destination.kill()
        destination.wait_event("disconnected")
        # Nobody serves faults meanwhile: runs that are given back without a look go on.
        world.destination.start()
        refusal = destination.answered(begun)
        expect(refusal is None, refusal)
        return _figures(world, source, destination)


def daemon_dies():
    """Of anonymous memory."""
    return _killed("anonymous")


def daemon_dies_memfd():
    """Of a memfd."""
    return _killed("memfd")


def without_a_daemon():
    """Memory is given back while no daemon lives: the library answers, and a successor knows."""
    with World(proxied=True) as world:
        source, destination = world.vms(backing="memfd", regions=2, removable=True)
        world.offer(source)
        world.proxy.slow(4 << 20)
        source.do("seal")
        destination.do("run")
        world.destination.kill()
        destination.wait_event("disconnected")
        destination.do("blindly 300")
        world.destination.start()
        destination.do("discard 100")
        return _figures(world, source, destination)
