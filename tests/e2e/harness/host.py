# SPDX-License-Identifier: GPL-2.0-or-later
"""What this machine offers."""

import contextlib
import ctypes
import functools
import mmap
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[3]
TCG = "tcg,thread=multi"
SHARED_MEMORY = Path("/dev/shm")
QBOOT = Path("/usr/share/qemu/qboot.rom")
HUGEPAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")

_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc; shl $32,%rdx; or %rdx,%rax; ret


class Unavailable(Exception):
    """This machine lacks something; a test that needs it is skipped."""


def qemu():
    """The QEMU to test with."""
    return os.environ.get("POSTCOPY_QEMU", "qemu-system-x86_64")


def testguest():
    """The guest's ELF: POSTCOPY_TESTGUEST, or else the newest one built below this tree."""
    given = os.environ.get("POSTCOPY_TESTGUEST")
    found = [Path(given)] if given else list(TOP.glob("build*/**/testguest.elf"))
    found = [path for path in found if path.is_file()]
    if not found:
        raise Unavailable("testguest.elf is not built (target testguest)")
    return max(found, key=lambda path: path.stat().st_mtime)


def workdir():
    """A TemporaryDirectory in shared memory, so that file-backed guest RAM may lie in it."""
    where = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    return tempfile.TemporaryDirectory(prefix="postcopy-", dir=where)


def check_writable(parser, path):
    """Ends the program at once if what it measures could not be written there at its end."""
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8"):
            pass
    except OSError as error:
        parser.error(f"--json {path}: {error.strerror}")


def exit_on_sigterm():
    """Lets context managers end their QEMUs when a time limit ends this program."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@functools.cache
def tsc_khz():
    """Ticks of the time stamp counter in a millisecond, measured."""
    if platform.machine() != "x86_64":
        raise Unavailable("not an x86-64 host")
    with mmap.mmap(-1, mmap.PAGESIZE,
                   prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as code:
        code.write(_RDTSC)
        anchor = ctypes.c_char.from_buffer(code)
        rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(anchor))

        def sample():
            """The pair read closest together of several."""
            tries = []
            for _ in range(20):
                before = time.monotonic_ns()
                ticks = rdtsc()
                after = time.monotonic_ns()
                tries.append((after - before, before, ticks))
            return min(tries)[1:]

        start_ns, start = sample()
        time.sleep(0.1)
        end_ns, end = sample()
        del rdtsc, anchor
    return round((end - start) * 1_000_000 / (end_ns - start_ns))


@functools.cache
def kvm_works():
    """True if the test guest really boots under KVM, not merely if the device is there."""
    from .qmp import QmpError
    from .vm import Spec, Vm, VmError
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    spec = Spec(mem_mb=128, vcpus=1, accel="kvm", backend="anon", fill_mb=1)
    with workdir() as folder:
        try:
            with Vm(spec, folder, "kvm-probe") as vm:
                vm.wait_ready(20)
                return True
        except (VmError, QmpError, OSError):
            return False


def accel():
    """'kvm' if it works, else TCG; POSTCOPY_ACCEL overrides."""
    return os.environ.get("POSTCOPY_ACCEL") or ("kvm" if kvm_works() else TCG)


def cpu_model(accelerator):
    """The CPU model that goes with an accelerator."""
    return "host,arch-capabilities=off" if accelerator.startswith("kvm") else "max"


@contextlib.contextmanager
def hugepages(mib):
    """Makes room for that many MiB of 2 MiB pages, and gives it back."""
    try:
        before = int(HUGEPAGES.read_text())
        HUGEPAGES.write_text(str(before + mib // 2))
        got = int(HUGEPAGES.read_text()) - before
    except OSError as error:
        raise Unavailable(f"huge pages: {error}") from error
    try:
        if got < mib // 2:
            raise Unavailable(f"only {got} of {mib // 2} huge pages")
        yield
    finally:
        HUGEPAGES.write_text(str(before))
