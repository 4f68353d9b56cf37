# SPDX-License-Identifier: GPL-2.0-or-later
"""The same guest under `virsh migrate --live --postcopy`, with postcopyd and without it, in turns.

QEMU's own post-copy moves the guest both times.  Measured is what the guest itself saw in its first look
at all of its memory on the new host:

    stalls           first touches of a page that waited for it: 20 us or more
    stall_p99_us     how long they took
    vcpu_blocked_ms  their sum, over all vCPUs; blocked_worst_ms that of the vCPU with the most
    virsh_s          how long virsh ran
    postcopy_s       from the moment the guest runs on its new host until virsh ended
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

# pylint: disable=wrong-import-position
from harness import host  # noqa: E402
from harness.postcopyd import DaemonError  # noqa: E402
from harness.vm import Spec, VmError  # noqa: E402
from libvirt.assisted import Watch, assisted, brief, relayed  # noqa: E402
from libvirt.domains import Domain  # noqa: E402
from libvirt.hosts import check, pair  # noqa: E402
from libvirt.namespace import NamespaceError  # noqa: E402

WITH, WITHOUT = "with", "without"
STEADY = 1.0
FIGURES = ("virsh_s", "postcopy_s", "stalls", "stall_p50_us", "stall_p99_us", "stall_max_us",
           "vcpu_blocked_ms", "blocked_worst_ms")

# ratio, the figure of which it is
RATIOS = {"vcpu_blocked": "vcpu_blocked_ms", "stall_p99": "stall_p99_us", "stalls": "stalls",
          "stall_max": "stall_max_us", "virsh": "virsh_s"}


def outcome(domain, migration, took):
    """What a migration that succeeded cost the guest."""
    there = domain.here
    waited = there.wait_first_touches(epoch=1).waited().summary()
    each = [record["waited_us"] / 1e3
            for record in there.log.records("STALLSUM", epoch=1, **{"pass": 0})]
    begun = there.log.wait("EPOCH", lambda epoch: epoch["n"] == 1)
    domain.verified()
    figures = {"virsh_s": took, "postcopy_s": migration.ended - begun.seen, "stalls": waited["n"],
               "stall_p50_us": waited["p50_us"], "stall_p99_us": waited["p99_us"],
               "stall_max_us": waited["max_us"], "vcpu_blocked_ms": waited["sum_ms"],
               "blocked_worst_ms": max(each)}
    return {"figures": figures, "waited": waited, "blocked_ms_of_vcpus": each}


def without(spec, options):
    """One migration by libvirt and QEMU alone."""
    with pair() as both, Domain(both, spec) as domain:
        if options.link:
            both.slow_wire(options.link)
        domain.start()
        domain.here.wait_passes(1)
        time.sleep(STEADY)
        with domain.migrate(postcopy=options.rate, switch=True) as migration:
            return outcome(domain, migration, migration.succeed())


def with_us(spec, options):
    """The same with our daemons on both hosts, as configured by default."""
    around = {"import": {"around": options.around}}
    with assisted(spec=spec, source=around, destination=around) as case:
        if options.link:
            case.pair.slow_wire(options.link)
        time.sleep(STEADY)
        with Watch(case.destination, case.domain.name, interval=0.05) as watch:
            with case.migrate(postcopy=options.rate) as migration:
                result = outcome(case.domain, migration, migration.succeed())
        found = watch.last
        if not found or not found["faults"]:
            raise DaemonError(f"postcopyd served no fault: {brief(found)}")
        return {**result, "import": {key: found[key] for key in ("faults", "pages", "latency")},
                "relayed": relayed(case.domain.here)}


def one(variant, spec, options):
    """One round of a variant."""
    begin = time.monotonic()
    result = (with_us if variant == WITH else without)(spec, options)
    figures = result["figures"]
    print(f"{variant:8} virsh {figures['virsh_s']:5.1f} s  stalls {figures['stalls']:6} "
          f"p50 {figures['stall_p50_us']:7.0f} p99 {figures['stall_p99_us']:8.0f} us  "
          f"blocked {figures['vcpu_blocked_ms']:7.0f} ms  "
          f"({time.monotonic() - begin:.0f} s)", flush=True)
    return result


def medians(rounds):
    """By variant and figure."""
    return {variant: {name: round(statistics.median(r["figures"][name] for r in results), 3)
                      for name in FIGURES}
            for variant, results in rounds.items() if results}


def ratios(middle):
    """With us divided by without; None where there is nothing to divide."""
    if WITH not in middle or WITHOUT not in middle:
        return dict.fromkeys(RATIOS)
    return {name: round(middle[WITH][figure] / middle[WITHOUT][figure], 4)
            if middle[WITHOUT][figure] else None for name, figure in RATIOS.items()}


def show(middle, found):
    """The tables."""
    print(f"\n{'median':18}" + "".join(f"{variant:>12}" for variant in middle))
    for name in FIGURES:
        print(f"{name:18}" + "".join(f"{figures[name]:12.1f}" for figures in middle.values()))
    print("\nwith / without")
    for name, value in found.items():
        print(f"{name:18}{'-' if value is None else format(value, '.3f'):>12}")


def run(options):
    """All rounds; 1 if one failed, be it by a wrong word."""
    spec = Spec(mem_mb=options.mem, fill_mb=options.fill, vcpus=options.vcpus,
                backend=options.backend)
    print(f"{options.mem} MiB of {options.backend}, {options.fill} MiB filled, {options.vcpus} "
          f"vCPUs, {host.accel()}, post-copy at {options.rate or 'any number of'} MiB/s, "
          f"wire {options.link or 'unlimited'}")
    rounds = {WITHOUT: [], WITH: []}
    failed = 0
    for number in range(1, options.rounds + 1):
        print(f"-- round {number} of {options.rounds}", flush=True)
        for variant, results in rounds.items():
            try:
                results.append(one(variant, spec, options))
            except (DaemonError, VmError, NamespaceError) as error:
                print(f"{variant:8} FAILED {error}", flush=True)
                failed += 1
    middle = medians(rounds)
    found = ratios(middle)
    show(middle, found)
    if options.json:
        Path(options.json).write_text(json.dumps(
            {"bench": "libvirt", "ratios": found, "medians": middle, "rounds": rounds,
             "mem_mb": options.mem, "fill_mb": options.fill, "vcpus": options.vcpus,
             "backend": options.backend, "rate_mib_s": options.rate, "link": options.link, "around": options.around,
             "machine": {"kernel": platform.release(), "cpus": os.cpu_count(),
                         "accel": host.accel(),
                         "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}},
            indent=1) + "\n")
    return 1 if failed else 0


def main():
    """Reads the options."""
    parser = argparse.ArgumentParser(prog="bench.sh libvirt", description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="also write everything there")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mem", type=int, default=1024, metavar="MiB")
    parser.add_argument("--fill", type=int, default=512, metavar="MiB")
    parser.add_argument("--vcpus", type=int, default=2, metavar="N")
    parser.add_argument("--backend", choices=("memfd", "anon"), default="memfd")
    parser.add_argument("--link", default="", metavar="RATE",
                        help="what the wire carries each way, as tc says it: 1gbit; otherwise as "
                             "much as this machine can")
    parser.add_argument("--rate", type=int, default=0, metavar="MiB/s",
                        help="virsh's --postcopy-bandwidth; 0: none")
    parser.add_argument("--around", default="256K", help="as in postcopyd.conf")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    host.check_writable(parser, options.json)
    host.exit_on_sigterm()
    try:
        check()
        return run(options)
    except host.Unavailable as missing:
        print(f"bench: {missing}")
        return 77


if __name__ == "__main__":
    sys.exit(main())
