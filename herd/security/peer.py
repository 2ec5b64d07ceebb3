"""Whose the other end of a connection on this machine is: what the operating system says of it.

A process of the router's own user can read every secret of the router's, so its connection needs none. A proxy that
runs as another user, such as nginx, sshd or docker-proxy, is not taken for its clients.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import psutil

Address = tuple[str, int]
TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
TRIES: Final = 2  # a table that changes while it is read may lack a row


def is_same_user(client: Address, server: Address) -> bool:
    """Whether a process of this user holds the client's end; False where nobody can tell. Takes milliseconds."""
    owners = _from_tables if sys.platform == "linux" else _from_processes
    return any(owner == os.geteuid() for _ in range(TRIES) for owner in owners(client, server))


def _from_tables(client: Address, server: Address) -> Iterator[int]:
    """The owners of such a connection by the kernel's tables, which all may read."""
    for table in TABLES:
        wanted = {(_packed(client, mapped), _packed(server, mapped)) for mapped in (table.name == "tcp6",)}
        with suppress(OSError):
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if (fields[1], fields[2]) in wanted:
                    yield int(fields[7])


def _packed(address: Address, mapped: bool) -> str:
    """An address as the tables write it: each 32 bits as a number of the machine's byte order."""
    found = ip_address(address[0])
    raw = b"\0" * 10 + b"\xff\xff" + found.packed if mapped and found.version == 4 else found.packed
    words = [int.from_bytes(raw[at : at + 4], sys.byteorder) for at in range(0, len(raw), 4)]
    return "".join(f"{word:08X}" for word in words) + f":{address[1]:04X}"


def _from_processes(client: Address, server: Address) -> Iterator[int]:
    """The same by asking each process of this user for its connections, which works without further rights."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            owner = process.uids().effective
            if owner == os.geteuid() and (client, server) in set(_ends(process)):
                yield owner


def _ends(process: psutil.Process) -> Iterator[tuple[Address, Address]]:
    for each in process.net_connections("tcp"):
        if each.laddr and each.raddr:
            near, far = each.laddr, each.raddr
            yield (near.ip.removeprefix("::ffff:"), near.port), (far.ip.removeprefix("::ffff:"), far.port)
