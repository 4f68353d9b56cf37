# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that knows nothing of us: memory, a thread that may run, and a connection it was given.

python3 lone.py BYTES anonymous|shared|both|halves FD.  Prints "ADDRESS BYTES TID" for each region, then obeys lines:
"run" has the thread use CPU time, "hang up" closes the connection, its descriptor FD.
"""

import ctypes
import mmap
import os
import sys
import threading

PAGE = 4096


def filled(size, number):
    """Each page says which it is, every fourth is never touched."""
    page = bytearray(PAGE)
    for at in range(size // PAGE):
        page[:16] = number.to_bytes(8, "little") + at.to_bytes(8, "little")
        if at % 4 != 3:
            yield at, bytes(page)


def halves(size):
    """Two regions of one file."""
    fd = os.memfd_create("lone")
    os.ftruncate(fd, 2 * size)
    for number in (0, 1):
        memory = mmap.mmap(fd, size, offset=number * size)
        for at, page in filled(size, number):
            memory[at * PAGE:(at + 1) * PAGE] = page
        yield memory


def region(size, shared, number):
    """Memory that is filled."""
    fd = os.memfd_create("lone") if shared else -1
    if shared:
        os.ftruncate(fd, size + PAGE)
    flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(fd, size, flags=flags, offset=PAGE if shared else 0)
    for at, page in filled(size, number):
        memory[at * PAGE:(at + 1) * PAGE] = page
    return memory


def main(size, kind, connection):
    """Until its stdin ends."""
    may_run = threading.Event()

    def vcpu():
        may_run.wait()
        while True:
            pass

    thread = threading.Thread(target=vcpu, daemon=True)
    thread.start()
    kinds = {"anonymous": (False,), "shared": (True,), "both": (False, True), "halves": ()}[kind]
    memories = [region(size, shared, number) for number, shared in enumerate(kinds)] or list(halves(size))
    for memory in memories:
        print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), size, thread.native_id)
    print("READY", flush=True)
    for line in sys.stdin:
        if line.strip() == "run":
            may_run.set()
        elif line.strip() == "hang up":
            os.close(connection)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
