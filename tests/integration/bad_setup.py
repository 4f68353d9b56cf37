# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon that cannot start says why, in one line, and exits with a failure."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from bad_client import _busy_world
from world import World, expect, host, mentions, postcopyd

CONFIG = host.TOP / "configs" / "postcopyd.conf"


def _config(folder, name, **sections):
    """A config file that is fine but for what is changed."""
    keys = {"daemon": {"socket": f"{folder}/{name}.sock", "runtime_dir": f"{folder}/{name}.run"},
            "peer": {"listen": f"127.0.0.1:{postcopyd.free_port()}"}}
    for section, changed in sections.items():
        keys.setdefault(section, {}).update(changed)
    path = folder / f"{name}.conf"
    path.write_text("".join(f"[{section}]\n" + "".join(f"{k} = {v}\n" for k, v in values.items())
                            for section, values in keys.items()))
    return path


def _run(arguments):
    """Runs postcopyd, which has to end by itself; what it takes apart of itself then is nobody's
    concern, a sanitizer's neither."""
    environment = {**os.environ,
                   "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}
    return subprocess.run([str(word) for word in (postcopyd.program("postcopyd"), *arguments)],
                          capture_output=True, text=True, timeout=30, check=False,
                          env=environment)


def _fails(arguments, *words, status=1):
    """postcopyd ends with a failure and one line that has these words."""
    done = _run(arguments)
    lines = [line for line in done.stderr.splitlines() if "warning:" not in line]
    expect(done.returncode == status, f"exit {done.returncode}: {done.stderr}")
    expect(len(lines) == 1, f"not one line: {done.stderr}")
    mentions(lines[0], "postcopyd:", *words)
    return lines[0]


def config_mistakes():
    """Typos, values out of range and files that are none."""
    with host.workdir() as name, _busy_world():
        folder = Path(name)
        for number, (section, key, value, *words) in enumerate((
                ("import", "resolver", "1", "resolver", "import"),
                ("daemno", "socket", "x", "no section", "daemno"),
                ("import", "resolvers", "many", "resolvers", "many"),
                ("import", "resolvers", "17", "resolvers", "16"),
                ("import", "dispatch", "away", "dispatch", "direct or home"),
                ("import", "window", "1K", "window", "65536"),
                ("import", "chunk", "-1", "chunk"),
                ("import", "chunk", "99999999999999999999", "chunk"),
                ("import", "around", "3", "around"),
                ("import", "busy_poll_us", "1001", "busy_poll_us", "auto or a number from 0 to 1000"),
                ("import", "busy_poll_us", "2147483647", "busy_poll_us", "1000"),
                ("import", "busy_poll_us", "automatic", "busy_poll_us", "auto or"),
                ("import", "resolvers", "auto", "must be a number from 0"),
                ("import", "limit", "fast", "limit", "fast", "rate"),
                ("import", "vm_limit", "1K", "vm_limit", "64K"),
                ("peer", "ping_ms", "1", "ping_ms", "50"),
                ("peer", "insecure_plaintext", "maybe", "insecure_plaintext", "yes or no"),
                ("peer", "listen", "nonsense", "nonsense", "HOST:PORT"),
                ("peer", "listen", "127.0.0.1:99999", "HOST:PORT"),
                ("peer", "advertise", "::1:5", "advertise", "HOST:PORT"),
                ("peer", "advertise", "localhost:5", "advertise", "numeric"),
                ("peer", "listen", "", "empty"),
                ("peer", "transport", "roce", "transport = roce", "auto, tcp or rdma"),
                ("rdma", "networks", "10.1.2.3/8", "[rdma] networks", "10.0.0.0/8"),
                ("rdma", "networks", "10.0.0.0/8 storage", "[rdma] networks", "0 to 32"),
                ("rdma", "networks", "10.0.0.0/8=rdma", "nothing may follow"),
                ("rdma", "peers", "10.0.0.0/8", "[rdma] peers", "auto, tcp or rdma"),
                ("rdma", "peers", "10.0.0.0/8=tcp, 10.0.0.0/8=rdma", "already"),
                ("rdma", "pinned", "1M", "pinned", "8388608"),
                ("rdma", "pinned", "513G", "pinned", "G are understood"),
                ("rdma", "pinned", "1048577T", "pinned"),
                # These would fit if 64 bits wrapped.
                ("rdma", "pinned", "17179869185G", "pinned", "549755813888"),
                ("import", "window", "18014398509482048K", "window"),
                ("import", "chunk", "17592186044417M", "chunk"),
                ("rdma", "device", "rxe0", "no key 'device'"),
                ("libvirt", "enable", "some", "enable", "opted or all"),
                ("libvirt", "start_postcopy", "1001", "start_postcopy", "1000"),
                ("libvirt", "source_port", "0", "source_port", "65535"),
                ("libvirt", "source", "nowhere", ".conf: ", "[libvirt] source", "HOST:PORT"),
                ("daemon", "grant_device", "1", "grant_device", "yes or no"),
                ("daemon", "socket", "/x" * 60, "socket", "107"))):
            path = _config(folder, f"c{number}", **{section: {key: value}})
            _fails(["--config", path, "--check"], *words)
            said = _fails(["--config", path], *words)
        path = _config(folder, "good", peer={"transport": "rdma"}, rdma={
            "networks": "10.1.0.0/16, fd00::/8,127.0.0.1", "peers": "10.1.2.0/24 = tcp, ::/0=auto",
            "pinned": "2G"})
        expect(_run(["--config", path, "--check"]).returncode == 0, "a good one is refused")
        for text, *words in (("socket = x\n", "line 1: socket:", "before any [SECTION]"),
                             ("\n[daemon\n", "line 2: [daemon:", "]"),
                             ("noise\n", "line 1: noise:", "KEY = VALUE"),
                             ("[daemon]\n# x\n socket \n", "line 3: socket:", "KEY = VALUE"),
                             ("[]\n", "noise.conf"), ("[daemon]\n= x\n", "noise.conf"),
                             ("[daemon]\nsocket = \xff\n", "noise.conf")):
            path = folder / "noise.conf"
            path.write_text(text, encoding="latin-1")
            _fails(["--config", path], "noise.conf: ", *words)
        path = folder / "double.conf"
        for more in ("[rdma]\n", "", "[daemon]\n#peers = ::1=tcp\n[rdma] \n "):
            path.write_text(f"[rdma]\npeers = ::1=tcp\n{more}peers=::1=rdma\n")
            _fails(["--config", path, "--check"], "double.conf: line", "peers: is set already")
        path.write_text("[daemon]\n#socket = /x\nsocket = /y\n# socket = /z\n")
        expect(_run(["--config", path, "--check"]).returncode == 0, "comments are no keys")
        for data in (b"\0[daemon]\nsocket = /x\n", b"[daemon]\n\0socket = /x\n"):
            path = folder / "zero.conf"
            path.write_bytes(data)
            _fails(["--config", path, "--check"], "zero.conf", "zero byte")
        _fails(["--config", folder / "none.conf"], "none.conf")
        _fails(["--frobnicate"], "frobnicate", status=2)
        _fails(["superfluous"], "superfluous", status=2)
        return said


def rdma_never():
    """RDMA that a configuration wants and can never have: --check says so, and the daemon says so and serves."""
    with host.workdir() as name, _busy_world():
        folder = Path(name)
        for number, (transport, rdma) in enumerate((
                ("rdma", {}), ("rdma", {"networks": ""}), ("rdma", {"peers": "10.0.0.0/8=auto"}))):
            path = _config(folder, f"c{number}", peer={"transport": transport}, rdma=rdma)
            said = _fails(["--config", path, "--check"], path.name, "[peer] transport = rdma",
                          "[rdma] networks is empty", "transport = auto")
        for number, (network, warned, rdma) in enumerate((
                ("10.2.0.0/16", True, {"peers": "10.1.0.0/16=auto, 10.2.0.0/16=rdma"}),
                ("10.2.0.0/16", True, {"networks": "10.1.0.0/16", "peers": "10.2.0.0/16=rdma"}),
                ("", False, {"networks": "10.1.0.0/16", "peers": "10.2.0.0/16=tcp, 10.1.2.3=rdma"}),
                ("", False, {"networks": "10.1.0.0/16", "peers": "10.0.0.0/8=rdma"}),
                ("", False, {"networks": "10.1.0.0/16, 127.0.0.1"}),
                ("", False, {}))):
            path = _config(folder, f"w{number}", rdma=rdma)
            done = _run(["--config", path, "--check"])
            expect(done.returncode == 0 and "is sound" in done.stdout, done)
            expect(bool(done.stderr) == warned, done)
            if warned:
                mentions(done.stderr, "postcopyd: warning:", f"rdma for {network}", "take it out of peers")
        loopback = _run(["--config", _config(folder, "l", rdma={"networks": "127.0.0.1"}), "--check"])
        expect(loopback.returncode == 0, loopback)
        mentions(loopback.stderr, "postcopyd: warning:", "loopback addresses")
        with World(source={"peer": {"transport": "rdma"}}, destination={"rdma": {"networks": "127.0.0.1"}}) as world:
            expect(world.source.stats()["rdma"]["transport"] == "rdma", world.source.stats())
            expect("warning: [peer] transport = rdma" in world.source.log(), world.source.log())
            expect("lists loopback addresses" in world.destination.log(), world.destination.log())
        return said


def occupied_port():
    """Another program has the port."""
    with host.workdir() as name, _busy_world(), socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        path = _config(Path(name), "c", peer={"listen": f"127.0.0.1:{port}"})
        return _fails(["--config", path], str(port), "taken")


def occupied_socket():
    """Another daemon serves the socket: it is left alone."""
    with World() as world:
        path = _config(world.folder, "c", daemon={"socket": world.source.socket})
        said = _fails(["--config", path], "another postcopyd", str(world.source.socket))
        source, destination = world.vms()
        world.move(source, destination)
        world.complete(source, destination)
        return said


def missing_group():
    """The group that shall own the socket, or the operators', does not exist."""
    with host.workdir() as name:
        folder = Path(name)
        for key in ("group", "operator_group"):
            said = _fails(["--config", _config(folder, "c", daemon={key: "no-such-group"})],
                          "no-such-group", "does not exist")
        return said


def open_network():
    """Anything but loopback needs a word that plain text is meant."""
    with host.workdir() as name:
        for listen in ("0.0.0.0:0", "[::]:0", "192.0.2.1:16520"):
            said = _fails(["--config", _config(Path(name), "c", peer={"listen": listen})],
                          "insecure_plaintext", "unencrypted")
        return said


def unwritable_places():
    """Folders that cannot be made, sockets that cannot be bound."""
    with host.workdir() as name:
        folder = Path(name)
        (folder / "file").write_text("")
        _fails(["--config", _config(folder, "a", daemon={"socket": folder / "file" / "sock"})],
               "file")
        _fails(["--config", _config(folder, "c", daemon={"socket": folder / "typo" / "d" / "sock"})],
               "cannot make", "typo/d", "above it does not exist")
        expect(not (folder / "typo").exists(), "a folder was made that nobody meant")
        return _fails(["--config", _config(folder, "b",
                                           daemon={"runtime_dir": folder / "file" / "run"})],
                      "file")


def unprivileged_daemon():
    """A daemon that may not use userfaultfd says so and serves as a source."""
    with host.workdir() as name:
        folder = Path(name)
        folder.chmod(0o755)
        private = folder / "nobody"
        private.mkdir()
        shutil.chown(private, "nobody", "nogroup")
        path = _config(private, "c")
        path.chmod(0o644)
        command = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups",
                   postcopyd.program("postcopyd"), "--config", path]
        with subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE,
                              text=True) as daemon:
            try:
                line = daemon.stderr.readline().strip()
                mentions(line, "/dev/userfaultfd", "run as root")
                ready = daemon.stderr.readline()
                expect("serving" in ready, ready)
            finally:
                daemon.terminate()
            expect(daemon.wait(30) == 0, f"exit {daemon.returncode}: {daemon.stderr.read()}")
        return line


def example_file():
    """The example names every key, with its built-in value, and no other."""
    example = CONFIG.read_text()
    section, documented = None, {}
    for line in example.splitlines():
        if found := re.fullmatch(r"\[(\w+)\]", line):
            section = found[1]
        elif found := re.fullmatch(r"#(\w+) = ?(.*)", line):
            documented[section, found[1]] = found[2]
    source = (host.TOP / "daemon" / "config.c").read_text()
    known = set(re.findall(r'\{"(\w+)", "(\w+)", KEY_', source))
    expect(known and known == set(documented), f"differ: {known ^ set(documented)}")
    with host.workdir() as name:
        path = Path(name) / "all.conf"
        path.write_text(re.sub(r"^#(\w+ = ?)", r"\1", example, flags=re.M))
        for config in (path, CONFIG):
            done = _run(["--config", config, "--check"])
            expect(done.returncode == 0, done.stderr)
    return f"{len(known)} keys"


def client_without_daemon():
    """A VMM whose daemon is not there is told so, once its patience ends."""
    with host.workdir() as name:
        command = [postcopyd.BUILD / "tests/integration/vmm", "source", "--socket",
                   f"{name}/none.sock", "--name", "x", "--mem", "1", "--fill", "1"]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              timeout=60, check=False, stdin=subprocess.DEVNULL)
        expect(done.returncode == 2, done)
        line = done.stdout.strip()
        mentions(line, "ERR connect", "none.sock")
        return line
