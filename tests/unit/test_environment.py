"""What travels: everything but what means nothing elsewhere, what is ours, and secrets."""

from __future__ import annotations

import pytest

from d1fleet.environment import TravellingEnvironment
from d1fleet.protocol import pack_block, unpack_block

SHIM = b"/run/user/0/d1fleet/builds/b1/bin"


def _travels(item: bytes, start: list[bytes] | None = None, keep: list[bytes] | None = None) -> list[bytes]:
    environment = TravellingEnvironment(start or [], SHIM, keep or [])
    return unpack_block(environment.travelling(pack_block([item])))


@pytest.mark.parametrize(
    "name",
    [
        "SSH_AUTH_SOCK",
        "SSH_CONNECTION",
        "DBUS_SESSION_BUS_ADDRESS",
        "D1FLEET_SOCKET",
        "D1FLEET_MAKE",
        "D1MAKE_HOSTS",
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "XAUTHORITY",
        "XDG_RUNTIME_DIR",
        "XDG_SESSION_ID",
        "DISTCC_HOSTS",
        "_",
    ],
)
def test_stays(name: str) -> None:
    item = name.encode() + b"=x"
    assert _travels(item) == []
    assert _travels(item, keep=[name.encode()]) == [item]


@pytest.mark.parametrize(
    "item",
    [
        b"CC=gcc",
        b"MAKEFLAGS= -j4 --jobserver-auth=3,4",
        b"MAKELEVEL=1",
        b"HOME=/root",
        b"LANG=C",
        b"SSH=ssh",
        b"DISPLAY_NAME=x",
        b"MY_D1FLEET_X=1",
        b"__=x",
        b"XDG_CONFIG_HOME=/c",
        b"EMPTY=",
        b"ODD\xff=\xfe\n =",
        b"TMPDIR=/t",
        b"TOKENS=5",
        b"KEYBOARD=de",
        b"SECRETARY=x",
    ],
)
def test_travels(item: bytes) -> None:
    assert _travels(item) == [item]
    assert _travels(item, start=[item]) == [item]


@pytest.mark.parametrize(
    "name",
    [
        "GITHUB_TOKEN",
        "TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "DB_PASSWORD",
        "PASSWD",
        "X_API_KEY",
        "APIKEY",
        "my_secret",
        "SSL_PRIVATE_KEY",
        "GPG_PASSPHRASE",
        "GOOGLE_CREDENTIALS",
        "CREDENTIAL",
    ],
)
def test_a_secret_of_the_users_stays_and_one_that_the_makefile_sets_travels(name: str) -> None:
    mine = name.encode() + b"=mine"
    made = name.encode() + b"=made"
    assert _travels(mine, start=[mine]) == []
    assert _travels(made, start=[mine]) == [made]
    assert _travels(made) == [made]
    assert _travels(mine, start=[mine], keep=[name.encode()]) == [mine]


@pytest.mark.parametrize(
    ("path", "left"),
    [
        (SHIM + b":/usr/bin", b"%d1fleet-shim%:/usr/bin"),
        (b"/a:" + SHIM + b"/:/b", b"/a:%d1fleet-shim%:/b"),
        (b"/usr/lib/distcc:/usr/bin:/usr/lib/icecc/bin", b"/usr/bin"),
        (b"/usr/lib/ccache:/usr/bin", b"/usr/lib/ccache:/usr/bin"),
        (b"", b""),
        (b":/usr/bin:", b":/usr/bin:"),
    ],
)
def test_path(path: bytes, left: bytes) -> None:
    assert _travels(b"PATH=" + path) == [b"PATH=" + left]


def test_the_order_stays() -> None:
    items = [b"B=1", b"DISPLAY=:0", b"A=2", b"B=3"]
    block = TravellingEnvironment([], SHIM).travelling(pack_block(items))
    assert unpack_block(block) == [b"B=1", b"A=2", b"B=3"]


def test_the_builds_first_environment_is_seen_as_hosts_see_it() -> None:
    start = [b"A=1", b"DISPLAY=:0", b"GITHUB_TOKEN=x", b"PATH=/bin"]
    assert unpack_block(TravellingEnvironment(start, SHIM).start_block) == [b"A=1", b"PATH=/bin"]


def test_an_environment_like_the_last_one_and_another_one() -> None:
    environment = TravellingEnvironment([], SHIM)
    first, second = pack_block([b"A=1", b"_=x"]), pack_block([b"A=2"])
    assert environment.travelling(first) == b"A=1\0"
    assert environment.travelling(first) == b"A=1\0"
    assert environment.travelling(second) == b"A=2\0"
    assert environment.travelling(b"") == b""
