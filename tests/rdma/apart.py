# SPDX-License-Identifier: GPL-2.0-or-later
"""Source and destination in a guest each, joined by a cable that is cut and mended: apart.py IMAGE

Each guest runs this program once more, as apart.py source or apart.py destination, with one daemon and one
VMM.  The destination's asks for what is to become of the cable by making files in its share: cut, mend.
Exits with 0 if the memory came by RDMA, whole, in spite of it.
"""

import json
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "guest" / "rdma"), str(HERE.parent / "integration")]

# pylint: disable=wrong-import-position
import boot  # noqa: E402
from soft_roce import ADDRESSES, NETWORK, came_by_rdma, told  # noqa: E402
from world import MIB, PAGE, Daemon, Failure, Vmm, expect, fetched, host  # noqa: E402

SECONDS = 150
PORT = 16520
CUT_SECONDS = 4
SHAPE = {"mem": 48, "fill": 48}
SETTINGS = {"peer": {"insecure_plaintext": "yes"}, "rdma": {"networks": NETWORK},
            "import": {"limit": "12M", "around": "4K", "stream_delay_ms": 0}}
SHARE = Path("/run/guest")


# --- in the guests -------------------------------------------------------------------------------


def daemon(folder, name):
    """The only one here."""
    return Daemon(folder, name, host_address=ADDRESSES["ab".index(name)], port=PORT, **SETTINGS)


def offered(vmm):
    """Offers the VM as soon as the other guest is there."""
    deadline = time.monotonic() + 60
    while True:
        refusal = vmm.answered(vmm.begin(f"offer {ADDRESSES[1]}:{PORT}"))
        if refusal is None:
            return
        expect(time.monotonic() < deadline, f"no offer: {refusal}")
        time.sleep(0.3)


def source():
    """Its guest's part."""
    with host.workdir() as folder, daemon(folder, "a") as ours, Vmm(ours, "source", **SHAPE) as vmm:
        offered(vmm)
        vmm.do("seal")
        vmm.wait_event("done", timeout=SECONDS)
        left = ours.exported("vm")
        expect(left["pages_read"] <= 0.1 * vmm.populated, f"{left['pages_read']} pages were read by TCP")


def destination():
    """The other's."""
    with host.workdir() as folder, daemon(folder, "b") as ours, Vmm(ours, "destination", **SHAPE) as vmm:
        touching = vmm.begin("touch threads=2,think=10000,pages=400")
        vmm.wait_event("running", timeout=SECONDS)
        ours.wait_import("vm", lambda i: i["present_bytes"] > 8 * MIB and i["transport"]["reads"] > 20)
        (SHARE / "cut").touch()
        paused = vmm.wait_event("paused")
        time.sleep(CUT_SECONDS)
        before = ours.imported("vm")
        expect(before["state"] == "paused" and before["missing_bytes"] > 0, before)
        (SHARE / "mend").touch()
        ours.wait_import("vm", lambda i: i["state"] == "running")
        expect(ours.ctl("limit", "none").returncode == 0, "no limit")
        expect(vmm.answered(touching) is None, "the threads did not end")
        vmm.wait_event("released", timeout=SECONDS)
        vmm.do("run")
        vmm.verified(1)
        arrived = ours.imported("vm")
        pages, figures = arrived["pages"], arrived["transport"]
        expect(arrived["present_bytes"] == arrived["populated_bytes"] == vmm.populated * PAGE, arrived)
        expect(fetched(pages) == vmm.populated and pages["eexist"] == pages["poisoned"] == 0, pages)
        expect(figures["kind"] == "rdma" and arrived["reconnects"] >= 1, arrived)
        expect(came_by_rdma(arrived) >= 0.9 * vmm.populated, figures)
        print(f"{paused}; {arrived['reconnects']} reconnects; {told(figures)}", flush=True)


# --- on the host ---------------------------------------------------------------------------------


class Ends:
    """Two guests, and what one of them asks of the cable."""

    def __init__(self, image, folder):
        self._shares = [folder / role for role in ("source", "destination")]
        self.statuses = [None, None]
        cable = socket.socketpair()
        self._guests = []
        for share, address, end in zip(self._shares, ADDRESSES, cable):
            share.mkdir()
            self._guests.append(boot.Guest(image, share, address=address, link=end, cpus=1, memory=1536))

    def run(self):
        """Until both have ended, or one badly."""
        threads = [threading.Thread(target=self._run, args=(index, ), daemon=True) for index in (0, 1)]
        for thread in threads:
            thread.start()
        asked = {"cut": False, "mend": True}
        while any(thread.is_alive() for thread in threads):
            for name, up in list(asked.items()):
                if (self._shares[1] / name).exists():
                    self._set_link(up)
                    del asked[name]
            if any(self.statuses):
                break
            time.sleep(0.05)
        for guest in self._guests:
            guest.stop()
        for thread in threads:
            thread.join()
        return self.statuses

    def _run(self, index):
        words = [sys.executable, "-B", Path(__file__), self._shares[index].name]
        self.statuses[index] = self._guests[index].run(words, SECONDS)

    def _set_link(self, up):
        """The source's end of the cable."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(10)
            monitor.connect(str(self._guests[0].monitor))
            with monitor.makefile("rw") as lines:
                lines.readline()  # its greeting
                for command in ({"execute": "qmp_capabilities"},
                                {"execute": "set_link", "arguments": {"name": "link", "up": up}}):
                    print(json.dumps(command), file=lines, flush=True)
                    while "return" not in (answer := json.loads(lines.readline())):
                        expect("error" not in answer, answer)


def main(words):
    """Reads the arguments."""
    if words in (["source"], ["destination"]):
        {"source": source, "destination": destination}[words[0]]()
        return 0
    if len(words) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="postcopy-rdma-") as folder:
        statuses = Ends(words[0], Path(folder)).run()
    if any(statuses):
        print(f"apart.py: source {statuses[0]}, destination {statuses[1]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failure as failure:
        sys.exit(f"apart.py: {failure}")
