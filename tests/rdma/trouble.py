# SPDX-License-Identifier: GPL-2.0-or-later
"""RDMA fails while memory is on its way: what was lost is asked for again, and nothing is wrong or missing."""

import signal
import time

from soft_roce import DEVICE, LIBRARY, RoceWorld, came_by_rdma, remove_device, told, with_keys
from world import MIB, SLOW, expect, fetched

# The stream takes seconds, and threads that want pages wait between them.
SLOWLY = {"import": {"limit": "16M", "around": "4K", "stream_delay_ms": 0}}
SHAPE = {"mem": 32, "fill": 32}
TOUCH = "touch threads=2,think=10000,pages=300"


class Trouble(RoceWorld):
    """One of its daemons is preloaded with what makes trouble (verbs_trouble.c)."""

    def __init__(self, who):
        self._who = who
        super().__init__(destination=SLOWLY)

    def make(self, name, settings):
        if name == self._who:
            self._asked().mkdir()
            self._prefixes[name] = ("env", f"LD_PRELOAD={LIBRARY}", f"VERBS_TROUBLE={self._asked()}")
        return super().make(name, settings)

    def _asked(self):
        return self.folder / "trouble"

    def break_pairs(self):
        """All that work now."""
        (self._asked() / "break").touch()

    def mute_queues(self):
        """All that work now."""
        (self._asked() / "mute").touch()

    def wrong_keys(self, count):
        """So many of the next ones."""
        (self._asked() / "keys").write_text(f"{count}\n")


def _begin(world, **shape):
    """A migration under way, with threads that want pages; what ends them is the third."""
    source, destination = world.vms(**{**SHAPE, **shape})
    world.offer(source)
    source.do("seal")
    destination.do("running")
    return source, destination, destination.begin(TOUCH)


def _under_way(world, mib=6):
    """Waits until so much has come, by RDMA; the import."""
    found = world.destination.wait_import(
        "vm", lambda i: i["present_bytes"] > mib * MIB and i["transport"]["reads"] > 20)
    expect(found["missing_bytes"] > 0, f"complete already: {found['present_bytes']}")
    return found


def _finish(world, source, destination, touching):
    """All else comes, every word is right, and no page was placed twice; the import's figures."""
    expect(world.destination.ctl("limit", "none").returncode == 0, "no limit")
    expect(destination.answered(touching) is None, "the threads did not end")
    destination.do("run")
    arrived, _ = world.complete(source, destination, passes=1)
    expect(arrived["present_bytes"] == arrived["populated_bytes"], arrived)
    pages = arrived["pages"]
    expect(pages["eexist"] == pages["poisoned"] == 0, pages)
    expect(fetched(pages) == source.populated, pages)
    return arrived


def _resumed(arrived, populated, failures):
    """By RDMA, after so many failures."""
    figures = arrived["transport"]
    expect(figures["kind"] == "rdma" and figures["device"] == DEVICE, figures)
    expect(figures["failures"] == failures, figures)
    expect(arrived["reconnects"] >= 1, arrived)
    expect(came_by_rdma(arrived) >= 0.9 * populated, figures)
    return f"{arrived['reconnects']} reconnects; {told(figures)}"


def _broken(who, **to):
    with Trouble(who) as world:
        source, destination, touching = _begin(world, to=to)
        _under_way(world)
        world.break_pairs()
        destination.wait_event("paused")
        arrived = _finish(world, source, destination, touching)
        return arrived, _resumed(arrived, source.populated, 1)


def destination_breaks():
    """The destination's queue pairs fail under READs that are to land in the guest's memory."""
    arrived, line = _broken("b")
    figures = arrived["transport"]
    expect(figures["landed_pages"] >= 0.9 * came_by_rdma(arrived), figures)
    return line


def destination_breaks_staged():
    """The same, where pages are copied."""
    arrived, line = _broken("b", backing="anonymous")
    expect(arrived["transport"]["landed_pages"] == 0, arrived["transport"])
    return line


def source_breaks():
    """The source's queue pairs fail: nobody answers READs any more."""
    return _broken("a")[1]


def stalled():
    """The destination's device tells of no completion any more: that is noticed, and it is opened anew."""
    with Trouble("b") as world:
        source, destination, touching = _begin(world)
        _under_way(world)
        begin = time.monotonic()
        world.mute_queues()
        destination.wait_event("paused")
        seconds = time.monotonic() - begin
        expect(4 <= seconds <= 8 * SLOW, f"noticed after {seconds:.1f} s")
        world.destination.wait_log("READs do not complete")
        arrived = _finish(world, source, destination, touching)
        return f"noticed after {seconds:.1f} s; {_resumed(arrived, source.populated, 1)}"


def wrong_key():
    """A key that the source's device does not know: refused by the device, and asked for again."""
    with Trouble("a") as world:
        world.wrong_keys(1)
        source, destination, touching = _begin(world)
        destination.wait_event("paused")
        _under_way(world)
        arrived = _finish(world, source, destination, touching)
        return _resumed(arrived, source.populated, 1)


def wrong_keys():
    """Keys are wrong whenever they are told: after three times TCP takes over, and says so."""
    with Trouble("a") as world:
        world.wrong_keys(1000)
        source, destination, touching = _begin(world)
        found = world.destination.wait_import("vm", lambda i: i["transport"]["kind"] == "tcp"
                                              and i["present_bytes"] > 8 * MIB)
        expect(found["transport"]["failures"] == 3, found["transport"])
        line = world.destination.wait_log("RDMA", "TCP")
        arrived = _finish(world, source, destination, touching)
        figures = arrived["transport"]
        expect(figures["kind"] == "tcp" and figures["reason"], figures)
        expect(figures["landed_pages"] == figures["staged_pages"] == 0, figures)
        return f"{figures['reason']} | {line}"


def source_killed():
    """The source's daemon is killed under READs and started again."""
    with RoceWorld(destination=SLOWLY) as world:
        source, destination, touching = _begin(world)
        _under_way(world)
        world.source.restart()
        destination.wait_event("paused")
        arrived = _finish(world, source, destination, touching)
        expect(arrived["reconnects"] >= 1, arrived)
        expect(arrived["transport"]["kind"] == "rdma", arrived["transport"])
        expect(came_by_rdma(arrived) >= 0.9 * source.populated, arrived["transport"])
        return told(arrived["transport"])


def destination_killed():
    """The destination's daemon is killed: its device writes nowhere any more, and the next one goes on."""
    with RoceWorld(destination=SLOWLY) as world:
        source, destination, touching = _begin(world)
        found = _under_way(world)
        world.destination.restart()
        destination.wait_event("connected", count=2)
        expect(world.destination.ctl("limit", "none").returncode == 0, "no limit")
        expect(destination.answered(touching) is None, "the threads did not end")
        destination.do("run")
        arrived, _ = world.complete(source, destination, passes=1)
        expect(arrived["adopted"], arrived)
        expect(arrived["transport"]["kind"] == "rdma", arrived["transport"])
        left = source.populated - found["present_bytes"] // 4096
        expect(came_by_rdma(arrived) >= 0.9 * left - 200, arrived["transport"])
        return told(arrived["transport"])


def fenced():
    """A sealed source that runs again: its device answers no more, and the destination is stopped."""
    with RoceWorld(destination=SLOWLY) as world:
        source, destination, _ = _begin(world)
        _under_way(world)
        expect(world.source.exported("vm")["rdma"]["pinned_bytes"] > 0, "the source pinned nothing")
        source.do("running")
        destination.wait_event("fenced")
        before = world.destination.imported("vm")
        expect(before["state"] == "fenced", before["state"])
        expect(world.source.exported("vm")["fenced"], "the export is not fenced")
        expect(world.destination.ctl("limit", "none").returncode == 0, "no limit")
        time.sleep(1)
        after = world.destination.imported("vm")
        expect(fetched(after["pages"]) == fetched(before["pages"]), "pages came after the fence")
        expect(came_by_rdma(after) == came_by_rdma(before), after["transport"])
        left = world.source.exported("vm")["rdma"]
        expect(left["pinned_bytes"] == 0, f"still at the source: {left}")
        expect(world.source.stats()["rdma"]["pinned_bytes"] == 0, world.source.stats()["rdma"])
        destination.no_bad_word()
        destination.kill()
        source.do("run")
        source.verified(1)
        return f"{after['missing_bytes'] // MIB} MiB were missing"


def device_removed():
    """The device is to go while it is used: nothing is lost, and it goes once nobody uses it."""
    with RoceWorld(destination=SLOWLY) as world:
        source, destination, touching = _begin(world)
        _under_way(world)
        removing = remove_device()
        arrived = _finish(world, source, destination, touching)
        expect(removing.wait(20) == 0, "the device is still in use")
        return f"{came_by_rdma(arrived)} pages by RDMA; {arrived['transport']['reason']}"


def preference():
    """RDMA or nothing, and then the source trusts the network no more: a running guest waits 10 s, no longer."""
    with RoceWorld(destination={**SLOWLY, "peer": {"transport": "rdma"}}) as world:
        source, destination, touching = _begin(world)
        _under_way(world)
        world.source.configure(rdma={"networks": "10.98.0.0/16"})
        begin = time.monotonic()
        world.source.restart()
        destination.wait_event("paused")
        paused = time.monotonic()  # a busy machine's tests see that late
        world.destination.wait_log("RDMA cannot be used", "networks")
        line = world.destination.wait_log("although RDMA was asked for", timeout=30)
        world.destination.wait_import("vm", lambda i: i["state"] == "running")
        waited, noticed = time.monotonic() - begin, time.monotonic() - paused
        expect(waited > 8 and noticed > 4, f"it waited {waited:.1f} s only, {noticed:.1f} s of them paused")
        arrived = _finish(world, source, destination, touching)
        figures = arrived["transport"]
        expect(figures["kind"] == "tcp" and figures["wanted"] == "rdma" and figures["failures"] > 1, figures)
        said = world.destination.log().count("RDMA cannot be used")
        expect(said == 1, f"it was said {said} times")
        return f"after {waited:.1f} s, {figures['failures']} failures: {line}"


def no_room():
    """RDMA or nothing, and the next daemon may pin too little for all lanes: a running guest does not wait at all."""
    settings = {"import": {**SLOWLY["import"], "resolvers": 4, "bulk_channels": 2}, "peer": {"transport": "rdma"}}
    with RoceWorld(destination=settings) as world:
        source, destination, touching = _begin(world)
        _under_way(world)
        world.destination.configure(rdma={"pinned": "8M"})
        world.destination.restart()
        line = world.destination.wait_log("although RDMA was asked for", "[rdma] pinned")
        destination.wait_event("connected", count=2)
        world.destination.wait_import("vm", lambda i: i["state"] == "running" and i["transport"]["kind"] == "tcp")
        # Some lanes had been made: the source keeps nothing of them.
        pairs = world.source.exported("vm")["rdma"]["pairs"]
        expect(pairs == 0, f"{pairs} pairs are left at the source")
        expect(world.destination.ctl("limit", "none").returncode == 0, "no limit")
        expect(destination.answered(touching) is None, "the threads did not end")
        destination.do("run")
        arrived, _ = world.complete(source, destination, passes=1)
        expect(arrived["transport"]["failures"] == 0, arrived["transport"])
        return line


def budget_of_others():
    """Others that leave the same host have all that may be pinned: RDMA goes on once they are through."""
    # So slow that nobody is through with what is pinned for it before the third one was looked at.
    with RoceWorld(source={"rdma": {"pinned": "16M"}},
                   destination={"import": {"limit": "256K", "around": "4K", "stream_delay_ms": 0}}) as world:
        # Half of it is the reserve, and of the rest half is the most that one VM may have.
        others = [world.vms(name, mem=32, fill=20) for name in ("one", "two")]
        for source, destination in others:
            world.offer(source)
            source.do("seal")
            destination.do("running")
            world.destination.wait_import(source.vm, lambda i: i["transport"]["spans"] > 0)
        other = world.vms("other", mem=64, fill=56)
        world.offer(other[0])
        other[0].do("seal")
        other[1].do("running")
        world.destination.wait_log("other", "can pin no memory")
        found = world.destination.wait_import("other", lambda i: i["pages"]["copied"] > 16)
        expect(found["transport"]["spans"] == found["transport"]["reads"] == 0, found["transport"])
        expect(world.destination.ctl("limit", "16M").returncode == 0, "no other limit")
        found = world.destination.wait_import("other", lambda i: i["transport"]["reads"] > 20)
        expect(found["missing_bytes"] > 0, found)
        expect(world.destination.ctl("limit", "none").returncode == 0, "no limit")
        said = []
        for source, destination in (*others, other):
            destination.do("run")
            arrived, _ = world.complete(source, destination, passes=1)
            expect(arrived["transport"]["kind"] == "rdma" and not arrived["transport"]["failures"], arrived["transport"])
            said.append(told(arrived["transport"]))
        pinned = world.source.stats()["rdma"]
        expect(pinned["pinned_peak_bytes"] <= 16 * MIB and pinned["pinned_bytes"] == 0, pinned)
        return " | ".join(said)


def given_back():
    """All has come, and its client takes its time to let go: nothing stays pinned for it meanwhile."""
    with RoceWorld(destination=SLOWLY) as world:
        source, destination, _ = _begin(world)
        found = _under_way(world)
        destination.process.send_signal(signal.SIGSTOP)
        try:
            expect(world.destination.ctl("limit", "none").returncode == 0, "no limit")
            world.destination.wait_import("vm", lambda i: i["missing_bytes"] == 0)
            # What channels READ into stays with them: 2 MiB a resolver, 4 MiB for the one of the stream.
            staging = (2 * found["transport"]["pairs"] + 2) * MIB
            world.destination.wait_import("vm", lambda i: i["transport"]["pinned_bytes"] == staging)
            world.source.wait("no memory is pinned",
                              lambda: world.source.exported("vm")["rdma"]["pinned_bytes"] == 0)
            expect(world.destination.imported("vm")["transport"]["pairs"] > 0, "it is over already")
        finally:
            destination.process.send_signal(signal.SIGCONT)
        destination.do("run")
        world.complete(source, destination, passes=1)
        figures = world.destination.wait_import(
            "vm", lambda i: i["transport"]["pairs"] == i["transport"]["pinned_bytes"] == 0)
        return told(figures["transport"])


def budget():
    """No more is pinned than may be; what that leaves goes by TCP, and all the memory comes."""
    limit = 16 * MIB
    settings = {"rdma": {"pinned": "16M"}}
    with RoceWorld(source=settings, destination=settings) as world:
        source, destination = world.vms(mem=64, fill=48, threads=2)
        with_keys(world, source, destination)
        arrived, _ = world.complete(source, destination, passes=1)
        pinned = [daemon.stats()["rdma"] for daemon in (world.source, world.destination)]
        peaks = [figures["pinned_peak_bytes"] for figures in pinned]
        expect(all(0 < peak <= limit for peak in peaks), pinned)
        expect(all(figures["pinned_bytes"] == 0 for figures in pinned), f"still pinned: {pinned}")
        share = came_by_rdma(arrived) / source.populated
        expect(arrived["transport"]["kind"] == "rdma" and share >= 0.5, arrived["transport"])
        expect(arrived["transport"]["spans"] > 1, arrived["transport"])
        return f"peaks {[peak // MIB for peak in peaks]} MiB of 16; {share:.0%}; {told(arrived['transport'])}"
