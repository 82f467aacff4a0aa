from __future__ import annotations

import pytest

from vargpt_lightning.serving.hosts import is_loopback, is_own_host, same_origin, split_host

OWN = [
    "localhost",
    "LocalHost",
    "LOCALHOST:8000",
    "localhost.",
    "localhost.:80",
    "localhost:",
    "127.0.0.1",
    "127.1.2.3:1",
]
OWN += ["[::1]", "[::1]:8000", "[::1]:", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "127.0.0.1:65535"]
FOREIGN = ["", " ", "localhost..", ".localhost", "localhost:x", "localhost:80:80", "localhost:-1", "localhost:65536"]
FOREIGN += [
    "[::1",
    "::1",
    "::1]",
    "[::1]x",
    "[::1]evil.example",
    "[::1]:x",
    "[127.0.0.1]",
    "[localhost]",
    "[[::1]]",
    "[]",
]
FOREIGN += [
    "[::1%lo]",
    "[::1%25lo]",
    "127.0.0.1.",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "127.0.0.01",
    "0.0.0.0",
    "[::]",
]
FOREIGN += ["user@localhost", "localhost@evil.example", "localhost/", "localhost#", "localhost?", "localhost\\"]
FOREIGN += ["localhost\n", "localhost ", " localhost", "localhost\t:80", "localhost:80 ", "localhost\x00", "ⓛocalhost"]
FOREIGN += ["localhost.evil.example", "127.0.0.1.evil.example", "evil.example", "evil.example:80", "localhost:８０"]
FOREIGN += [
    "localhost,localhost",
    "http://localhost",
    "//localhost",
    "[::ffff:10.0.0.1]",
    "10.0.0.1",
    "127.0.0.1:80:80",
]


@pytest.mark.parametrize("host", OWN)
def test_names_of_this_machine(host: str) -> None:
    assert is_own_host(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_what_is_no_name_of_this_machine(host: str) -> None:
    assert not is_own_host(host)


def test_a_host_is_a_name_and_a_port() -> None:
    assert split_host("Example.org") == ("example.org", 80) == split_host("example.org:", "http")
    assert split_host("example.org", "https") == ("example.org", 443)
    assert split_host("[0:0::1]:8000") == ("::1", 8000)
    assert split_host("a b") is None


def test_addresses_to_listen_at() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "LOCALHOST", "127.1.2.3")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.5", "example.org", "", "fe80::1%lo", "[127.0.0.1]")))


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://localhost:8000", "localhost:8000", True),
        ("http://LOCALHOST:8000", "localhost:8000", True),
        ("http://localhost", "localhost:80", True),
        ("https://example.org", "example.org", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://localhost:3000", "localhost:8000", False),
        ("http://127.0.0.1:8000", "localhost:8000", False),
        ("http://localhost:8000.evil.example", "localhost:8000", False),
        ("http://localhost:8000@evil.example", "localhost:8000", False),
        ("http://evil.example", "localhost:8000", False),
        ("http://localhost:8000/path", "localhost:8000", False),
        ("null", "localhost:8000", False),
        ("", "localhost:8000", False),
        ("file://", "localhost:8000", False),
        ("http://[::1", "[::1]", False),
    ],
)
def test_origins(origin: str, host: str, same: bool) -> None:
    assert same_origin(origin, host) is same
