# SPDX-License-Identifier: GPL-2.0-or-later
"""What a client says of itself and its memory in a HELLO, and that is not or cannot be so."""

import os

from bad_client import _busy_world, _ended
from wire import Client
from world import MIB, expect


def another_name():
    """Whoever is known by its uuid cannot take the name of another process's VM besides."""
    with _busy_world() as world, Client(world.destination.socket) as first:
        region = Client.region("r", 1 << 30, MIB)
        uuid = os.urandom(16)
        first.send(Client.HELLO, Client.hello("mine", [region], uuid=uuid))
        expect(first.receive()[0] == Client.WELCOME, "no welcome")
        with Client(world.destination.socket) as client:
            client.send(Client.HELLO, Client.hello("bystander", [region], uuid=uuid))
            said = _ended(client, "bystander", "already")
        expect(len(world.destination.stats("bystander")["sessions"]) == 1, "two of that name")
        expect(first.ask(op="status")["version"], "its own connection was closed all the same")
        # Its own two VMs become one, of which no connection is left behind.
        with Client(world.destination.socket) as second:
            second.send(Client.HELLO, Client.hello("other", [region], uuid=os.urandom(16)))
            expect(second.receive()[0] == Client.WELCOME, "no welcome")
            with Client(world.destination.socket) as client:
                client.send(Client.HELLO, Client.hello("other", [region], uuid=uuid))
                expect(client.receive()[0] == Client.WELCOME, "no welcome")
                expect(first.ended() and second.ended(), "its earlier connections go on")
        return said
