# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest, moved by QEMU's own post-copy and by us, in turns.

Both are measured alike: by QEMU's event time stamps, and by what the guest itself saw.

    complete_ms      RESUME at the destination until all memory has arrived
    downtime_ms      STOP at the source to RESUME at the destination
    touches          how long the first touch of each filled page took, by the guest's own clock
    stalls           those of them that waited for their page: 20 us or more.  The others cost what
                     the hypervisor costs, which is the same for everyone and no stall
    vcpu_blocked_ms  the sum of the stalls, over all vCPUs
    work_lost_ms     what the guest did less than before, from STOP until a second after completion
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

# pylint: disable=wrong-import-position
from harness import host, native  # noqa: E402
from harness.postcopyd import DaemonError, Pair, timeline  # noqa: E402
from harness.qmp import QmpError  # noqa: E402
from harness.vm import Spec, VmError  # noqa: E402

OURS = "ours-memfd"
PEERS = {"qemu-memfd-plain": ("memfd", False), "qemu-memfd-preempt": ("memfd", True),
         "qemu-anon-plain": ("anon", False), "qemu-anon-preempt": ("anon", True)}
STEADY = 2.5

# name, how to find it in a round
FIGURES = {
    "complete_ms": lambda r: r["memory_ms"],
    "downtime_ms": lambda r: r["downtime_ms"],
    "stalls": lambda r: r["waited"]["n"],
    "stall_p50_us": lambda r: r["waited"]["p50_us"],
    "stall_p90_us": lambda r: r["waited"]["p90_us"],
    "stall_p99_us": lambda r: r["waited"]["p99_us"],
    "stall_max_us": lambda r: r["waited"]["max_us"],
    "vcpu_blocked_ms": lambda r: r["waited"]["sum_ms"],
    "touch_p50_us": lambda r: r["first_touch"]["p50_us"],
    "touch_p90_us": lambda r: r["first_touch"]["p90_us"],
    "touch_p99_us": lambda r: r["first_touch"]["p99_us"],
    "touch_p999_us": lambda r: r["first_touch"]["p999_us"],
    "touch_sum_ms": lambda r: r["first_touch"]["sum_ms"],
    "work_lost_ms": lambda r: r["lost_ms"],
}

# ratio, figure, the peers whose best counts
RATIOS = {
    "complete_vs_memfd": ("complete_ms", "qemu-memfd"),
    "complete_vs_anon": ("complete_ms", "qemu-anon"),
    "downtime": ("downtime_ms", "qemu"),
    "stalls": ("stalls", "qemu"),
    "stall_p99": ("stall_p99_us", "qemu"),
    "stall_max": ("stall_max_us", "qemu"),
    "vcpu_blocked": ("vcpu_blocked_ms", "qemu"),
    "touch_p99": ("touch_p99_us", "qemu"),
    "touch_p999": ("touch_p999_us", "qemu"),
    "touch_sum": ("touch_sum_ms", "qemu"),
    "work_lost": ("work_lost_ms", "qemu"),
}

TARGETS = {"complete_vs_memfd": 0.15, "complete_vs_anon": 0.6, "stall_p99": 0.25,
           "vcpu_blocked": 0.3, "downtime": 1.0, "work_lost": 0.4}


def ours(spec):
    """One migration by us."""
    with host.workdir() as folder, Pair(folder) as pair:
        source = pair.source_vm(spec)
        source.wait_passes(1)
        destination = pair.destination_vm(source)
        time.sleep(STEADY)
        migration = pair.migrate(source, destination)
        migration.succeed()
        times = timeline(migration, source, destination, pair.destination)
        result = native.outcome(source, destination, times).as_dict()
        found = pair.destination.imported("vm")
        return {**result, "import": {key: found[key] for key in (
            "faults", "pages", "latency", "received_bytes", "complete_ms", "resolvers")}}


def peer(spec, preempt):
    """One migration by QEMU."""
    with host.workdir() as folder:
        return native.run(spec, folder, preempt, steady=STEADY).as_dict()


def one(variant, spec):
    """One round of a variant; its figures."""
    begin = time.monotonic()
    result = ours(spec("memfd")) if variant == OURS else (
        peer(spec(PEERS[variant][0]), PEERS[variant][1]))
    result["figures"] = {name: find(result) for name, find in FIGURES.items()}
    figures = result["figures"]
    print(f"{variant:20} complete {figures['complete_ms']:7.0f} ms  "
          f"down {figures['downtime_ms']:6.1f} ms  "
          f"stalls {figures['stalls']:6} p99 {figures['stall_p99_us']:7.0f} us  "
          f"blocked {figures['vcpu_blocked_ms']:7.0f} ms  lost {figures['work_lost_ms']:6.0f} ms  "
          f"bad {result['bad']}  ({time.monotonic() - begin:.0f} s)", flush=True)
    return result


def medians(rounds):
    """By variant and figure."""
    return {variant: {name: round(statistics.median(r["figures"][name] for r in results), 2)
                      for name in FIGURES}
            for variant, results in rounds.items() if results}


def ratios(middle):
    """Ours divided by QEMU's best; None where that makes no sense."""
    result = {}
    for name, (figure, prefix) in RATIOS.items():
        best = min((figures[figure] for variant, figures in middle.items()
                    if variant.startswith(prefix)), default=0)
        mine = middle.get(OURS, {}).get(figure)
        result[name] = round(max(mine, 0) / best, 4) if mine is not None and best > 0 else None
    return result


def show(middle, found):
    """The table."""
    variants = list(middle)
    print(f"\n{'median':18}" + "".join(f"{variant:>20}" for variant in variants))
    for name in FIGURES:
        print(f"{name:18}" + "".join(f"{middle[variant][name]:20.1f}" for variant in variants))
    print(f"\n{'ours / best QEMU':18}")
    for name, value in found.items():
        target = TARGETS.get(name)
        verdict = "" if target is None or value is None else (
            f"  target {target}: {'met' if value <= target else 'MISSED'}")
        print(f"{name:18}{'-' if value is None else format(value, '.3f'):>20}{verdict}")


def machine():
    """What this ran on."""
    version = subprocess.run([host.qemu(), "--version"], capture_output=True, text=True,
                             check=True).stdout.splitlines()[0]
    return {"kernel": platform.release(), "cpus": os.cpu_count(), "qemu": version,
            "accel": host.accel(), "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def run(options):
    """All rounds; 1 if one had bad words or failed."""
    def spec(backend):
        return Spec(mem_mb=options.mem, fill_mb=options.fill, vcpus=options.vcpus, backend=backend)

    variants = [OURS, *PEERS]
    if options.only:
        variants = [variant for variant in variants if options.only in variant]
    rounds = {variant: [] for variant in variants}
    print(f"{options.mem} MiB, {options.fill} MiB filled, {options.vcpus} vCPUs, {host.accel()}")
    failed = 0
    for number in range(1, options.rounds + 1):
        print(f"-- round {number} of {options.rounds}", flush=True)
        for variant in variants:
            try:
                result = one(variant, spec)
            except (DaemonError, VmError, QmpError) as error:
                print(f"{variant:20} FAILED {error}", flush=True)
                failed += 1
                continue
            failed += result["bad"] != 0
            rounds[variant].append(result)
    middle = medians(rounds)
    found = ratios(middle)
    show(middle, found)
    if options.json:
        Path(options.json).write_text(json.dumps(
            {"bench": "main", "machine": machine(), "mem_mb": options.mem, "fill_mb": options.fill,
             "vcpus": options.vcpus, "ratios": found, "targets": TARGETS, "medians": middle,
             "rounds": rounds}, indent=1) + "\n")
    return 1 if failed else 0


def main():
    """Reads the options."""
    parser = argparse.ArgumentParser(prog="bench.sh main", description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="also write everything there")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mem", type=int, default=1024, metavar="MiB")
    parser.add_argument("--fill", type=int, default=512, metavar="MiB")
    parser.add_argument("--vcpus", type=int, default=2, metavar="N")
    parser.add_argument("--only", metavar="TEXT", help="only variants with this in their names")
    options = parser.parse_args()
    host.check_writable(parser, options.json)
    host.exit_on_sigterm()
    try:
        return run(options)
    except host.Unavailable as missing:
        print(f"bench: {missing}")
        return 77


if __name__ == "__main__":
    sys.exit(main())
