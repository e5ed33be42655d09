"""Records and reports are typed and bounded: what could change the meaning of a file is no value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet.registry.model import (
    FieldError,
    Key,
    Operator,
    Project,
    Report,
    check_host_name,
    check_project_name,
    plain,
)

GOOD: dict[str, Any] = {
    "session": "0" * 32,
    "sequence": 1,
    "slots": 4,
    "owner": "ada",
    "addresses": ("192.0.2.1", "2001:db8::1"),
    "port": 3632,
    "ssh_port": 22,
    "serving": True,
    "version": "0.1.0",
    "system": "Debian GNU/Linux 12 (bookworm)",
    "machine": "f" * 64,
    "host_keys": ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA",),
    "toolchain": {"cc": "gcc 12.2.0"},
    "jobs": 0,
    "load_others_cpus": 0.5,
    "load_1min": 1,
    "memory_available_bytes": 1 << 30,
    "memory_bytes": 1 << 34,
    "disk_free_bytes": 0,
    "error": "",
}

NO_TEXT = [
    "\n",
    "a\x00b",
    "a\x1b[31m",
    "\u0430\u0434\u0430",
    "a" * 5000,
    "{{ 7*7 }}",
    "<img>",
    "a\u202eb",
    "' or 1=1",
]

BAD: dict[str, list[Any]] = {
    "session": ["", "0" * 31, "0" * 33, "G" * 32, "\u0660" * 32, 7, *NO_TEXT],
    "sequence": [0, -1, 1 << 60, True, 1.5, "1", None],
    "slots": [0, -1, 4097, 10**30, True, 1.5, "4", "4 @root@evil/64:/x #", None],
    "owner": ["-", " ada", "ada ", 7, *NO_TEXT],
    "addresses": [
        ("x",),
        ("192.0.2.1/24",),
        ("192.0.2.1 ",),
        ("fe80::1%eth0",),
        ("1.2.3",) * 2,
        ("::1",) * 17,
    ],
    "port": [0, 65536, -1, True, "3632"],
    "ssh_port": [0, 65536, -1, True, "22"],
    "version": ["", "v1", 1, *NO_TEXT],
    "system": ["", 1, *NO_TEXT],
    "machine": ["", "f" * 63, "F" * 64, *NO_TEXT],
    "host_keys": [
        ("x",),
        ("ssh-rsa AAAA",),
        ("ssh-rsa " + "A" * 40 + " comment",),
        ("ssh-ed25519 " + "A" * 40,) * 9,
    ],
    "toolchain": [
        {"cc": 7},
        {"": "x"},
        {"cc": "a\nb"},
        {"cc": "x" * 5000},
        {str(n): "" for n in range(65)},
        [],
    ],
    "jobs": [-1, 10**9, True, 1.0],
    "load_others_cpus": [-0.1, 1e9, float("nan"), float("inf"), True, "1"],
    "load_1min": [-0.1, 1e9, float("nan"), float("inf"), True, "1"],
    "memory_available_bytes": [-1, 1 << 60, True, 1.0],
    "memory_bytes": [-1, 1 << 60, True, 1.0],
    "disk_free_bytes": [-1, 1 << 60, True, 1.0],
    "error": ["a\nb", "a\x00", "x" * 401],
}


def test_a_report_as_it_should_be() -> None:
    assert Report(**GOOD).slots == 4
    assert set(BAD) == set(GOOD) - {"serving"}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_what_cannot_be_meant_is_named(name: str, value: Any) -> None:
    with pytest.raises(FieldError) as caught:
        Report(**{**GOOD, name: value})
    assert caught.value.field == name
    assert caught.value.message.isprintable() and caught.value.message.isascii()


@given(st.text())
def test_an_owner_is_a_plain_name_or_refused(text: str) -> None:
    try:
        Report(**{**GOOD, "owner": text})
    except FieldError:
        return
    assert text == "" or (text.isascii() and text.isprintable() and not set(text) & set("#:/{}<>'\"\\%$`"))


@pytest.mark.parametrize(
    "values",
    [
        {"transport": "udp"},
        {"options": ("cpp",)},
        {"options": ("lzo", "lzo")},
        {"options": ("@evil",)},
        {"toolchain_mismatch": "maybe"},
    ],
)
def test_a_project_is_checked_whenever_it_is_made(values: dict[str, Any]) -> None:
    with pytest.raises(FieldError):
        Project("engine", ("192.0.2.0/24",), **values)


def test_kinds() -> None:
    with pytest.raises(FieldError):
        Key("1f2e3d4c", "x", "root")
    with pytest.raises(FieldError):
        Operator("ada", "x", "root")


def test_what_is_repeated_in_a_message_is_plain() -> None:
    assert plain("a\x1b[31m\u0430" + "b" * 200) == "a?[31m?" + "b" * 73


@pytest.mark.parametrize(
    "name",
    ["localhost", "localhost4", "localhost.localdomain", "ip6-loopback", "127.0.0.1", "10.1", "7", "a.0x7f"],
)
def test_no_host_is_called_as_the_machine_that_ansible_runs_on(name: str) -> None:
    with pytest.raises(FieldError):
        check_host_name(name)


def test_hosts_are_called_as_they_are_elsewhere() -> None:
    for name in ("alder", "alder.example", "7-of-9", "a1.b2", "localhosts"):
        check_host_name(name)


@pytest.mark.parametrize("name", ["all", "Projects", "d1fleet_enrolled", "registry_away", "D1fleet_x"])
def test_no_project_is_called_as_a_group_of_ours(name: str) -> None:
    with pytest.raises(FieldError):
        check_project_name(name)
