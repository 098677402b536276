"""Hosts that vanish or are silent, as by a switch, a firewall or a frozen machine."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .process import Process, find_program, free_port

ROOT = Path(__file__).parents[2]


class NoNamespaces(Exception):
    """This account cannot make network namespaces."""


class VanishingHost:
    """A host with an address of its own, that passes on to a port of this machine.

    A context manager. Needs Linux and root.
    """

    def __init__(self, port: int, folder: Path) -> None:
        """Take the port of 127.0.0.1 that it passes on to, and where its logs go."""
        self.port = free_port()
        self._name = f"tb{secrets.token_hex(4)}"
        subnet = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
        self._here, self.address = f"{subnet}.1", f"{subnet}.2"
        inner = ("ip", "netns", "exec", self._name)
        relay = (sys.executable, "-m", "tests.services.network")
        hop = free_port()
        self._relays = [
            Process(
                [*relay, self._here, str(hop), "127.0.0.1", str(port)],
                folder / "outer-relay.log",
                cwd=ROOT,
            ),
            Process(
                [*inner, *relay, self.address, str(self.port), self._here, str(hop)],
                folder / "inner-relay.log",
                cwd=ROOT,
            ),
        ]

    def _ip(self, command: str) -> None:
        done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
        if done.returncode:
            raise NoNamespaces(f"ip {command}: {done.stderr.strip()}")

    def __enter__(self) -> VanishingHost:
        if find_program("ip") is None or os.geteuid() != 0:
            raise NoNamespaces("needs root and iproute2")
        name, mac = self._name, "02:00:00:00:00:02"
        try:
            self._ip(f"netns add {name}")
            self._ip(f"link add {name}a type veth peer name {name}b netns {name}")
            self._ip(f"-n {name} link set {name}b address {mac}")
            self._ip(f"addr add {self._here}/30 dev {name}a")
            self._ip(f"-n {name} addr add {self.address}/30 dev {name}b")
            self._ip(f"link set {name}a up")
            self._ip(f"-n {name} link set {name}b up")
            # Behind a router nobody says that there is no such host.
            self._ip(f"neigh replace {self.address} lladdr {mac} dev {name}a nud permanent")
            for relay in self._relays:
                relay.start().wait_for_log("listening")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for relay in self._relays:
            relay.stop()
        for command in (f"link del {self._name}a", f"netns del {self._name}"):
            subprocess.run(["ip", *command.split()], capture_output=True)

    def vanish(self) -> None:
        """Nothing that is sent to it arrives any more, and nothing comes back."""
        self._ip(f"-n {self._name} link set {self._name}b down")

    def appear(self) -> None:
        """Be there again; the connections of before go on."""
        self._ip(f"-n {self._name} link set {self._name}b up")


@contextmanager
def mute_host() -> Iterator[int]:
    """The port of a server of 127.0.0.1 that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield server.getsockname()[1]


@contextmanager
def deaf_host() -> Iterator[int]:
    """The port of a server of 127.0.0.1 that answers to no attempt to connect."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port: int = server.getsockname()[1]
        waiting = []
        for _ in range(4):  # Linux drops what is beyond the backlog.
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            waiting.append(one)
        try:
            yield port
        finally:
            for one in waiting:
                one.close()


async def _relay(host: str, port: int, to_host: str, to_port: int) -> None:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(to_host, to_port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    server = await asyncio.start_server(serve, host, port)
    print("listening", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_relay(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
