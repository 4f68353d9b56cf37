# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the test guest in real QEMUs and measures what a migration does to it.

    host       what this machine offers: accelerator, test guest, time stamp counter
    qmp        QEMU's control protocol
    records    what the guest reports on its serial port
    stalls     histograms of first touches
    guest      what those records say
    vm         one QEMU with the test guest in it
    measure    work lost around a switchover
    native     QEMU's own post-copy, the peer to measure against
    scenarios  what a run.py can run, and which of it its command line names
    smoke      shows that all of the above works: python3 -m harness.smoke

All times are seconds of time.time(), the clock of QEMU's event timestamps, unless a name says
otherwise.
"""
