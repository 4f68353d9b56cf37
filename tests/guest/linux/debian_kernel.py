# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernel for guests: fetched as a package, never installed, and taken apart."""

import fcntl
import io
import lzma
import os
import re
import struct
import subprocess
import tarfile
from dataclasses import dataclass

META = "linux-image-amd64"

# Documentation/x86/boot.rst
SETUP_SECTORS, MAGIC, PAYLOAD = 0x1F1, 0x202, 0x248
SECTOR = 512

DIRECTORY, FILE, CONSOLE = 0o040755, 0o100755, 0o020600
CONSOLE_NUMBER = (5, 1)


class Missing(Exception):
    """This machine cannot have the kernel."""


def run(*words, cwd=None):
    """What a program prints."""
    try:
        done = subprocess.run(words, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{words[0]}: {error}") from error
    if done.returncode:
        raise Missing(f"{' '.join(words[:3])}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def fetch(folder):
    """Downloads the package of today's kernel; installs nothing."""
    depends = run("apt-cache", "depends", META).decode()
    found = re.search(r"^ *Depends: (linux-image-\S+)$", depends, re.MULTILINE)
    if not found:
        raise Missing(f"{META} is not known to apt")
    run("apt-get", "-q", "download", found[1], cwd=folder)


def package(folder):
    """The path of the kernel's package, fetched if no version of it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not any(folder.glob("linux-image-*.deb")):
            try:
                fetch(folder)
            except Missing:
                if os.geteuid() != 0:
                    raise
                # Lists of some age name packages that are not there any more.
                run("apt-get", "-q", "update")
                fetch(folder)
        return max(folder.glob("linux-image-*.deb"))


@dataclass
class Kernel:
    """What a package holds."""

    image: bytes   # compressed
    modules: dict  # name to content

    def vmlinux(self):
        """The ELF file inside the bzImage, so that an emulated guest need not unpack it."""
        image = self.image
        offset, length = struct.unpack_from("<II", image, PAYLOAD)
        begin = ((image[SETUP_SECTORS] or 4) + 1) * SECTOR + offset
        if image[MAGIC:MAGIC + 4] != b"HdrS":
            raise Missing("the kernel is no bzImage")
        try:
            # What follows the compressed data is its size, which is of no use here.
            elf = lzma.LZMADecompressor().decompress(image[begin:begin + length])
        except lzma.LZMAError as error:
            raise Missing(f"the kernel is not compressed by xz: {error}") from error
        if elf[:4] != b"\x7fELF":
            raise Missing("the kernel's payload is no ELF file")
        return elf

    def loading_order(self, wanted):
        """The contents of the modules named and of what they depend on, as they can be loaded."""
        order = []

        def need(name):
            if name in order:
                return
            if name not in self.modules:
                raise Missing(f"no module {name}")
            depends = re.search(rb"\0depends=([^\0]*)\0", self.modules[name])[1].decode()
            for other in filter(None, depends.split(",")):
                need(other.replace("-", "_"))
            order.append(name)

        for name in wanted:
            need(name)
        return [self.modules[name] for name in order]


def unpacked(path, folders):
    """The kernel of a package, with the modules below these folders of it (drivers/virtio/)."""
    image, modules = None, {}
    below = re.compile(r"/kernel/(?:" + "|".join(map(re.escape, folders)) + r")")
    with tarfile.open(fileobj=io.BytesIO(run("dpkg-deb", "--fsys-tarfile", path))) as archive:
        for member in archive:
            name = member.name
            if "/boot/vmlinuz-" in name:
                image = archive.extractfile(member).read()
            elif below.search(name) and (found := re.search(r"([^/]+)\.ko(\.xz)?$", name)):
                data = archive.extractfile(member).read()
                modules[found[1].replace("-", "_")] = lzma.decompress(data) if found[2] else data
    if image is None:
        raise Missing(f"{path.name} holds no kernel")
    return Kernel(image, modules)


def entry(number, name, mode, data=b"", device=(0, 0)):
    """One entry of a cpio archive ("newc", Documentation/driver-api/early-userspace)."""
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def initramfs(init, modules):
    """The archive of a guest with one program: modules are named by their place in the order."""
    entries = [("dev", DIRECTORY), ("dev/console", CONSOLE, b"", CONSOLE_NUMBER),
               ("init", FILE, init)]
    entries += [(f"module{place}", FILE, module) for place, module in enumerate(modules)]
    entries.append(("TRAILER!!!", 0))
    return b"".join(entry(number, *fields) for number, fields in enumerate(entries, 1))


def write(folder, kernel, init, modules):
    """folder/vmlinux and folder/initramfs.cpio; the latter last: while it is new, all is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vmlinux").write_bytes(kernel.vmlinux())
    made = initramfs(init.read_bytes(), kernel.loading_order(modules))
    (folder / "initramfs.cpio").write_bytes(made)
