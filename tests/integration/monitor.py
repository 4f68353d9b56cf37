# SPDX-License-Identifier: GPL-2.0-or-later
"""A monitor that stands for a QEMU: what it answers is the test's to say."""

import json
import re
import socket
import threading

MIB = 1 << 20
MTREE = 'FlatView #0\n AS "memory", root: system\n Root memory region: system\n'


def bound_socket(path):
    """For a monitor; the process that it is to stand for calls listen()."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    return listener


class Monitor:
    """A QMP socket that serves one client at a time, as QEMU's does; a context manager.

    regions are (address, bytes) in a process, one after another from guest address 0 on, with a gap.
    listener is of bound_socket(): whoever called listen() on it is who the kernel says is asked.
    """

    def __init__(self, listener, regions, vcpus):
        self.path = listener.getsockname()
        self.regions = [(f"ram{i}", i << 32, address, size)
                        for i, (address, size) in enumerate(regions)]
        self.vcpus = list(vcpus)
        self.running, self.status = True, "running"
        self.migration = "active"
        self.postcopy_bandwidth = 0
        self.capabilities = {"postcopy-ram": True, "release-ram": False}
        self.asked = []
        self.after_status = lambda: None  # called when query-status was answered
        self.silent = threading.Event()
        self._listener = listener
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def stopped_in_postcopy(self):
        """The guest has moved on."""
        self.migration = "postcopy-active"
        self.running, self.status = False, "finish-migrate"

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rw") as lines:
                try:
                    self._talk(lines)
                except OSError:
                    pass

    def _talk(self, lines):
        version = {"major": 7, "minor": 2, "micro": 22}
        self._say(lines, {"QMP": {"version": {"qemu": version}, "capabilities": []}})
        for line in lines:
            request = json.loads(line)
            self.asked.append(request["execute"])
            if self.silent.is_set():
                continue
            try:
                answer = {"return": self._answer(request)}
            except KeyError:
                answer = {"error": {"class": "CommandNotFound", "desc": "no such command"}}
            self._say(lines, {**answer, "id": request["id"]})
            if request["execute"] == "query-status":
                self.after_status()

    @staticmethod
    def _say(lines, message):
        lines.write(json.dumps(message) + "\r\n")
        lines.flush()

    def _answer(self, request):
        if request["execute"] == "human-monitor-command":
            return self._human(request["arguments"]["command-line"])
        return {
            "qmp_capabilities": {},
            "query-status": {"running": self.running, "status": self.status},
            "query-migrate": {"status": self.migration} if self.migration else {},
            "query-migrate-capabilities": [{"capability": name, "state": on}
                                           for name, on in self.capabilities.items()],
            "query-migrate-parameters": {"max-postcopy-bandwidth": self.postcopy_bandwidth},
            "query-cpus-fast": [{"cpu-index": i, "thread-id": tid}
                                for i, tid in enumerate(self.vcpus)],
        }[request["execute"]]

    def _human(self, line):
        if line == "info ramblock":
            head = "Block Name    PSize              Offset               Used              Total\n"
            return head + "".join(
                f"{name}    4 KiB  {guest:#018x} {size:#018x} {size:#018x}\n"
                for name, guest, _, size in self.regions) + (
                    f"pc.bios    4 KiB  {1 << 40:#018x} {MIB // 4:#018x} {MIB // 4:#018x}\n")
        if line == "info mtree -f":
            return MTREE + "".join(
                f"  {guest:016x}-{guest + size - 1:016x} (prio 0, ram): {name}\n"
                for name, guest, _, size in self.regions) + (
                    f"  {0xfffc0000:016x}-{0xffffffff:016x} (prio 0, rom): pc.bios\n")
        address = int(re.fullmatch(r"gpa2hva (0x[0-9a-f]+)", line).group(1), 16)
        for name, guest, host, size in self.regions:
            if guest <= address < guest + size:
                return (f"Host virtual address for {address:#x} ({name}) is "
                        f"{host + address - guest:#x}\r\n")
        return f"No memory is mapped at address {address:#x}\r\n"
