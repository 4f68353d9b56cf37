# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes what the Linux guest boots, from Debian's kernel package: mkimage.py INIT FOLDER

FOLDER/vmlinux is the kernel as an ELF file, so that an emulated guest need not unpack it;
FOLDER/initramfs.cpio holds INIT, a static program, and the modules of a virtio balloon.  The package
is fetched by apt-get and kept in FOLDER.  Exits with 77 and a reason if it cannot be had.
"""

import io
import lzma
import os
import re
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

META = "linux-image-amd64"
MODULES = ("virtio_pci", "virtio_balloon")
MODULE_FOLDER = "kernel/drivers/virtio/"
SKIPPED = 77

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


def unpacked(path):
    """(the compressed kernel, its virtio modules by name)."""
    kernel, modules = None, {}
    with tarfile.open(fileobj=io.BytesIO(run("dpkg-deb", "--fsys-tarfile", path))) as archive:
        for member in archive:
            name = member.name
            if "/boot/vmlinuz-" in name:
                kernel = archive.extractfile(member).read()
            elif MODULE_FOLDER in name and (found := re.search(r"([^/]+)\.ko(\.xz)?$", name)):
                data = archive.extractfile(member).read()
                modules[found[1].replace("-", "_")] = lzma.decompress(data) if found[2] else data
    if kernel is None:
        raise Missing(f"{path.name} holds no kernel")
    return kernel, modules


def vmlinux(image):
    """The ELF file inside a bzImage."""
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


def loading_order(modules):
    """The names of MODULES and what they depend on, in the order they can be loaded."""
    order = []

    def need(name):
        if name in order:
            return
        if name not in modules:
            raise Missing(f"no module {name}")
        for other in re.search(rb"\0depends=([^\0]*)\0", modules[name])[1].decode().split(","):
            if other:
                need(other)
        order.append(name)

    for name in MODULES:
        need(name)
    return order


def entry(number, name, mode, data=b"", device=(0, 0)):
    """One entry of a cpio archive ("newc", Documentation/driver-api/early-userspace)."""
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def initramfs(init, modules):
    """The archive with what init.c expects: modules named by their place in the order."""
    entries = [("dev", DIRECTORY), ("dev/console", CONSOLE, b"", CONSOLE_NUMBER),
               ("init", FILE, init)]
    entries += [(f"module{place}", FILE, modules[name])
                for place, name in enumerate(loading_order(modules))]
    entries.append(("TRAILER!!!", 0))
    return b"".join(entry(number, *fields) for number, fields in enumerate(entries, 1))


def main():
    """Reads the arguments."""
    if len(sys.argv) != 3:
        sys.exit("usage: mkimage.py INIT FOLDER")
    init, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    try:
        image, modules = unpacked(package(folder))
        (folder / "vmlinux").write_bytes(vmlinux(image))
        # Written last: as long as it is newer than INIT, all is.
        (folder / "initramfs.cpio").write_bytes(initramfs(init.read_bytes(), modules))
    except Missing as missing:
        print(f"skipped: {missing}")
        sys.exit(SKIPPED)


if __name__ == "__main__":
    main()
