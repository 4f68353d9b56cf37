# SPDX-License-Identifier: GPL-2.0-or-later
"""The records the test guest writes on its serial port (tests/guest/README.md)."""

import threading
import time
from dataclasses import dataclass

POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Record:
    """One line: a word, its key=value pairs, and when it was read."""

    kind: str
    fields: dict
    seen: float

    def __getitem__(self, key):
        return self.fields[key]

    def get(self, key, otherwise=None):
        """A field, or otherwise."""
        return self.fields.get(key, otherwise)


def _value(key, text):
    if key == "hist":
        parts = text.split(",") if text else []
        if all(":" in part for part in parts):
            return {int(bucket): int(n) for bucket, n in (part.split(":") for part in parts)}
        return [int(part) for part in parts]
    try:
        return int(text, 0)
    except ValueError:
        return text


def parse(line, seen):
    """The line's Record, or None for what firmware prints."""
    words = line.split()
    if not words or not words[0].isupper() or not all("=" in word for word in words[1:]):
        return None
    pairs = (word.split("=", 1) for word in words[1:])
    try:
        return Record(words[0], {key: _value(key, text) for key, text in pairs}, seen)
    except ValueError:
        return None


class GuestLog:
    """Follows a serial port's file.

    It is looked at, not waited on: QEMU writes it byte by byte, and waking up for each of them
    would take the guest's time.
    """

    def __init__(self, path):
        self._path = path
        self._changed = threading.Condition()
        self._records = []
        self._rest = b""
        self._stop = threading.Event()
        self._file = None
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self):
        """Reads what is left and stops."""
        self._stop.set()
        self._thread.join()
        if self._file:
            self._file.close()

    def records(self, kind=None, **fields):
        """All records so far, or those of a kind whose fields have these values."""
        with self._changed:
            return [record for record in self._records if kind in (None, record.kind)
                    and all(record.get(key) == value for key, value in fields.items())]

    def last(self, kind):
        """The newest record of a kind, or None."""
        with self._changed:
            return next((record for record in reversed(self._records) if record.kind == kind),
                        None)

    def wait(self, kind, predicate=lambda record: True, timeout=60.0, alive=lambda: True):
        """The first record of a kind for which predicate(record) holds; None if none comes."""
        deadline = time.monotonic() + timeout
        looked_at = 0
        with self._changed:
            while True:
                for record in self._records[looked_at:]:
                    if record.kind == kind and predicate(record):
                        return record
                looked_at = len(self._records)
                left = deadline - time.monotonic()
                if left <= 0 or not alive():
                    return None
                self._changed.wait(min(left, 0.2))

    def clock_offset(self):
        """What to add to a record's t_us / 1e6 to get time.time().

        A record is seen late, never early: of many, the least late one tells.
        """
        offsets = [record.seen - record["t_us"] / 1e6 for record in self.records()
                   if "t_us" in record.fields]
        return min(offsets) if offsets else None

    def _follow(self):
        while not self._stop.wait(POLL_SECONDS):
            self._read()
        self._read()

    def _read(self):
        if self._file is None:
            try:
                self._file = open(self._path, "rb")
            except FileNotFoundError:
                return
        data = self._file.read()
        if not data:
            return
        seen = time.time()
        *lines, self._rest = (self._rest + data).split(b"\n")
        parsed = [parse(line.decode("ascii", "replace"), seen) for line in lines]
        with self._changed:
            self._records += [record for record in parsed if record]
            self._changed.notify_all()
