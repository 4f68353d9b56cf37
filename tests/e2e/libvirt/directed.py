# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts whose daemons bring all of a domain's memory, and `postcopyctl migrate DOM DESTURI`."""

import json
import subprocess

from harness.postcopyd import expect

from .assisted import assisted
from .namespace import wait_for

STREAM_MOST = 5 << 20


class Drive:
    """One run of postcopyctl on the domain's host; a context manager."""

    def __init__(self, case, *options):
        self.domain = case.domain
        self.source = case.domain.here
        self.destination = case.domain.at(case.pair.other(self.source.host))
        self.uri = f"qemu+tcp://{self.destination.host.address}/system"
        self.begun = self.source.host.namespace.start(
            "postcopyctl", "migrate", "--json", *options, self.domain.name, self.uri,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.errors = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.begun.poll() is None:
            self.begun.kill()
            self.begun.wait()

    def wait_phase(self, phase):
        """Reads on until it says so."""
        for line in self.begun.stdout:
            self.lines.append(json.loads(line))
            if self.lines[-1].get("phase") == phase:
                return
        raise AssertionError(f"no phase {phase}: {self.lines} {self.begun.stderr.read()}")

    def wait(self, timeout=90.0):
        """Its exit status."""
        output, self.errors = self.begun.communicate(timeout=timeout)
        self.lines += [json.loads(line) for line in output.splitlines()]
        return self.begun.returncode

    def states(self):
        """State and reason at source and destination."""
        return [at.host.state(self.domain.name) for at in (self.source, self.destination)]

    def succeed(self):
        """It runs there and not here, its memory came through us; what there is to say."""
        status = self.wait()
        expect(status == 0, f"postcopyctl: exit {status}: {self.errors} {self.lines[-2:]}")
        result = self.lines[-1]
        self.domain.here = self.destination
        expect(result["event"] == "result" and result["complete"], f"result {result}")
        expect(0 < result["stream_bytes"] < STREAM_MOST, f"QEMU's stream: {result}")
        expect(result["received_bytes"] > self.domain.spec.fill_mb << 20, f"received: {result}")
        ignore_shared_is_off(self.destination.host, self.domain.name)
        return (f"stream {result['stream_bytes'] >> 10} KiB, {result['received_bytes'] >> 20} MiB "
                f"received, down {result.get('downtime_ms', -1):.0f} ms")

    def fail(self, *words):
        """It fails for that reason, and the guest runs on at the source as if nothing had been."""
        status = self.wait()
        expect(status != 0, f"postcopyctl succeeded: {self.lines[-1]}")
        for word in words:
            expect(word.lower() in self.errors.lower(), f"no '{word}' in: {self.errors}")
        expect(self.states()[0][0] == "running" and self.states()[1][0] in ("gone", "shut off"),
               f"states {self.states()}")
        ignore_shared_is_off(self.source.host, self.domain.name)
        return self.errors.strip().splitlines()[-1][len("postcopyctl: "):]


def ignore_shared_is_off(where, name, timeout=5.0):
    """Else the next save would lose the memory."""
    def is_off():
        answer = where.virsh("qemu-monitor-command", name, "--cmd",
                             '{"execute":"query-migrate-capabilities"}').stdout
        return not {one["capability"]: one["state"]
                    for one in json.loads(answer)["return"]}["x-ignore-shared"]
    wait_for(f"{name} on {where.name} without x-ignore-shared", is_off, timeout)


def direct(**settings):
    """As assisted(), with a domain that may be driven."""
    return assisted(**settings)
