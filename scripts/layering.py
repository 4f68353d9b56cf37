#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks that dependencies between folders point one way.

Names every #include that goes against it as file:line, and then exits with 1.
"""

import re
import sys
from pathlib import Path

# What a folder may include besides itself. The longest matching folder counts.
ALLOWED = {
    "protocol": (),
    "protocol/qmp": ("protocol",),
    "client/lib": ("protocol",),
    "client": ("client", "protocol"),
    "daemon/core": ("protocol",),
    "daemon/transport": ("daemon/core", "protocol"),
    "daemon/source": ("daemon/transport", "daemon/core", "protocol"),
    "daemon/fault": ("daemon/transport", "daemon/source", "daemon/core", "protocol"),
    "daemon/control": ("daemon/fault", "daemon/transport", "daemon/source", "daemon/core",
                       "daemon/qemu", "protocol"),
    "daemon/qemu": ("daemon/core", "protocol"),
    "daemon": ("daemon", "protocol"),
}

# What is loaded into somebody else's process gets by with the C library.
LIBC_ONLY = ("protocol", "client/lib", "client/qemu")
BUT_FOR = ("protocol/qmp",)
LIBRARIES = re.compile(
    r"(glib|gio|gobject|json-glib|event2?|systemd|libvirt|gnutls|libxml|infiniband|rdma)[/.-]"
    r"|liburing\.h|event\.h|glib\.h")

# Written at configure time, for everybody.
GENERATED = ("version.h", "paths.h")

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')


def below(path, folder):
    return path == folder or path.startswith(folder + "/")


def layer(path):
    """The folder of ALLOWED that a file belongs to, or None."""
    folders = [folder for folder in ALLOWED if below(path, folder)]
    return max(folders, key=len, default=None)


def resolve(top, source, name, headers):
    """The file of this project that source means by name, from the top, or None."""
    for folder in (source.parent, top, top / "daemon"):
        target = (folder / name).resolve()
        if target.is_file() and target.is_relative_to(top):
            return target.relative_to(top).as_posix()
    matches = [header for header in headers if header.endswith("/" + name)]
    return matches[0] if len(matches) == 1 else None


def violation(top, source, quote, name, headers):
    """What is wrong with this include, or None."""
    path = source.relative_to(top).as_posix()
    folder = layer(path)
    if quote == "<" and not (top / name).is_file():
        if folder_of_libc(path) and LIBRARIES.match(name):
            return f"{folder_of_libc(path)} may use the C library only, not {name}"
        return None
    if name in GENERATED:
        return None
    target = resolve(top, source, name, headers)
    if target is None:
        return f"{name} is not a file of this project" if quote == '"' else None
    other = layer(target)
    if other == folder or (other and any(below(other, may) for may in ALLOWED[folder])):
        return None
    return f"{folder} may not include {target}"


def folder_of_libc(path):
    if any(below(path, folder) for folder in BUT_FOR):
        return None
    return next((folder for folder in LIBC_ONLY if below(path, folder)), None)


def check(top):
    files = sorted(path for folder in ("protocol", "client", "daemon")
                   for path in (top / folder).rglob("*.[ch]"))
    headers = [path.relative_to(top).as_posix() for path in files if path.suffix == ".h"]
    count = 0
    for source in files:
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            wrong = match and violation(top, source, *match.groups(), headers)
            if wrong:
                print(f"{source.relative_to(top)}:{number}: {wrong}")
                count += 1
    return count


if __name__ == "__main__":
    sys.exit(1 if check(Path(__file__).resolve().parent.parent) else 0)
