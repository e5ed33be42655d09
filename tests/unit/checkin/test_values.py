"""Values as registry and check-in have agreed on them."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet.checkin import values
from d1fleet.checkin.strictjson import BadDocumentError
from d1fleet.registry import credentials, model
from tests.unit.checkin.documents import NETWORKS, host_key, json_values


@pytest.mark.parametrize("name", ["PROJECT_NAME", "HOST_NAME", "OWNER", "SYSTEM", "HOST_KEY"])
def test_patterns_are_the_registrys(name: str) -> None:
    here: re.Pattern[str] = getattr(values, name)
    there: re.Pattern[str] = getattr(model, name)
    assert (here.pattern, here.flags) == (there.pattern, there.flags)


@pytest.mark.parametrize(
    "name",
    [
        "RESERVED",
        "WIDEST",
        "MOST_RANGES",
        "MOST_PROJECTS",
        "MOST_ADDRESSES",
        "MOST_HOST_KEYS",
        "LONGEST_ERROR",
    ],
)
def test_limits_are_the_registrys(name: str) -> None:
    assert getattr(values, name) == getattr(model, name)


def test_what_the_registry_makes_fits() -> None:
    host = model.Host("0" * 32, "alder", ("engine",) * values.MOST_PROJECTS)
    credential = credentials.Credentials(b"s" * 32).issue(host, 1e9)
    assert values.CREDENTIAL.fullmatch(credential)
    token, _, _ = credentials.new_secret_text(credentials.TOKEN)
    assert values.JOIN_TOKEN.fullmatch(token)


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("192.0.2.1", True),
        ("2001:db8::1", True),
        ("192.0.3.1", False),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("169.254.1.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("ff02::1", False),
        ("::ffff:192.0.2.1", False),
        ("2001:db9::1", False),
    ],
)
def test_who_may_be_a_peer(text: str, may: bool) -> None:
    address = ipaddress.ip_address(text)
    assert values.may_be_peer(address, NETWORKS) is may
    # However wide the networks are.
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    always = text in ("192.0.2.1", "2001:db8::1", "192.0.3.1", "2001:db9::1")
    assert values.may_be_peer(address, everything) is always


@given(json_values | st.ip_addresses().map(str))
def test_an_address_is_one_or_is_refused(value: Any) -> None:
    try:
        found = values.address(value, "it")
    except BadDocumentError:
        return
    assert str(found) == value and "%" not in value


@pytest.mark.parametrize("text", ["0.0.0.0/0", "10.0.0.0/7", "127.0.0.0/8", "::/0", "2001::/16", "ff00::/32"])
def test_networks_open_to_the_world_are_refused(text: str) -> None:
    with pytest.raises(BadDocumentError):
        values.networks([text], "it", 9)
    with pytest.raises(model.FieldError):
        model.check_ranges("ranges", [text])


def test_networks_of_ones_own_are_taken() -> None:
    assert values.networks(["10.0.0.0/8", "2001:db8::/32"], "it", 9)
    model.check_ranges("ranges", ["10.0.0.0/8", "2001:db8::/32"])


@pytest.mark.parametrize(
    "name", ["all", "ALL", "localhost", "a-b", "a b", "a/b", "..", "", "1a", "a" * 64, "ä", "a\n"]
)
def test_what_is_no_project(name: str) -> None:
    with pytest.raises(BadDocumentError):
        values.project_name(name, "it")


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_host_keys_as_ssh_makes_them(kind: str, tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / "key"],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    text = " ".join((tmp_path / "key.pub").read_text().split()[:2])
    assert values.host_key(text, "it") == text


@pytest.mark.parametrize(
    "text",
    [
        "ssh-ed25519 AAAAAAAAAAAAAAAAAAAA",
        host_key().replace("ssh-ed25519", "ssh-rsa"),
        host_key() + " comment",
        "@cert-authority " + host_key(),
        host_key().replace(" ", "\n"),
        "*,! " + host_key(),
        "",
    ],
)
def test_what_is_no_host_key(text: str) -> None:
    with pytest.raises(BadDocumentError):
        values.host_key(text, "it")
