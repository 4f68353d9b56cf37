#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon that assists one QEMU, and fails on demand: a process of its own, to be killed or stopped.

It serves the destination's faults out of the source process's memory.  Every event is a line of JSON
on its standard output.
"""

import argparse
import array
import ctypes
import errno
import fcntl
import json
import mmap
import os
import selectors
import signal
import socket
import struct
import sys
import time

ERROR, HELLO, DEVICE, ASSIST, PLAN, LISTEN, END = 2, 3, 25, 26, 27, 28, 29
HEAD = struct.Struct("<HHII")

# protocol/pagetable.h
TABLE_HEAD = 32768
MAGIC, VERSION = 0x314C425459504350, 4
AT_REGIONS, AT_SERVING, AT_RELAYING, AT_BUSY, AT_READS = 1368, 22888, 22892, 22896, 23024
HOLE, MISSING, RECEIVED, PRESENT, FOUND = 0, 1, 3, 4, 6

UFFDIO_COPY, UFFDIO_WAKE = 0xC028AA03, 0x8010AA02
MFD_ALLOW_SEALING, F_ADD_SEALS, SEALS = 2, 1033, 1 | 2 | 4
PAGEFAULT = 0x12


def say(event, **more):
    """One line for who started us."""
    print(json.dumps({"event": event, **more}), flush=True)


class Table:
    """The page table of one region."""

    def __init__(self, length, page_size):
        self.words = (length // page_size + 15) // 16
        chunks = ((length - 1) >> 21) // 64 + 1
        self.size = TABLE_HEAD + (self.words + chunks) * 8
        self.size += -self.size % mmap.PAGESIZE
        self.fd = os.memfd_create("postcopyd-pages", os.MFD_CLOEXEC | MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, self.size)
        fcntl.fcntl(self.fd, F_ADD_SEALS, SEALS)
        self._map = mmap.mmap(self.fd, self.size)
        struct.pack_into("<QIIQ", self._map, 0, MAGIC, VERSION, 1, self.words + chunks)
        struct.pack_into("<QQQQ", self._map, AT_REGIONS, length, page_size, 0, self.words)

    def set_serving(self, value):
        """The daemon's word."""
        struct.pack_into("<I", self._map, AT_SERVING, value)

    def set_busy(self, since):
        """The first resolver's word."""
        struct.pack_into("<Q", self._map, AT_BUSY, since)

    def count_read(self):
        """The first resolver's other word."""
        reads, = struct.unpack_from("<Q", self._map, AT_READS)
        struct.pack_into("<Q", self._map, AT_READS, reads + 1)

    def relaying(self):
        """The client's word."""
        return struct.unpack_from("<I", self._map, AT_RELAYING)[0] == 1

    def count(self):
        """How many pages are in each state."""
        counts = [0] * 8
        for byte in self._map[TABLE_HEAD:TABLE_HEAD + self.words * 8]:
            counts[byte & 7] += 1
            counts[byte >> 4 & 7] += 1
        return {"hole": counts[HOLE], "missing": counts[MISSING], "present": counts[PRESENT],
                "found": counts[FOUND]}

    def state(self, page):
        """Of a page."""
        return self._map[TABLE_HEAD + page // 2] >> page % 2 * 4 & 7

    def set_state(self, page, state):
        """Not atomic: a mark of the client's on the page beside may be lost, which harms nothing."""
        at, shift = TABLE_HEAD + page // 2, page % 2 * 4
        self._map[at] = self._map[at] & ~(15 << shift) | state << shift


class Fake:
    """The daemon."""

    def __init__(self, options):
        self.options = options
        self.table = Table(options.length, options.page_size)
        self.served = self.there = 0
        self.uffds = []
        self.source = os.open(f"/proc/{options.source_pid}/mem", os.O_RDONLY)
        # Made once: a fault has 50 ms, of which memory that is new each time would take many.
        buffer = ctypes.create_string_buffer(2 * options.page_size)
        offset = -ctypes.addressof(buffer) % options.page_size
        self.buffer = memoryview(buffer)[offset:offset + options.page_size]
        self.buffer_at = ctypes.addressof(buffer) + offset
        self.selector = selectors.DefaultSelector()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(options.socket)
        os.chmod(options.socket, 0o666)
        listener.listen(16)
        self.selector.register(listener, selectors.EVENT_READ, self.accept)

    def run(self):
        """Until it is killed."""
        say("ready")
        while True:
            for key, _ in self.selector.select(0.01):
                key.data(key.fileobj)

    def accept(self, listener):
        """A new client."""
        self.selector.register(listener.accept()[0], selectors.EVENT_READ, self.receive)

    def receive(self, client):
        """A client's message."""
        packet, control, _, _ = client.recvmsg(1 << 16, socket.CMSG_SPACE(4 * 250))
        if not packet:
            self.selector.unregister(client)
            client.close()
            return
        fds = array.array("i")
        for _, kind, data in control:
            if kind == socket.SCM_RIGHTS:
                fds.frombytes(data[:len(data) - len(data) % fds.itemsize])
        kind, _, serial, _ = HEAD.unpack_from(packet)
        if kind == ASSIST:
            say("assist", uuid=packet[HEAD.size:HEAD.size + 16].hex())
            self.plan(client, serial)
        elif kind == LISTEN:
            say("listen", shards=len(fds), **self.table.count())
            self.listen(list(fds))
        elif kind == END:
            say("end", served=self.served, there=self.there, **self.table.count())
            self.forget()
        elif kind == DEVICE:
            self.lend(client, serial)
        elif kind == ERROR:
            say("refused", text=packet[HEAD.size + 14:].decode())
        else:
            self.refuse(client, serial, "not served here")

    def refuse(self, client, serial, text):
        """ERROR."""
        client.sendmsg([HEAD.pack(ERROR, 1, serial, 0) + struct.pack("<iQH", -errno.ENOENT, 0, len(text))
                        + text.encode()])

    def lend(self, client, serial):
        """/dev/userfaultfd."""
        device = os.open("/dev/userfaultfd", os.O_RDWR)
        say("device")
        client.sendmsg([HEAD.pack(DEVICE, 1, serial, 1)],
                       [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [device]))])
        os.close(device)

    def plan(self, client, serial):
        """PLAN, or why there is none."""
        options = self.options
        if options.no_plan:
            self.refuse(client, serial, "no migration is known")
            return
        part = options.length // options.shards // options.page_size * options.page_size
        ends = [part * n for n in range(options.shards)] + [options.length]
        body = struct.pack("<IQI", 0, self.table.size, 1)
        body += struct.pack("<QQQ", options.address, options.length, options.page_size)
        body += struct.pack("<I", options.shards)
        for start, end in reversed(list(zip(ends, ends[1:]))):  # in any order
            body += struct.pack("<HHQQ", 0, 0, start, end - start)
        client.sendmsg([HEAD.pack(PLAN, 1, serial, 1) + body],
                       [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self.table.fd]))])
        say("plan")
        if options.end_after == 0:
            self.fail()

    def listen(self, uffds):
        """Serves from now on: the source has stopped, else QEMU would not listen."""
        if self.options.never_serve:
            return
        self.uffds = uffds
        time.sleep(self.options.delay)
        self.table.set_serving(1)
        for uffd in uffds:
            self.selector.register(uffd, selectors.EVENT_READ, self.fault)

    def forget(self):
        """QEMU has all its memory."""
        for uffd in self.uffds:
            self.selector.unregister(uffd)
            os.close(uffd)
        self.uffds = []

    def fault(self, uffd):
        """Faults, as many as there are; the worst moment to fail is right after they were read."""
        if self.table.relaying():
            time.sleep(0.001)
            return
        self.table.set_busy(time.monotonic_ns())
        try:
            data = os.read(uffd, 32 * 16)
            self.table.count_read()
        except BlockingIOError:
            data = b""
        if data and self.options.end_after is not None and self.served >= self.options.end_after:
            self.options.end_after = None
            self.fail()
        for at in range(0, len(data), 32):
            if data[at] == PAGEFAULT:
                self.place(uffd, struct.unpack_from("<Q", data, at + 16)[0])
        self.table.set_busy(0)

    def place(self, uffd, address):
        """One page of the source."""
        size = self.options.page_size
        address -= address % size
        offset = address - self.options.address
        assert os.preadv(self.source, [self.buffer], self.options.source_address + offset) == size
        number = offset // size
        known = self.table.state(number) == PRESENT
        if not known:
            self.table.set_state(number, RECEIVED)
        try:
            fcntl.ioctl(uffd, UFFDIO_COPY,
                        struct.pack("<QQQQq", address, self.buffer_at, size, 0, 0))
            self.table.set_state(number, PRESENT)
            self.served += 1
            if self.served % 500 == 0:
                say("served", n=self.served)
        except FileExistsError:
            self.there += 1
            if not known:
                self.table.set_state(number, FOUND)
            fcntl.ioctl(uffd, UFFDIO_WAKE, struct.pack("<QQ", address, size))
        except OSError as error:  # QEMU is done with it
            self.table.set_state(number, HOLE)
            say("lost", errno=error.errno)

    def fail(self):
        """As it was told to."""
        say("fails", how=self.options.how, served=self.served)
        os.kill(os.getpid(), signal.SIGSTOP if self.options.how == "stop" else signal.SIGKILL)
        say("continued")


def main():
    """Reads the options."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--source-pid", type=int, required=True)
    for name in ("source-address", "address", "length"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--page-size", type=int, default=4096)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--no-plan", action="store_true")
    parser.add_argument("--never-serve", action="store_true")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before it serves")
    parser.add_argument("--end-after", type=int, help="faults; 0: right after PLAN")
    parser.add_argument("--how", choices=("kill", "stop"), default="kill")
    Fake(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
