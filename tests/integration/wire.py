# SPDX-License-Identifier: GPL-2.0-or-later
"""Just enough of both protocols to speak them well, and badly (protocol/client.h, peer.h)."""

import errno
import array
import json
import platform
import socket
import struct

PAGE = 4096


def text(value):
    """A string as both protocols have it, or bytes as such a string."""
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<H", len(data)) + data


class Body:
    """Reads a message's body from its beginning."""

    def __init__(self, data):
        self._data = data
        self._at = 0

    def take(self, pattern):
        """The values of a struct pattern; a single one by itself."""
        values = struct.unpack_from("<" + pattern, self._data, self._at)
        self._at += struct.calcsize("<" + pattern)
        return values if len(values) > 1 else values[0]

    def bytes(self, n):
        """The next n bytes."""
        self._at += n
        return self._data[self._at - n:self._at]

    def text(self):
        """The next string."""
        return self.bytes(self.take("H")).decode()


class Client:
    """A connection to a daemon's UNIX socket."""

    ERROR, HELLO, WELCOME, ARM, ARMED, EXPORT, EXPORTED = 2, 3, 4, 5, 6, 9, 10
    VCPUS, REGION_ADD, OFFER, OFFERED, SEAL, CANCEL = 11, 12, 14, 15, 16, 18
    OPERATOR, REPLY = 22, 23
    OK = 24
    SOURCE, DESTINATION = 1, 2
    ANONYMOUS, SHARED = 0, 1
    ABSENT = 2
    HEADER = struct.Struct("<HHII")

    def __init__(self, path=None, timeout=10.0, *, fd=None):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd)
        if path:
            self.socket.connect(str(path))  # waits while the daemon has others to accept
        self.socket.settimeout(timeout)
        self._serial = 0
        self.serial = 0  # of the last message that came

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send_raw(self, packet, fds=()):
        """Any bytes."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([packet], rights)

    def send(self, kind, body=b"", *, fds=(), version=1, n_fds=None):
        """A message; what differs from a sound one is up to the caller."""
        self._serial += 1
        n_fds = len(fds) if n_fds is None else n_fds
        self.send_raw(self.HEADER.pack(kind, version, self._serial, n_fds) + body, fds)

    def receive(self):
        """(type, Body), or None at the end of the connection."""
        packet = self.socket.recv(1 << 16)
        if not packet:
            return None
        kind, _, self.serial, _ = self.HEADER.unpack_from(packet)
        return kind, Body(packet[self.HEADER.size:])

    def refusal(self, status=None):
        """The text of the ERROR that has to come next, perhaps with this status."""
        message = self.receive()
        assert message, "the daemon closed the connection without a word"
        kind, body = message
        assert kind == self.ERROR, f"message {kind} came, not ERROR"
        found, _ = body.take("iQ")
        assert status in (None, found), f"status {found}, not {status}"
        return body.text()

    def ended(self):
        """True if the daemon closes the connection."""
        try:
            return self.receive() is None
        except ConnectionResetError:
            return True

    @staticmethod
    def region(name, address, length, *, fd=-1, page_size=PAGE, guest=0, absent=False):
        """A region of a HELLO, shared if it has a fd (an index)."""
        kind = Client.SHARED if fd >= 0 else Client.ANONYMOUS
        return text(name) + struct.pack("<QQQQQHHi", guest, address, length, page_size, 0, kind,
                                        Client.ABSENT if absent else 0, fd)

    @staticmethod
    def hello(name, regions, role=2, *, vcpus=b"\0\0\0\0", problem="", uuid=bytes(16), shards=(),
              table=0):
        """The body of a HELLO; with shards (region, length) it is armed, table is the fd's index."""
        return (struct.pack("<BIQ", role, 1 if shards else 0, 0) + uuid + text(name)
                + text(problem) + struct.pack("<I", len(regions)) + b"".join(regions) + vcpus
                + struct.pack("<I", len(shards))
                + b"".join(struct.pack("<HHQQ", region, 0, 0, length) for region, length in shards)
                + struct.pack("<II", table, 0))

    def ask(self, **request):
        """The answer to an operator's request."""
        words = json.dumps(request).encode()
        self.send(self.OPERATOR, struct.pack("<II", 0, len(words)) + words)
        answer = b""
        while True:
            message = self.receive()
            if not message:
                raise ConnectionError("the daemon is gone")
            kind, body = message
            if kind != self.REPLY:
                continue
            more, length = body.take("II")
            answer += body.bytes(length)
            if not more:
                return json.loads(answer)


def _connect(host, port, timeout, reserved):
    """A connection from a port below 1024, or from any."""
    if not reserved:
        return socket.create_connection((host, port), timeout)
    for own in range(1023, 600, -1):
        try:
            return socket.create_connection((host, port), timeout, ("", own))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise
    raise OSError("no port below 1024 is free")


class Peer:
    """A connection to a daemon's TCP port, or from a daemon to ours."""

    START, STARTED, HELLO, INVITE, INVITED, ATTACH, ATTACHED, JOIN, JOINED, SEALED = range(1, 11)
    CANCEL = 13
    FENCED, RELEASED, MAP_REQUEST, MAP, READ, DATA, ZERO, ERROR, PING = 14, 16, 17, 18, 19, 20, 21, 22, 23
    BYE = 25
    PONG = 24
    FORECAST_REQUEST, FORECAST = 26, 27
    AWAITED = 31
    ASK, ASKED, SEAL = 28, 29, 30
    CONTROL, URGENT, BULK = 0, 1, 2
    UNSEALED, FENCED_CODE, RANGE = 7, 8, 9
    MAGIC = 0x0031445950435450
    HEADER = struct.Struct("<IHHIIQ")

    def __init__(self, address=None, connection=None, timeout=10.0, reserved=False):
        if connection is None:
            host, port = address.rsplit(":", 1)
            connection = _connect(host, int(port), timeout, reserved)
        connection.settimeout(timeout)
        self.socket = connection
        self.session = 0
        self.regions = []  # as ATTACHED told them

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, kind, body=b"", *, generation=0, length=None):
        """A frame; length may lie."""
        length = len(body) if length is None else length
        self.socket.sendall(self.HEADER.pack(length, kind, 0, self.session, generation, 0) + body)

    def _exactly(self, n):
        data = b""
        while len(data) < n:
            part = self.socket.recv(n - len(data))
            if not part:
                return None
            data += part
        return data

    def receive(self):
        """(type, Body), or None at the end."""
        try:
            head = self._exactly(self.HEADER.size)
            if head is None:
                return None
            length, kind, _, self.session, _, _ = self.HEADER.unpack(head)
            return kind, Body(self._exactly(length) if length else b"")
        except ConnectionResetError:
            return None

    def expect(self, kind):
        """The body of the frame that has to come next."""
        message = self.receive()
        assert message, f"the connection ended instead of frame {kind}"
        assert message[0] == kind, f"frame {message[0]} came, not {kind}"
        return message[1]

    def wait(self, kind):
        """The body of the next frame of that type."""
        while True:
            message = self.receive()
            assert message, f"the connection ended instead of frame {kind}"
            if message[0] == kind:
                return message[1]

    def refusal(self):
        """(code, text) of the BYE that has to come next."""
        body = self.expect(self.BYE)
        return body.take("I"), body.text()

    def start(self, magic=MAGIC, tls=0):
        """The first frame."""
        self.send(self.START, struct.pack("<QB", magic, tls))

    def hello(self, lowest=1, highest=1, machine=None, page_size=PAGE):
        """Versions and machine."""
        self.send(self.HELLO, struct.pack("<HHQQQ", lowest, highest, 0, 0, page_size)
                  + text(machine or platform.machine()) + text("test"))

    def greet(self):
        """The connector's part of the greeting."""
        self.start()
        self.expect(self.STARTED)
        self.hello()
        self.expect(self.HELLO)
        return self

    def welcome(self):
        """The listener's part."""
        self.expect(self.START)
        self.send(self.STARTED, struct.pack("<QB", self.MAGIC, 0))
        self.hello()
        self.expect(self.HELLO)
        return self

    def attach(self, invitation, token=None):
        """Shows the token."""
        self.send(self.ATTACH, invitation.uuid + text(invitation.name)
                  + (token or invitation.token))

    def attached(self):
        """(seal, secret) of the ATTACHED that has to come next."""
        body = self.expect(self.ATTACHED)
        code, why = body.take("I"), body.text()
        assert code == 0, why
        seal, secret = body.take("Q"), body.bytes(32)
        self.regions = regions(body)
        return seal, secret

    def ask(self, uuid, name, token, connection):
        """Asks for a VM; (code, text, the export's token)."""
        self.send(self.ASK, uuid + text(name) + token + text(connection))
        body = self.expect(self.ASKED)
        return body.take("I"), body.text(), body.bytes(32)

    def join(self, session, secret, kind):
        """Becomes a channel."""
        self.session = session
        self.send(self.JOIN, secret + struct.pack("<II", kind, 0))

    def read(self, region, page, count, n=None):
        """READ of one item."""
        self.send(self.READ, struct.pack("<IQQII", 1 if n is None else n, 7, page, region, count))

    def pages(self, count, size=PAGE):
        """So many pages of the READ under way, zero ones as such."""
        content = {}
        while len(content) < count:
            message = self.receive()
            assert message, "the connection ended within a read"
            kind, body = message
            assert kind in (self.DATA, self.ZERO), f"frame {kind} came, not pages"
            _, first, n, code, _ = body.take("QIIII")
            assert code == 0, f"error {code}"
            for page in range(first, first + n):
                content[page] = body.bytes(size) if kind == self.DATA else bytes(size)
        return [content[page] for page in sorted(content)]

    def error_code(self):
        """The code of the ERROR that has to come next."""
        body = self.expect(self.ERROR)
        return body.take("QIIII")[3]


def regions(body):
    """(id, guest address, length, page size, backing, address) of each."""
    return [(body.text(), *body.take("QQQQQ")) for _ in range(body.take("I"))]


class Invitation:
    """What an INVITE says."""

    def __init__(self, body):
        self.uuid = body.bytes(16)
        self.name = body.text()
        self.token = body.bytes(32)
        self.source = body.text()
        self.regions = regions(body)
        self.vcpus = [body.take("I") for _ in range(body.take("I"))]
        self.flags = body.take("I")


class Destination:
    """A destination daemon of our own; a context manager."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.peer = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()
        if self.peer:
            self.peer.socket.close()

    def accept_connection(self):
        """The next connection to it."""
        return self._listener.accept()[0]

    def invited(self):
        """Waits for an INVITE."""
        self.peer = Peer(connection=self.accept_connection()).welcome()
        return Invitation(self.peer.expect(Peer.INVITE))

    def accept(self, code=0, why=""):
        """Answers it."""
        self.peer.send(Peer.INVITED, struct.pack("<I", code) + text(why) + text(""))
