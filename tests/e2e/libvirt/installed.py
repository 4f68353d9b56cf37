# SPDX-License-Identifier: GPL-2.0-or-later
"""Our files on a host, as `cmake --install` puts them there."""

import os
import re
import shutil
import subprocess

from harness.postcopyd import BUILD, DaemonError


def prefix():
    """Below which this build is to be installed."""
    cache = (BUILD / "CMakeCache.txt").read_text()
    return re.search(r"^CMAKE_INSTALL_PREFIX:\w+=(.+)$", cache, re.MULTILINE)[1]


def install(where, configuration):
    """Puts this build into a host's folder before there is a namespace; the folder to be mounted
    on the prefix there.

    configuration is where the daemon's will stand: the hook reads it where an installation has it.
    """
    staged = where.folder / "staged"
    done = subprocess.run(["cmake", "--install", BUILD], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False,
                          env=dict(os.environ, DESTDIR=str(staged)))
    if done.returncode:
        raise DaemonError(f"cmake --install: {done.stderr.strip()}")
    # Whoever QEMU runs as reads the preload.
    for folder, _, _ in os.walk(staged):
        os.chmod(folder, 0o755)
    for installed in staged.rglob("postcopyd/postcopyd.conf"):
        if installed.parts[-3] == "etc":
            installed.unlink()
            installed.symlink_to(configuration)
    # An operator who installs below another prefix than /usr copies the hook to where libvirt looks.
    for hook in staged.rglob("libvirt/hooks/qemu.d/*"):
        shutil.copy2(hook, where.folder / "etc" / "hooks" / "qemu.d")
    return staged / prefix().lstrip("/")
