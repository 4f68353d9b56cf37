# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes what the soft-RoCE guest boots: mkimage.py INIT FOLDER PACKAGES

FOLDER/vmlinux and FOLDER/initramfs.cpio, from Debian's kernel package, which is fetched by apt-get
unless it is in PACKAGES.  Nothing is done if they are newer than INIT and this program.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "linux"))

# pylint: disable=wrong-import-position
import debian_kernel as debian  # noqa: E402

# The host's files, the network, and the device that is none.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_net", "dummy",
           "crc32_generic", "rdma_ucm", "ib_uverbs", "rdma_rxe")
FOLDERS = ("drivers/virtio/", "drivers/net/", "drivers/infiniband/", "net/", "fs/", "crypto/",
           "lib/", "arch/x86/crypto/")


def newer(made, *sources):
    """True if made is there and newer than all it was made from."""
    return made.is_file() and all(path.stat().st_mtime < made.stat().st_mtime for path in sources)


def main():
    """Reads the arguments."""
    if len(sys.argv) != 4:
        sys.exit("usage: mkimage.py INIT FOLDER PACKAGES")
    init, folder, packages = map(Path, sys.argv[1:])
    if newer(folder / "initramfs.cpio", init, Path(__file__), Path(debian.__file__)):
        return
    try:
        kernel = debian.unpacked(debian.package(packages), FOLDERS)
        debian.write(folder, kernel, init, MODULES)
    except debian.Missing as missing:
        sys.exit(f"mkimage.py: no kernel for the guest: {missing}")


if __name__ == "__main__":
    main()
