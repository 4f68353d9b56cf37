# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks a daemon without starting a program for it: where milliseconds count."""

import json
import socket
import struct

REQUEST, REPLY = 22, 23     # protocol/client.h
VERSION = 1
HEADER = struct.Struct("<HHIIII")  # type, version, serial, fds, flags, length
MORE = 1
PACKET_MAX = 1 << 20


class OperatorError(Exception):
    """The daemon said no, or something else than an answer."""


class Operator:
    """A connection for requests (docs/OPERATOR.md); a context manager."""

    def __init__(self, path, timeout=10.0):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(str(path))
        self._socket.settimeout(timeout)
        self._serial = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def ask(self, op, **fields):
        """The answer to a request."""
        self._serial += 1
        text = json.dumps({"op": op, **fields}).encode()
        self._socket.sendall(HEADER.pack(REQUEST, VERSION, self._serial, 0, 0, len(text)) + text)
        parts = []
        while True:
            packet = self._socket.recv(PACKET_MAX)
            kind, _, serial, _, flags, length = HEADER.unpack_from(packet)
            if (kind, serial) != (REPLY, self._serial):
                raise OperatorError(f"{op}: message {kind} came instead of an answer")
            parts.append(packet[HEADER.size:HEADER.size + length])
            if not flags & MORE:
                break
        answer = json.loads(b"".join(parts))
        if "error" in answer:
            raise OperatorError(f"{op}: {answer['error']}")
        return answer
