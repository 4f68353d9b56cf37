# SPDX-License-Identifier: GPL-2.0-or-later
"""Shows that guest and harness work here: python3 -m harness.smoke, from tests/e2e."""

import argparse
import contextlib
import json
import os
import sys
import time
import traceback

from . import host, native
from .vm import ARENA_OFFSET, Spec, Vm, VmError

BOOT_VCPUS = (1, 2, 4)


def expect(condition, what):
    """Fails the check unless condition holds."""
    if not condition:
        raise VmError(what)


def boot(accel, vcpus):
    """The guest boots, fills and finds everything in place."""
    spec = Spec(mem_mb=512, vcpus=vcpus, accel=accel, fill_mb=128, zero_mb=64)
    with host.workdir() as folder, Vm(spec, folder, "boot") as vm:
        begin = time.monotonic()
        vm.wait_ready()
        ready = time.monotonic() - begin
        tick = vm.wait_passes(3)
        expect(vm.bad() == 0, f"{vm.bad()} bad words")
        expect(vm.first_touches(0).n == spec.fill_mb * 256, "pass 0 did not touch every page")
        return f"ready after {ready:.2f} s, {tick['passes']} passes"


def numa(accel):
    """Two backends, RAM on both sides of 4 GiB, objects in the other order."""
    spec = Spec(accel=accel, numa=(("ram0", 2560), ("ram1", 1024)), fill_mb=2600, zero_mb=256)
    with host.workdir() as folder:
        with Vm(spec, folder, "numa", object_order=("ram1", "ram0")) as vm:
            tick = vm.wait_passes(1)
            expect(vm.bad() == 0, f"{vm.bad()} bad words")
            return f"{tick['passes']} passes"


def backend(accel, name):
    """Each kind of guest RAM."""
    spec = Spec(mem_mb=256, accel=accel, backend=name, fill_mb=64, zero_mb=32)
    room = host.hugepages(spec.mem_mb) if name == "hugetlb" else contextlib.nullcontext()
    with room, host.workdir() as folder, Vm(spec, folder, "ram") as vm:
        tick = vm.wait_passes(2)
        expect(vm.bad() == 0, f"{vm.bad()} bad words")
        return f"{tick['passes']} passes"


def notices(accel):
    """One word written from outside is found, in filled and in zero memory."""
    spec = Spec(mem_mb=256, accel=accel, fill_mb=32, zero_mb=16)
    with host.workdir() as folder, Vm(spec, folder, "bad") as vm:
        vm.wait_passes(1)
        expect(vm.bad() == 0, "bad words before any were made")
        ram = os.open(vm.ram_path(), os.O_RDWR)
        try:
            book_mb = 1  # the generations between the two take less
            for mb, word in ((5, 7), (spec.fill_mb + book_mb + 3, 9)):
                os.pwrite(ram, b"\xde\xad" * 4, ARENA_OFFSET + (mb << 20) + word * 8)
                vm.wait_record("BAD", lambda bad, word=word: bad["word"] == word)
        finally:
            os.close(ram)
        wants = {bad["word"]: bad["want"] for bad in vm.bad_records()}
        expect(wants[9] == 0 and wants[7] != 0, f"wrong reports {wants}")
        return "both found"


def refuses(accel):
    """A guest too small says so."""
    spec = Spec(mem_mb=128, vcpus=1, accel=accel, fill_mb=512)
    with host.workdir() as folder, Vm(spec, folder, "small") as vm:
        fatal = vm.wait_record("FATAL")
        expect(fatal["reason"] == "memory", str(fatal))
        return f"needs {fatal['need_pages']} pages, has {fatal['have_pages']}"


def migrated(accel, ram, preempt, options):
    """QEMU's own post-copy keeps memory right, and the guest notices where it runs."""
    spec = Spec(mem_mb=options.mem, vcpus=options.vcpus, accel=accel, backend=ram,
                fill_mb=options.fill, zero_mb=options.zero)
    with host.workdir() as folder:
        result = native.run(spec, folder, preempt, window=options.window)
    if options.json:
        print(json.dumps({"accel": accel, "ram": ram, "preempt": preempt, **result.as_dict()}))
    expect(result.bad == 0, f"{result.bad} bad words: {result.bad_records[:3]}")
    expect(result.first_touch["n"] == spec.fill_mb * 256, "not every page was touched")
    waited = result.waited
    return (f"down {result.downtime_ms:.1f} ms, memory {result.memory_ms:.0f} ms, "
            f"lost {result.lost_ms:.0f} of {result.window_ms:.0f} ms, {waited['n']} waited: "
            f"p50 {waited['p50_us']:.0f} p99 {waited['p99_us']:.0f} max {waited['max_us']} us")


def checks(options):
    """(name, function) of all that is to be done."""
    accels = [options.accel] if options.accel else (
        ["kvm"] if host.kvm_works() else []) + [host.TCG]
    for accel in accels:
        short = accel.split(",")[0]
        if not options.only or options.only == "guest":
            for vcpus in BOOT_VCPUS:
                yield f"{short} boot {vcpus} vCPU", lambda a=accel, n=vcpus: boot(a, n)
            for name in ("memfd", "file", "anon", "hugetlb"):
                yield f"{short} RAM {name}", lambda a=accel, n=name: backend(a, n)
            yield f"{short} NUMA above 4 GiB", lambda a=accel: numa(a)
            yield f"{short} corruption noticed", lambda a=accel: notices(a)
            yield f"{short} too small refused", lambda a=accel: refuses(a)
        if not options.only or options.only == "native":
            for ram in ("memfd", "anon"):
                for preempt in (False, True):
                    yield (f"{short} native {ram} {'preempt' if preempt else 'plain'}",
                           lambda a=accel, r=ram, p=preempt: migrated(a, r, p, options))


def main():
    """Runs the checks; 1 if any failed, 77 if none can run here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accel", help="only this accelerator")
    parser.add_argument("--only", choices=("guest", "native"))
    parser.add_argument("--mem", type=int, default=1024, help="MiB of the migrated guest")
    parser.add_argument("--fill", type=int, default=512, help="MiB of it that are filled")
    parser.add_argument("--zero", type=int, default=64, help="MiB of it that must read as zero")
    parser.add_argument("--vcpus", type=int, default=2)
    parser.add_argument("--window", type=float,
                        help="seconds after RESUME over which lost work is counted")
    parser.add_argument("--json", action="store_true", help="print all that was measured")
    options = parser.parse_args()
    host.exit_on_sigterm()
    try:
        print(f"guest {host.testguest()}, TSC {host.tsc_khz()} kHz, KVM {host.kvm_works()}")
    except host.Unavailable as missing:
        print(f"skipped: {missing}")
        return 77
    failed = 0
    for name, check in checks(options):
        try:
            verdict, text = "ok", check()
        except host.Unavailable as missing:
            verdict, text = "skipped", str(missing)
        except Exception as error:  # pylint: disable=broad-except
            verdict, text = "FAILED", str(error) or traceback.format_exc()
            failed += 1
        print(f"{verdict:8}{name:28}{text}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
