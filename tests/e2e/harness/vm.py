# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU with the test guest in it."""

import atexit
import os
import subprocess
import uuid as uuids
from dataclasses import dataclass
from pathlib import Path

from . import host
from .guest import Guest, VmError
from .qmp import Qmp, QmpError
from .records import GuestLog

MARKER_PORT = 0x402
SOURCE, DESTINATION = 0x10, 0x11  # what the marker port reads as
ARENA_OFFSET = 64 << 20           # where in RAM the guest's first filled page lies

_BACKENDS = {
    "memfd": "memory-backend-memfd,share=on",
    "file": "memory-backend-file,share=on",
    "hugetlb": "memory-backend-memfd,share=on,hugetlb=on,hugetlbsize=2M",
    "anon": "memory-backend-ram,share=off",
}


@dataclass(frozen=True)
class Spec:
    """What both ends of a migration have in common."""

    mem_mb: int = 1024
    vcpus: int = 2
    accel: str = ""           # '' picks KVM if it works
    backend: str = "memfd"    # memfd, file (in the work folder), hugetlb, anon
    numa: tuple = ()          # ((backend id, MiB), …): one node each, in this order
    prealloc: bool = False
    machine: str = "q35"
    fill_mb: int = 512
    zero_mb: int = 0
    zero_epoch: int = 0
    write: bool = True
    order: str = "random"
    seed: int = 1
    firmware: str = "qboot"   # boots in 0.1 s where ring 0 is emulated; '' is QEMU's default
    named_threads: bool = True  # else nobody but QEMU tells which threads are vCPUs
    extra: tuple = ()

    @property
    def accelerator(self):
        """The accelerator that is used."""
        return self.accel or host.accel()

    def command_line(self):
        """The guest's kernel command line."""
        return (f"workers={self.vcpus} fill_mb={self.fill_mb} zero_mb={self.zero_mb} "
                f"zero_epoch={self.zero_epoch} write={int(self.write)} order={self.order} "
                f"seed={self.seed} tsc_khz={host.tsc_khz()} marker={MARKER_PORT:#x}")

    def boot_arguments(self):
        """QEMU's options for what the guest boots."""
        return ["-kernel", str(host.testguest()), "-append", self.command_line()]


class Vm(Guest):
    """A running QEMU.  Use as a context manager; it does not outlive it.

    incoming      '-incoming' argument, e.g. 'defer'
    paused        '-S'
    marker        SOURCE or DESTINATION: a guest that sees it change begins epoch 1
    preload, env  a library for LD_PRELOAD, more environment
    object_order  ids of the NUMA backends in the order of their '-object's
    wrapper       words before QEMU's own command line

    `control_socket` is a second QMP socket, for the program under test.
    """

    def __init__(self, spec, folder, name, *, incoming=None, paused=False, marker=SOURCE,
                 preload=None, env=None, uuid=None, object_order=(), extra=(), wrapper=()):
        self.spec = spec
        self.name = name
        self.uuid = str(uuid or uuids.uuid4())
        self.folder = Path(folder)
        self.serial_path = self._path("serial")
        self.control_socket = self._path("control")
        self._ram_files = []
        self._objects = list(object_order) or [backend for backend, _ in spec.numa] or ["ram0"]
        self.arguments = [*wrapper, host.qemu(), *self._machine_arguments(),
                          *self._device_arguments(marker), *spec.extra, *extra]
        if incoming:
            self.arguments += ["-incoming", incoming]
        if paused:
            self.arguments += ["-S"]
        self.log = self.qmp = None
        self._start(dict(os.environ, **(env or {})), preload)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.quit()

    @property
    def pid(self):
        """The process id of what was started: QEMU, or the wrapper."""
        return self.process.pid

    def destination(self, folder=None, name=None, **options):
        """A second QEMU of the same spec and uuid that waits for 'migrate-incoming'."""
        options = {"incoming": "defer", "marker": DESTINATION, "uuid": self.uuid, **options}
        return Vm(self.spec, folder or self.folder, name or f"{self.name}-dst", **options)

    def alive(self):
        """True while the process runs."""
        return self.process.poll() is None

    def stderr(self):
        """What QEMU and whatever is preloaded printed."""
        return self._path("stderr").read_text(errors="replace")

    def status(self):
        """QEMU's run state: running, postmigrate, inmigrate …"""
        return self.qmp.cmd("query-status")["status"]

    def vcpu_threads(self):
        """Thread ids of the vCPUs, by number."""
        return [cpu["thread-id"] for cpu in self.qmp.cmd("query-cpus-fast")]

    def ram_path(self, backend="ram0"):
        """A path by which shared guest RAM can be opened while QEMU lives."""
        if self.spec.backend == "file":
            return self.folder / f"{self.name}-{backend}.ram"
        # All memfds of QEMU have one name; their fds are in the order of the objects.
        links = sorted(Path(f"/proc/{self.pid}/fd").iterdir(), key=lambda fd: int(fd.name))
        memfds = [link for link in links if "memfd:memory-backend-memfd" in os.readlink(link)]
        # The client holds them a second time.
        memfds = list({link.stat().st_ino: link for link in reversed(memfds)}.values())[::-1]
        if len(memfds) != len(self._objects):
            raise VmError(f"{self.name}: {len(memfds)} RAM memfds for {self._objects}")
        return memfds[self._objects.index(backend)]

    # Ends

    def kill(self):
        """SIGKILL, as a crash."""
        if self.alive():
            self.process.kill()
        self._ended()

    def quit(self, timeout=10.0):
        """Ends it one way or the other."""
        if self.qmp and self.alive():
            try:
                self.qmp.execute("quit", timeout=timeout)
                self.process.wait(timeout)
            except (QmpError, subprocess.TimeoutExpired):
                pass
        self.kill()

    def _ended(self):
        self.process.wait()
        atexit.unregister(self.kill)
        if self.qmp:
            self.qmp.close()
            self.qmp = None
        if self.log:
            self.log.close()
        for path in self._ram_files:
            path.unlink(missing_ok=True)

    # Construction

    def _path(self, suffix):
        return self.folder / f"{self.name}.{suffix}"

    def _object(self, backend, size_mb):
        words = f"{_BACKENDS[self.spec.backend]},id={backend},size={size_mb}M"
        if self.spec.backend == "file":
            path = self.folder / f"{self.name}-{backend}.ram"
            self._ram_files.append(path)
            words += f",mem-path={path}"
        if self.spec.prealloc:
            words += ",prealloc=on"
        return ["-object", words]

    def _memory_arguments(self):
        spec = self.spec
        if not spec.numa:
            return ["-machine", f"{spec.machine},memory-backend=ram0",
                    *self._object("ram0", spec.mem_mb)]
        sizes = dict(spec.numa)
        arguments = ["-machine", spec.machine]
        for backend in self._objects:
            arguments += self._object(backend, sizes[backend])
        for node, backend in enumerate(sizes):
            arguments += ["-numa", f"node,nodeid={node},memdev={backend}"]
        return arguments

    def _machine_arguments(self):
        spec = self.spec
        mem_mb = sum(size for _, size in spec.numa) or spec.mem_mb
        named = "on" if spec.named_threads else "off"
        arguments = ["-name", f"{self.name},debug-threads={named}", "-uuid", self.uuid,
                     "-accel", spec.accelerator, "-cpu", host.cpu_model(spec.accelerator),
                     "-smp", str(spec.vcpus), "-m", f"{mem_mb}M",
                     *self._memory_arguments()]
        if spec.firmware == "qboot" and host.QBOOT.exists():
            arguments += ["-bios", str(host.QBOOT)]
        return arguments

    def _device_arguments(self, marker):
        return ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-serial", f"file:{self.serial_path}",
                "-chardev", "null,id=marker",
                "-device", f"isa-debugcon,iobase={MARKER_PORT:#x},readback={marker:#x},"
                           "chardev=marker",
                "-qmp", f"unix:{self._path('qmp')},server=on,wait=off",
                "-qmp", f"unix:{self.control_socket},server=on,wait=off",
                *self.spec.boot_arguments()]

    def _start(self, env, preload):
        if preload:
            env["LD_PRELOAD"] = str(preload)
        for suffix in ("serial", "qmp", "control"):
            self._path(suffix).unlink(missing_ok=True)
        with open(self._path("stderr"), "wb") as output:
            self.process = subprocess.Popen(self.arguments, stdin=subprocess.DEVNULL,
                                            stdout=output, stderr=subprocess.STDOUT, env=env)
        atexit.register(self.kill)
        try:
            self.log = GuestLog(self.serial_path)
            self.qmp = Qmp(self._path("qmp"), alive=self.alive)
        except QmpError as error:
            self.kill()
            raise VmError(f"{self.name}: {error}; {self.stderr()[-500:]}") from error
