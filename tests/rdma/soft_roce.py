# SPDX-License-Identifier: GPL-2.0-or-later
"""Two daemons with a soft-RoCE device between them, and what is to hold of an import by RDMA."""

import subprocess

from wire import PAGE
from world import MIB, Daemon, World, expect, fetched, postcopyd

ADDRESSES = ("10.99.0.1", "10.99.0.2")
NETWORK = "10.99.0.0/24"
DEVICE = "rxe0"

# What makes trouble in a daemon's device.
LIBRARY = postcopyd.BUILD / "tests" / "rdma" / "libverbs_trouble.so"

# What is wanted before the first keys are there goes by TCP.
BY_RDMA = 0.95

# Of pages, some landed where they belong and some were copied.
BOTH = "both"


def merged(*settings):
    """Settings of a daemon by section; later ones count."""
    result = {}
    for more in settings:
        for section, keys in more.items():
            result[section] = {**result.get(section, {}), **keys}
    return result


class PrefixedDaemon(Daemon):
    """A daemon with words before its program's name."""

    def __init__(self, folder, name, prefix, **settings):
        self.prefix = prefix
        super().__init__(folder, name, **settings)


class RoceWorld(World):
    """Daemons a at 10.99.0.1 and b at 10.99.0.2, which trust the network between them.

    prefixes: words before the program's name, by the daemon's.
    """

    def __init__(self, prefixes=None, **settings):
        self._prefixes = prefixes or {}
        super().__init__(**settings)

    def make(self, name, settings):
        address = ADDRESSES["ab".index(name)]
        ours = {"peer": {"insecure_plaintext": "yes"}, "rdma": {"networks": NETWORK}}
        return PrefixedDaemon(self.folder, name, self._prefixes.get(name, ()), host_address=address,
                              **merged(ours, settings))


def with_keys(world, source, destination):
    """Moves a VM: its guest runs once the first keys are there.  What it wants before goes by TCP."""
    world.offer(source)
    source.do("seal")
    destination.do("running")
    world.destination.wait_import(source.vm, lambda i: i["transport"]["spans"] > 0)
    destination.do("run")


def came_by_rdma(arrived):
    """Pages, so far."""
    figures = arrived["transport"]
    return figures["landed_pages"] + figures["staged_pages"]


def by_rdma(arrived, populated, *, landed=None, share=BY_RDMA):
    """All but a few pages came by RDMA: where they belong (landed), copied, or some so and some so.

    landed: True, False, or None for what is not known; BOTH.  pages of content are populated; the
    transport's figures are returned.
    """
    figures = arrived["transport"]
    expect(figures["kind"] == "rdma" and figures["device"] == DEVICE and not figures["reason"], figures)
    came = came_by_rdma(arrived)
    expect(came >= share * populated, f"{came} of {populated} pages by RDMA: {figures}")
    expect(came <= fetched(arrived["pages"]), f"{came} pages by RDMA: {arrived['pages']}")
    expect(figures["bytes"] >= came * PAGE, figures)
    if landed is False:
        expect(figures["landed_pages"] == 0, figures)
    elif landed == BOTH:
        expect(figures["landed_pages"] > 0 and figures["staged_pages"] > 0, figures)
    elif landed:
        expect(figures["landed_pages"] >= share * populated, figures)
    expect(figures["failures"] == 0, figures)
    return figures


def by_tcp(arrived, *reason):
    """Nothing came by RDMA, and the reason has these words."""
    figures = arrived["transport"]
    expect(figures["kind"] == "tcp" and not figures["device"], figures)
    expect(figures["reads"] == figures["landed_pages"] == figures["staged_pages"] == 0, figures)
    for word in reason:
        expect(word.lower() in figures["reason"].lower(), f"no '{word}' in: {figures['reason']}")
    expect("\n" not in figures["reason"], figures)
    return figures


def told(figures):
    """In a line."""
    return (f"{figures['landed_pages']} pages landed, {figures['staged_pages']} staged, "
            f"{figures['reads']} READs of {figures['bytes'] / MIB:.1f} MiB, {figures['spans']} spans")


def remove_device():
    """As if the host had none."""
    return subprocess.Popen(["rdma", "link", "delete", DEVICE])

