"""Where a request to the app comes from: this machine, the page itself, another website; and its wrong passwords.

Notes:

* Addresses are decided by `ipaddress`, never by how their text begins: 127.0.0.1.example.com is another machine.
* Wrong passwords wait longer and longer, by address, and never for ever.

Notebook: 12.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers


def is_loopback(host: str) -> bool:
    """Is this the name or the address of this very machine? Names other than "localhost" are not looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_and_port(netloc: str, scheme: str = "http") -> tuple[str, int] | None:
    """("localhost", 7860) of "localhost:7860"; the scheme's own port where none is said; None where it is no host."""
    if not re.fullmatch(r"(\[[^\[\]]*\]|[^\[\]:]*)(:\d*)?", netloc):  # Python 3.11 takes "[::1].example.com" for ::1
        return None
    try:
        parts = urlsplit(f"//{netloc}")
        port = parts.port or {"http": 80, "https": 443}.get(scheme, 0)
    except ValueError:
        return None
    if not parts.hostname or parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return parts.hostname, port


def is_own_host(header: str, names: Iterable[str]) -> bool:
    """May a server of this machine answer to this `Host` header? To loopback names, and to `names` of a proxy.

    Starlette's TrustedHostMiddleware compares fixed names; 127.0.0.2 and [::1] have to be decided as addresses.
    """
    found = host_and_port(header)
    return found is not None and (is_loopback(found[0]) or found[0] in names)


def is_own_origin(headers: Headers, names: Iterable[str]) -> bool:
    """Does a request come from the page itself, or from no website at all (a program sends no `Origin`)?"""
    if headers.get("sec-fetch-site") == "cross-site":
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    scheme, _, netloc = origin.partition("://")
    found = host_and_port(netloc, scheme)
    if found is None or scheme not in ("http", "https"):  # "null", of a local file or a sandbox, is no page of ours
        return False
    return found == host_and_port(headers.get("host", ""), scheme) or found[0] in names


def address_of(scope: dict[str, Any]) -> str:
    """Where a request comes from: the address, or for IPv6 its network of 64 bits, which one household owns."""
    address = (scope.get("client") or ("unknown",))[0]
    try:
        parsed = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address
    return str(parsed) if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))


@dataclass
class Tries:
    """The wrong passwords of one address: how many, when the next may be tried, who waits for that."""

    wrong: int = 0
    last: float = 0.0
    next: float = 0.0
    waiting: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Logins:
    """Lets wrong passwords wait: `free` are answered at once, then each doubles the wait before the next one.

    The wait ends by itself after `longest` seconds, and a try that is refused does not prolong it, so nobody is locked
    out. It is counted by address and not by user: else anybody could make a user wait who never mistyped.
    """

    def __init__(self, free: int = 3, first: float = 1.0, longest: float = 30.0, most: int = 10_000) -> None:
        self.free, self.first, self.longest, self.most = free, first, longest, most
        self.tries: OrderedDict[str, Tries] = OrderedDict()

    def of(self, address: str) -> Tries:
        """The tries of an address; a quarter of an hour without one makes it new, and the oldest are forgotten."""
        now, known = time.monotonic(), self.tries.pop(address, None)
        if known is None or (known.waiting == 0 and now - known.last > 900):
            known = Tries(last=now)
        self.tries[address] = known
        while len(self.tries) > self.most:
            self.tries.popitem(last=False)
        return known

    def judge(self, tries: Tries, right: bool) -> None:
        """Note how a try ended."""
        tries.last = time.monotonic()
        tries.wrong = 0 if right else tries.wrong + 1
        over = tries.wrong - self.free
        tries.next = tries.last + min(self.first * 2 ** min(over, 30), self.longest) if over >= 0 else 0.0
