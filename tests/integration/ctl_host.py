# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopyctl's commands about this host and libvirt: check, jobs, enable, disable."""

import json
import os
import socket
import subprocess

from hook_world import Site
from world import World, expect, mentions, postcopyd

TEST = "test:///default"
LEVELS = {"ok", "warn", "fail"}


def _findings(done):
    """Those of check --json, by id; the exit status has to be theirs."""
    answer = json.loads(done.stdout)
    expect(all(f["level"] in LEVELS and f["text"] and "\n" not in f["text"] + f["advice"]
               for f in answer["checks"]), answer)
    failed = [f for f in answer["checks"] if f["level"] == "fail"]
    expect(answer["ok"] == (not failed), answer)
    expect(done.returncode == (1 if failed else 0), f"{done.returncode}: {done.stderr}")
    if failed:
        mentions(done.stderr, f"{len(failed)} of {len(answer['checks'])} checks failed")
    return {finding["id"]: finding for finding in answer["checks"]}


def _check(daemon, config, *words, json_too=True, run="/nonexistent"):
    words = ["check", *(["--json"] if json_too else []), "--connect", TEST, *words]
    return subprocess.run(
        [postcopyd.program("postcopyctl"), "--socket", daemon, *words], capture_output=True,
        text=True, check=False, timeout=60,
        env={**os.environ, "POSTCOPYD_CONFIG": str(config), "POSTCOPYD_LIBVIRT_RUN": str(run)})


def check():
    """With a daemon: what it says is true of this host, and the same for people as for programs."""
    with World() as world:
        config = world.folder / "b.conf"
        done = _check(world.destination.socket, config)
        found = _findings(done)
        expect(found["daemon"]["level"] == "ok"
               and f"pid {world.destination.process.pid}" in found["daemon"]["text"], found)
        for name in ("uffd", "uffd-shmem", "io_uring", "libvirt"):
            expect(found[name]["level"] == "ok", found[name])
        expect(found["listen"]["level"] == "warn" and "127.0.0.1" in found["listen"]["text"],
               found["listen"])
        expect(found["monitors"]["level"] == "fail" and "libvirtd" in found["monitors"]["advice"],
               found["monitors"])
        expect(("0 of 1" in found["domains"]["text"]
                or found["domains"]["level"] == "warn"), found["domains"])
        people = _check(world.destination.socket, config, json_too=False)
        expect(people.returncode == done.returncode, people)
        expect([line.split()[:2] for line in people.stdout.splitlines()]
               == [[f["level"], name] for name, f in found.items()], people.stdout)
        return f"{len(found)} findings"


def check_without_daemon():
    """No daemon is a failure, and the rest is looked at all the same."""
    with Site() as site:
        found = _findings(_check(site.socket, site.config))
        expect(found["daemon"]["level"] == "fail" and "start postcopyd" in found["daemon"]["text"],
               found)
        found = _findings(_check(site.socket, site.config, run=site.folder))
        expect(found["monitors"]["level"] == "ok", found)
        site.config.write_text("[broken\n")
        found = _findings(_check(site.socket, site.config))
        expect(found["config"]["level"] == "fail", found)


def check_peer():
    """A peer is one only if it greets as a daemon does."""
    with World() as world:
        config = world.folder / "b.conf"

        def peer(address):
            return _findings(_check(world.destination.socket, config, "--peer", address))["peer"]

        good = peer(world.source.address)
        expect(good["level"] == "ok" and "postcopyd" in good["text"], good)
        expect(world.source.alive() and world.source.ctl("status").returncode == 0, "it is harmed")
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            strange = peer(f"127.0.0.1:{port}")
        expect(strange["level"] == "fail" and "not as postcopyd" in strange["text"], strange)
        gone = peer(f"[::ffff:127.0.0.1]:{port}")
        expect(gone["level"] == "fail" and "does not answer" in gone["text"], gone)
        for nonsense in ("", ":1", "[::1", "host:", "[::1]x"):
            expect("no address" in peer(nonsense)["text"], nonsense)


def jobs():
    """Both daemons name a migration that is under way, and no longer when it is over."""
    with World(destination={"import": {"vm_limit": "4M"}}) as world:
        for daemon in (world.source, world.destination):
            expect(json.loads(daemon.ctl("jobs", "--json").stdout) == [], "before")
            mentions(daemon.ctl("jobs").stdout, "no migrations")
        source, destination = world.vms("guest", mem=32, fill=32)
        world.move(source, destination)
        world.destination.wait_import("guest", lambda i: 0 < i["present_bytes"])
        leaving, = json.loads(world.source.ctl("jobs", "--json").stdout)
        arriving, = json.loads(world.destination.ctl("jobs", "--json").stdout)
        for job, direction in ((leaving, "out"), (arriving, "in")):
            expect((job["vm"], job["direction"], job["mode"]) == ("guest", direction, "direct"), job)
        expect(arriving["state"] == "running" and arriving["peer"] == world.source.address,
               arriving)
        expect(leaving["peer"] == world.destination.address, leaving)
        expect(0 < arriving["present_bytes"] < arriving["populated_bytes"] == 32 << 20, arriving)
        line = world.destination.ctl("jobs").stdout.splitlines()[1].split()
        expect(line[:4] == ["guest", "in", "direct", "running"], line)
        expect("direct" in world.destination.ctl("status").stdout, "status tells the mode")
        world.destination.ctl("limit", "guest", "none")
        destination.wait_event("released")
        source.wait_event("done")
        for daemon in (world.source, world.destination):
            daemon.wait("end of the job", lambda d=daemon: d.ctl("jobs", "--json").stdout == "[]\n")


def _ctl(*words):
    done = subprocess.run([postcopyd.program("postcopyctl"), *words], capture_output=True,
                          text=True, check=False, timeout=60)
    mentions(done.stdout + done.stderr)
    return done


def enable_and_disable():
    """What was done is said in a line, and so is what could not be done."""
    for command in ("enable", "disable"):
        done = _ctl(command, "--connect", TEST, "test")
        expect(done.returncode == 0 and done.stderr == "", done)
        mentions(done.stdout, "test:", f"{command}d", "at once", "next start")
        for words, status, said in (
                ((command, "-c", TEST, "nobody"), 1, ("no domain 'nobody'",)),
                ((command, "-c", "nonsense:///system", "test"), 1, ("cannot reach libvirt",)),
                ((command, "-c", TEST), 2, ("needs the name",)),
                ((command, "-c", TEST, "a", "b"), 2, ("'b'",)),
                ((command, "--nonsense", "test"), 2, ("nonsense",))):
            done = _ctl(*words)
            expect(done.returncode == status and done.stdout == "", f"{words}: {done}")
            mentions(done.stderr, "postcopyctl:", *said)
