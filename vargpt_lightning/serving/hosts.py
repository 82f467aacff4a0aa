"""Hosts of requests: the authority of RFC 3986 without a user (RFC 9110, section 7.2), compared exactly."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._~!$&'()*+,;=%-]+))(?::([0-9]{0,5}))?")
_LOCAL_NAMES = ("localhost", "localhost.")


def split_host(text: str, scheme: str = "http") -> tuple[str, int] | None:
    """Return the name, in small letters and without brackets, and the port of a Host header; None for what is none."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return None
    address, name, port = found.groups()
    if address is not None:
        try:
            name = str(ipaddress.IPv6Address(address))
        except ValueError:
            return None
    number = int(port) if port else PORTS[scheme]
    return (name.lower(), number) if number < 2**16 else None


def is_loopback(name: str) -> bool:
    """Whether a name, or an address without brackets, is one of this machine's own."""
    if name.lower() in _LOCAL_NAMES:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback and "%" not in name


def is_own_host(host: str) -> bool:
    """Whether a Host header names this machine by one of its own names."""
    found = split_host(host)
    return found is not None and is_loopback(found[0])


def same_origin(origin: str, host: str) -> bool:
    """Whether an Origin header is that of pages which were loaded from the host of a Host header."""
    try:
        parts = urlsplit(origin)
        scheme, authority = parts.scheme, parts.netloc
    except ValueError:
        return False
    if scheme not in PORTS or origin.lower() != f"{scheme}://{authority}".lower():
        return False
    asked = split_host(host, scheme)
    return asked is not None and split_host(authority, scheme) == asked
