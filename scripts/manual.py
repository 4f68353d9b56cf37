#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks that the manual tells of every command, option and key there is, and that groff takes its pages.

Names what is missing, and then exits with 1.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
PAGES = sorted((TOP / "docs" / "man").glob("*.in"))

# Options of every program that GLib parses, and what the configuration's section tells.
OPTION = re.compile(r'\{"([a-z-]+)",\s*(?:0|\'.\'),\s*0,\s*G_OPTION_ARG')


def plain(page):
    """A page's text without the marks of its macros."""
    text = (TOP / "docs" / "man" / f"{page}.in").read_text(encoding="utf-8")
    return re.sub(r"\\f[BIRP]", "", text).replace("\\-", "-").replace('"', " ")


def missing():
    """All that the sources have and the pages do not."""
    config = (TOP / "daemon" / "config.c").read_text(encoding="utf-8")
    conf = plain("postcopyd.conf.5")
    for section, key in re.findall(r'\{"(\w+)", "(\w+)", KEY_', config):
        _, _, below = conf.partition(f".SH [{section}]")
        if not re.search(rf"\b{key}\b", below.split(".SH ")[0]):
            yield f"postcopyd.conf.5: [{section}] {key}"
    for option in OPTION.findall(config):
        if f"--{option}" not in plain("postcopyd.8"):
            yield f"postcopyd.8: --{option}"
    ctl = plain("postcopyctl.1")
    sources = sorted((TOP / "client" / "ctl").glob("*.c"))
    for command in re.findall(r'\{"(\w+)",[^{}]*?command_\1',
                              (TOP / "client/ctl/main.c").read_text(encoding="utf-8")):
        if not re.search(rf"^\.B[A-Z]* +{command}\b|^{command}\b", ctl, re.M):
            yield f"postcopyctl.1: {command}"
    for option in {name for path in sources for name in OPTION.findall(path.read_text("utf-8"))}:
        if f"--{option}" not in ctl:
            yield f"postcopyctl.1: --{option}"


def malformed():
    """What groff says of the pages."""
    if not shutil.which("groff"):
        return
    for page in PAGES:
        with tempfile.NamedTemporaryFile("w", suffix=page.stem, encoding="utf-8") as filled:
            filled.write(re.sub(r"@\w+@", "/usr", page.read_text(encoding="utf-8")))
            filled.flush()
            done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", filled.name],
                                  capture_output=True, text=True, check=False)
        for line in done.stderr.splitlines():
            yield f"{page.name}: {line}"


if __name__ == "__main__":
    WRONG = [*missing(), *malformed()]
    print("\n".join(WRONG) if WRONG else f"{len(PAGES)} pages")
    sys.exit(1 if WRONG or not PAGES else 0)
