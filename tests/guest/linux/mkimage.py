# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes what the Linux guest boots, from Debian's kernel package: mkimage.py INIT FOLDER

FOLDER/vmlinux is the kernel as an ELF file; FOLDER/initramfs.cpio holds INIT, a static program, and the
modules of a virtio balloon.  The package is fetched by apt-get and kept in FOLDER.  Exits with 77 and a
reason if it cannot be had.
"""

import sys
from pathlib import Path

import debian_kernel as debian

MODULES = ("virtio_pci", "virtio_balloon")
FOLDERS = ("drivers/virtio/",)
SKIPPED = 77


def main():
    """Reads the arguments."""
    if len(sys.argv) != 3:
        sys.exit("usage: mkimage.py INIT FOLDER")
    init, folder = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        kernel = debian.unpacked(debian.package(folder), FOLDERS)
        debian.write(folder, kernel, init, MODULES)
    except debian.Missing as missing:
        print(f"skipped: {missing}")
        sys.exit(SKIPPED)


if __name__ == "__main__":
    main()
