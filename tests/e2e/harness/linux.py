# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest with a balloon, and its memory (tests/guest/linux)."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass

from . import host
from .postcopyd import BUILD, expect
from .vm import Spec

MAKER = host.TOP / "tests" / "guest" / "linux" / "mkimage.py"
KERNEL = MAKER.with_name("debian_kernel.py")
SKIPPED = 77
MIB = 1 << 20
ANSWER = 20  # seconds: a busy host hands a batch of pages back in several


def image():
    """The folder with kernel and initramfs, made if they are not there or are old."""
    init = BUILD / "tests" / "guest" / "linux-init"
    folder = BUILD / "tests" / "guest" / "linux-image"
    if not init.is_file():
        raise host.Unavailable(f"{init} is not built (target linuxguest)")
    sources = max(path.stat().st_mtime for path in (init, MAKER, KERNEL))
    made = folder / "initramfs.cpio"
    if not made.is_file() or made.stat().st_mtime < sources:
        done = subprocess.run([sys.executable, "-B", MAKER, init, folder],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=300, check=False)
        if done.returncode == SKIPPED:
            raise host.Unavailable(f"no kernel for the guest: {done.stdout.strip()}")
        expect(done.returncode == 0, f"mkimage.py: {done.stderr}")
    return folder


@dataclass(frozen=True)
class LinuxSpec(Spec):
    """Both ends of a migration of the Linux guest.

    Its records have epoch 0 throughout: it does not know where it is.
    """

    mem_mb: int = 512
    accel: str = host.TCG  # its kernel does not tell how it wants to be run otherwise
    kept_mb: int = 224     # filled, and looked at for ever
    freed_mb: int = 144    # filled and freed; once more when the balloon has been there
    extra: tuple = ("-device", "virtio-balloon-pci,id=balloon0")

    def command_line(self):
        """The kernel's and init's; pages that the balloon takes are to be as they were left."""
        return ("console=ttyS0 quiet loglevel=4 panic=-1 oops=panic mitigations=off no_timer_check "
                "random.trust_cpu=on init_on_alloc=0 "
                f"kept_mb={self.kept_mb} freed_mb={self.freed_mb}")

    def boot_arguments(self):
        """QEMU's options for what the guest boots."""
        made = image()
        return ["-kernel", str(made / "vmlinux"), "-initrd", str(made / "initramfs.cpio"),
                "-append", self.command_line()]


class Balloon:
    """The balloon of a running guest."""

    def __init__(self, vm):
        self._vm = vm
        self._whole = vm.spec.mem_mb * MIB

    def taken(self):
        """Bytes it has, as far as QEMU knows."""
        return self._whole - self._vm.qmp.execute("query-balloon", timeout=ANSWER)["actual"]

    def aim(self, take):
        """Asks the guest to give so many bytes away in all."""
        self._vm.qmp.execute("balloon", {"value": self._whole - take},
                             timeout=ANSWER)

    def take(self, take, patience=20.0):
        """The same, and waits until it is done; how long QEMU's slowest answer took.

        Every question is answered by the loop that hands pages back to the kernel, one by one. It
        may take its time on a busy host, but not stand still for so many seconds.
        """
        self.aim(take)
        moved = time.monotonic()
        before = None
        slowest = 0.0
        while True:
            asked = time.monotonic()
            taken = self.taken()
            slowest = max(slowest, time.monotonic() - asked)
            if taken == take:
                return slowest
            if taken != before:
                moved = asked
            before = taken
            expect(asked < moved + patience, f"the balloon has {taken >> 20} of {take >> 20} MiB; "
                                             f"{self._vm.log.last('TICK')}")
            time.sleep(0.02)


def allocated(vm):
    """Bytes of RAM that the host really holds for a guest in a memfd."""
    return os.stat(vm.ram_path()).st_blocks * 512


def longest_gap(vm, since=0.0):
    """Seconds between two of its ticks, at most."""
    seen = [record.seen for record in vm.log.records("TICK") if record.seen >= since]
    return max((after - before for before, after in zip(seen, seen[1:])), default=0.0)
