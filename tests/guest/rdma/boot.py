# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots the soft-RoCE guest and runs one command in it: boot.py [OPTION …] IMAGE COMMAND [WORD …]

IMAGE is the folder that mkimage.py made.  The guest sees this host's files, read-only and under a tmpfs; the
command starts in the caller's folder, and what it writes appears at once.  A folder that the guest may
write to is named by --share; in there it is /run/guest.

Exits with the command's status; 124: it took too long; 125: the guest died, or did not boot.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOO_LONG, DIED = 124, 125

# A boot takes 4 s, and now and then it stops for ever in the firmware.
BOOT_SECONDS, BOOTS = 40.0, 3

PASSED_ON = ("PATH", "HOME", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE")
PASSED_PREFIXES = ("POSTCOPY_", "ASAN_", "UBSAN_", "TSAN_")

SCRIPT = """\
exec </dev/null >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw -echo
{environment}
source {network}
: >/run/guest/started
cd {folder} || exit
( {command} )
echo $? >/run/guest/status.new
mv /run/guest/status.new /run/guest/status
sync
echo b >/proc/sysrq-trigger
"""


class Hung(Exception):
    """The guest did not get as far as its first script."""


class Guest:
    """One guest: run() boots it; stop() ends it, from another thread too.

    address is its only one, on a network with the guest that has the other end of link, a stream socket.
    counting: it has one CPU, and its clock counts that one's instructions: a nanosecond each.
    """

    def __init__(self, image, share, *, memory=3072, cpus=2, address=None, link=None, output=None,
                 counting=False):
        self.image = Path(image)
        self.share = Path(share)
        self.monitor = self.share / "monitor"
        self._memory, self._cpus = memory, 1 if counting else cpus
        self._counting = counting
        self._address, self._link = address, link
        self._mac = "52:54:00:99:00:%02x" % int(address.rsplit(".", 1)[1]) if address else ""
        self._output = output
        self._process = None
        self._stopped = False

    def run(self, words, timeout):
        """The status of the command that these words are."""
        self._write_script(words)
        deadline = time.monotonic() + timeout
        for attempt in range(1, BOOTS + 1):
            try:
                return self._once(deadline)
            except Hung:
                self._complain(f"the guest did not boot in {BOOT_SECONDS:.0f} s, try {attempt} of {BOOTS}")
        return DIED

    def stop(self):
        """Ends it at once."""
        self._stopped = True
        if self._process:
            self._process.kill()

    def _once(self, deadline):
        for name in ("status", "started"):
            (self.share / name).unlink(missing_ok=True)
        boot_deadline = time.monotonic() + BOOT_SECONDS
        # Without its parent nobody would ever end it.
        words = ["setpriv", "--pdeathsig", "KILL", *self._qemu()]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self._output,
                              pass_fds=[self._link.fileno()] if self._link else []) as self._process:
            try:
                self._wait(deadline, boot_deadline)
            except subprocess.TimeoutExpired:
                self._complain("the command took too long")
                return TOO_LONG
            finally:
                self._process.kill()
        return self._status()

    def _wait(self, deadline, boot_deadline):
        while True:
            try:
                self._process.wait(0.2)
                return
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > boot_deadline and not (self.share / "started").exists():
                raise Hung

    def _status(self):
        try:
            return int((self.share / "status").read_text(encoding="ascii"))
        except (OSError, ValueError):
            if not self._stopped:
                self._complain(f"the guest died (QEMU's status {self._process.returncode})")
            return DIED

    def _complain(self, what):
        console = self.share / "console"
        said = console.read_text(errors="replace")[-3000:] if console.exists() else ""
        print(f"boot.py: {what}; its console:\n{said}", file=sys.stderr, flush=True)

    def _write_script(self, words):
        passed = {name: value for name, value in os.environ.items()
                  if name in PASSED_ON or name.startswith(PASSED_PREFIXES)}
        passed |= {"RDMA_GUEST": "1", "GUEST_ADDRESS": self._address or "", "GUEST_MAC": self._mac}
        passed["PATH"] += ":/usr/sbin:/sbin"
        (self.share / "main.sh").write_text(SCRIPT.format(
            environment="\n".join(f"export {name}={shlex.quote(value)}"
                                  for name, value in passed.items()),
            network=shlex.quote(str(HERE / "network.sh")),
            folder=shlex.quote(os.getcwd()),
            command=shlex.join(map(str, words))), encoding="utf-8")

    def _qemu(self):
        def files(name, path, tag, more=""):
            return ("-fsdev", f"local,id={name},path={path},security_model=none{more}",
                    "-device", f"virtio-9p-pci,fsdev={name},mount_tag={tag}")

        words = [
            os.environ.get("POSTCOPY_QEMU", "qemu-system-x86_64"), "-M", "pc", "-cpu", "max",
            "-accel", "tcg,thread=single" if self._counting else "tcg,thread=multi",
            "-smp", self._cpus, "-m", self._memory, "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot",
            "-kernel", self.image / "vmlinux", "-initrd", self.image / "initramfs.cpio",
            "-append", "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic mitigations=off no_timer_check "
                       "random.trust_cpu=on clocksource=tsc tsc=reliable",
            "-serial", f"file:{self.share}/console",
            "-chardev", "stdio,id=output,signal=off", "-serial", "chardev:output",
            *files("host", "/", "hostroot", ",readonly=on,multidevs=remap"),
            *files("share", self.share, "guest")]
        if self._counting:
            words += ["-icount", "shift=0"]
        if self._link:
            words += ["-netdev", f"socket,id=link,fd={self._link.fileno()}",
                      "-device",
                      f"virtio-net-pci,netdev=link,mac={self._mac},host_mtu=9000,romfile=",
                      "-qmp", f"unix:{self.monitor},server=on,wait=off"]
        return [str(word) for word in words]


def main():
    """Reads the arguments."""
    parser = argparse.ArgumentParser(usage="boot.py [OPTION …] IMAGE COMMAND [WORD …]")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds")
    parser.add_argument("--share", help="a folder that the guest may write to")
    parser.add_argument("image")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if not given.command:
        parser.error("no command")
    if not (Path(given.image) / "initramfs.cpio").is_file():
        sys.exit(f"boot.py: no guest in {given.image}: mkimage.py makes it")
    with tempfile.TemporaryDirectory(prefix="postcopy-rdma-") as folder:
        sys.exit(Guest(given.image, given.share or folder).run(given.command, given.timeout))


if __name__ == "__main__":
    main()
