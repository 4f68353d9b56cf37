# SPDX-License-Identifier: GPL-2.0-or-later
"""A QMP client: commands from any one thread at a time, events collected in the background."""

import json
import socket
import threading
import time
from dataclasses import dataclass


class QmpError(Exception):
    """The connection is gone, or nothing came in time."""


class QmpCommandError(QmpError):
    """QEMU answered with an error."""

    def __init__(self, command, error):
        super().__init__(f"{command}: {error.get('desc')}")
        self.kind = error.get("class")
        self.description = error.get("desc", "")


@dataclass(frozen=True)
class Event:
    """An event with QEMU's own timestamp (`time`) and when it was read (`seen`)."""

    name: str
    data: dict
    time: float
    seen: float


def connect(path, deadline, alive):
    """A socket connected to path, waited for until deadline while alive() holds."""
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline or not alive():
                raise QmpError(f"{path}: {error}") from error
            time.sleep(0.01)


class Qmp:
    """A connection to one QEMU, ready for commands once constructed."""

    def __init__(self, path, timeout=20.0, alive=lambda: True):
        self._socket = connect(path, time.monotonic() + timeout, alive)
        self._lines = self._socket.makefile("r", encoding="utf-8")
        self._changed = threading.Condition()
        self._commands = threading.Lock()
        self._events = []
        self._replies = []
        self._closed = False
        self._id = 0
        threading.Thread(target=self._read, daemon=True).start()
        self.execute("qmp_capabilities", timeout=timeout)

    def close(self):
        """Ends the connection; harmless when done before."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()

    def execute(self, command, arguments=None, timeout=60.0):
        """The command's return value."""
        with self._commands:
            self._id += 1
            request = {"execute": command, "id": self._id}
            if arguments:
                request["arguments"] = arguments
            try:
                self._socket.sendall(json.dumps(request).encode() + b"\n")
            except OSError as error:
                raise QmpError(f"{command}: {error}") from error
            reply = self._await_reply(command, self._id, timeout)
        if "error" in reply:
            raise QmpCommandError(command, reply["error"])
        return reply["return"]

    def cmd(self, name, /, **arguments):
        """execute() with arguments as keywords: max_bandwidth=1 is {"max-bandwidth": 1}."""
        return self.execute(name, {key.replace("_", "-"): value
                                   for key, value in arguments.items()})

    def hmp(self, line):
        """What the human monitor prints for a line."""
        return self.execute("human-monitor-command", {"command-line": line})

    def capabilities(self, **capabilities):
        """Sets migration capabilities: postcopy_ram=True, x_ignore_shared=False …"""
        self.execute("migrate-set-capabilities", {"capabilities": [
            {"capability": name.replace("_", "-"), "state": state}
            for name, state in capabilities.items()]})

    def events(self, name=None):
        """All events so far, or those of a name."""
        with self._changed:
            return [event for event in self._events if name in (None, event.name)]

    def wait_event(self, names, predicate=None, timeout=60.0, since=0.0):
        """The first event of these names, not older than since, for which predicate(data) holds.

        Events that came before the call count, too.
        """
        names = (names,) if isinstance(names, str) else names
        with self._changed:
            found = self._wait(lambda: next(
                (event for event in self._events if event.name in names and event.time >= since
                 and (predicate is None or predicate(event.data))), None), timeout)
        if found is None:
            raise QmpError(f"no event {'/'.join(names)} in {timeout} s")
        return found

    def wait_migration(self, *states, timeout=60.0, since=0.0):
        """The MIGRATION event of one of these states (needs the capability `events`)."""
        return self.wait_event("MIGRATION", lambda data: data["status"] in states, timeout, since)

    def _wait(self, found, timeout):
        """What found() returns once it is not None; None after timeout or the connection's end."""
        deadline = time.monotonic() + timeout
        while True:
            result = found()
            left = deadline - time.monotonic()
            if result is not None or left <= 0 or self._closed:
                return result
            self._changed.wait(left)

    def _await_reply(self, command, number, timeout):
        def take():
            """Replies to commands given up on are thrown away."""
            while self._replies:
                reply = self._replies.pop(0)
                if reply.get("id") in (number, None):
                    return reply
            return None

        with self._changed:
            reply = self._wait(take, timeout)
            if reply is None:
                reason = "connection closed" if self._closed else f"no answer in {timeout} s"
                raise QmpError(f"{command}: {reason}")
            return reply

    def _read(self):
        try:
            for line in self._lines:
                self._dispatch(json.loads(line))
        except (OSError, ValueError):
            pass
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _dispatch(self, message):
        with self._changed:
            if "event" in message:
                stamp = message["timestamp"]
                self._events.append(Event(
                    message["event"], message.get("data", {}),
                    stamp["seconds"] + stamp["microseconds"] / 1e6, time.time()))
            elif "return" in message or "error" in message:
                self._replies.append(message)
            self._changed.notify_all()
