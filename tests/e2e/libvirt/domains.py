# SPDX-License-Identifier: GPL-2.0-or-later
"""The test guest as a libvirt domain, and what virsh migrate does to it."""

import itertools
import subprocess
import threading
import time
import uuid as uuids

from harness import host
from harness.guest import Guest, VmError
from harness.records import GuestLog
from harness.vm import Spec

from .hosts import GUESTS, IMAGES, MARKER

MEMORY = {"memfd": "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>",
          "anon": ""}

XML = """
<domain type='{type}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  {metadata}
  <memory unit='MiB'>{memory}</memory>
  {backing}
  <vcpu>{vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    {loader}
    <kernel>{images}/testguest.elf</kernel>
    <cmdline>{command_line}</cmdline>
  </os>
  <features><acpi/></features>
  {cpu}
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <serial type='file'><source path='{guests}/{name}.serial'/><target port='0'/></serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-readconfig'/>
    <qemu:arg value='{marker}'/>
    <qemu:env name='POSTCOPY_LOG' value='{guests}/{name}.client'/>
  </qemu:commandline>
</domain>
"""

# The test guest runs where a hypervisor shows it as little as possible (harness/host.py, cpu_model()).
CPU = {"kvm": "<cpu mode='host-passthrough' check='none'>"
              "<feature policy='disable' name='arch-capabilities'/></cpu>",
       "qemu": "<cpu mode='maximum'/>"}


class DomainError(VmError):
    """A domain is not, or virsh does not do, what was expected."""


class At(Guest):
    """A domain on one host."""

    def __init__(self, domain, where):
        self.name = f"{domain.name} on {where.name}"
        self.spec = domain.spec
        self.host = where
        self.domain = domain.name
        self._file = where.folder / "log" / "guests" / f"{domain.name}.serial"
        for path in (self._file, self._file.with_suffix(".client")):
            path.unlink(missing_ok=True)
        self.log = GuestLog(self._file)

    def alive(self):
        """True while QEMU runs there, or is yet to be started."""
        return not self._file.exists() or self.pid() is not None

    def pid(self):
        """QEMU's process id as the host sees it, None if there is none."""
        try:
            pid = int((self.host.path("/run/libvirt/qemu") / f"{self.domain}.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if self.host.path(f"/proc/{pid}/stat").exists() else None

    def stderr(self):
        """What QEMU printed."""
        path = self.host.folder / "log" / "qemu" / f"{self.domain}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def client_log(self):
        """What our preload said in QEMU."""
        path = self._file.with_suffix(".client")
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self):
        """Stops reading the guest's records."""
        self.log.close()


class Domain:
    """The test guest on one host of a pair, and later on the other; a context manager.

    metadata  what <metadata> holds
    """

    _numbers = itertools.count(1)

    def __init__(self, pair, spec=None, *, name=None, metadata=""):
        self.pair = pair
        self.spec = spec or Spec()
        self.name = name or f"guest{next(self._numbers)}"
        self.uuid = str(uuids.uuid4())
        self._metadata = metadata
        self._seen = []
        self.defined = set()  # the hosts that keep its description when it leaves
        self.here = self.at(pair.a)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self.pair.hosts:
            one.virsh("destroy", self.name, check=False)
            one.virsh("undefine", self.name, check=False)
        for seen in self._seen:
            seen.close()

    def at(self, where):
        """The domain on a host it is about to be started on: its records there begin anew."""
        seen = At(self, where)
        self._seen.append(seen)
        return seen

    def xml(self):
        """Its description, the same for both hosts."""
        kind = "kvm" if self.spec.accelerator.startswith("kvm") else "qemu"
        loader = f"<loader type='rom'>{host.QBOOT}</loader>" if host.QBOOT.exists() else ""
        metadata = f"<metadata>{self._metadata}</metadata>" if self._metadata else ""
        return XML.format(type=kind, name=self.name, uuid=self.uuid, metadata=metadata,
                          memory=self.spec.mem_mb, backing=MEMORY[self.spec.backend],
                          vcpus=self.spec.vcpus, loader=loader, images=IMAGES, guests=GUESTS,
                          command_line=self.spec.command_line(), cpu=CPU[kind], marker=MARKER)

    def start(self):
        """Defines and starts it, and waits until it has filled its memory."""
        where = self.here.host
        path = where.folder / f"{self.name}.xml"
        path.write_text(self.xml())
        where.virsh("define", path)
        self.defined.add(where)
        where.virsh("start", self.name)
        self.here.wait_ready()

    def migrate(self, *options, **settings):
        """Begins to migrate it to the other host: a Migration."""
        return Migration(self, *options, **settings)

    def verified(self, epoch=1, passes=1, timeout=30.0):
        """It has looked at all its memory since its last migration, and all was right."""
        tick = self.here.wait_passes(passes, epoch, timeout)
        self.here.wait_ticks(2)
        bad = self.here.bad()
        if bad or self.here.bad_records():
            raise DomainError(f"{bad} bad words: {self.here.bad_records()[:3]}")
        if self.spec.zero_mb and epoch >= self.spec.zero_epoch and not tick["zero_pages"]:
            raise DomainError("zero memory was not looked at")
        return f"{tick['passes']} passes"


class Migration:
    """One run of `virsh migrate --live --postcopy`; a context manager.

    options    more options of virsh's
    precopy    MiB/s before post-copy, None: no limit
    postcopy   MiB/s afterwards, None: no limit
    switch     post-copy is begun by this test once memory travels, not by anyone else
    ordinary   without --postcopy
    """

    def __init__(self, domain, *options, precopy=1, postcopy=None, switch=False,
                 ordinary=False):
        self.domain = domain
        self.source = domain.here
        self.destination = domain.at(domain.pair.other(self.source.host))
        limits = [*(["--bandwidth", str(precopy)] if precopy else []),
                  *(["--postcopy-bandwidth", str(postcopy)] if postcopy else [])]
        self.words = ["virsh", "-q", "-c", "qemu:///system", "migrate", "--live",
                      *([] if ordinary else ["--postcopy"]), *limits, *options, domain.name,
                      f"qemu+tcp://{self.destination.host.address}/system"]
        self.begin = time.time()
        self.ended = None
        self.begun = self.source.host.namespace.start(
            *self.words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if switch:
            self.switch()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.begun.poll() is None:
            self.begun.kill()
        self._reader.join(5)

    def switch(self, timeout=20.0):
        """Begins post-copy in the first pass."""
        deadline = time.monotonic() + timeout
        while self.source.host.job(self.domain.name).get("Iteration", "0") == "0":
            if self.begun.poll() is not None or time.monotonic() > deadline:
                raise DomainError(f"no migration to switch: {self.output.strip()}")
        self.source.host.virsh("migrate-postcopy", self.domain.name)

    def wait(self, timeout=60.0):
        """virsh's exit status."""
        try:
            status = self.begun.wait(timeout)
        except subprocess.TimeoutExpired as late:
            raise DomainError(f"virsh still runs after {timeout} s; {self.states()}") from late
        self._reader.join()
        return status

    def states(self):
        """State and reason at source and destination."""
        return [at.host.state(self.domain.name) for at in (self.source, self.destination)]

    def wait_states(self, source, destination, timeout=10.0):
        """Waits for state and reason of both while virsh runs."""
        deadline = time.monotonic() + timeout
        while (states := self.states()) != [source, destination]:
            if self.begun.poll() is not None or time.monotonic() > deadline:
                raise DomainError(f"source and destination were never {source}, {destination}, "
                                  f"but are {states}")

    def succeed(self, timeout=60.0):
        """Waits for a success: it runs there and does not here.  How long virsh took, in s."""
        status = self.wait(timeout)
        if status:
            raise DomainError(f"virsh migrate: exit {status}: {self.output.strip()}")
        self.domain.here = self.destination
        if "--persistent" in self.words:
            self.domain.defined.add(self.destination.host)
        states = self.states()
        stays = self.source.host in self.domain.defined
        left = ("shut off", "migrated") if stays else ("gone", "")
        if states != [left, ("running", "migrated")]:
            raise DomainError(f"source {states[0]}, destination {states[1]}")
        return self.ended - self.begin

    def _read(self):
        self.output = self.begun.stdout.read()
        self.begun.wait()
        self.ended = time.time()
