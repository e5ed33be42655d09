"""URLs of registries, and pins."""

from __future__ import annotations

import pytest

from d1fleet.errors import UsageError
from d1fleet.registryplace import Place, read_pin, read_place

PIN = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "place", "shown"),
    [
        ("https://registry.example", Place("", "registry.example"), "https://registry.example:33333"),
        ("registry.example:44444", Place("", "registry.example", 44444), "https://registry.example:44444"),
        ("https://192.0.2.1:1/", Place("", "192.0.2.1", 1), "https://192.0.2.1:1"),
        ("https://[2001:db8::1]", Place("", "2001:db8::1"), "https://[2001:db8::1]:33333"),
        ("http://127.0.0.1", Place("", "127.0.0.1", tls=False), "http://127.0.0.1:33333"),
        ("http://[::1]:80", Place("", "::1", 80, tls=False), "http://[::1]:80"),
        ("unix:/run/a b", Place("/run/a b"), "unix:/run/a b"),
    ],
)
def test_places(text: str, place: Place, shown: str) -> None:
    assert read_place(text) == place
    assert str(place) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        "ftp://registry.example",
        "https://ada:secret@registry.example",
        "https://registry.example/path",
        "https://registry.example?x",
        "https://registry.example#x",
        "https://registry.example:0",
        "https://registry.example:65536",
        "https://registry example",
        "https://-registry",
        "https://[::1",
        "https://[fe80::1%eth0]",
        "https://reg\r\nHost: x",
        "unix:relative",
        "unix:/a\0b",
    ],
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_place(text)
    assert "secret" not in caught.value.message or "ada" in text
    assert caught.value.mend


@pytest.mark.parametrize("host", ["192.0.2.1", "localhost", "registry.example", "[2001:db8::1]", "0.0.0.0"])
def test_nothing_is_said_in_the_clear_over_a_network(host: str) -> None:
    with pytest.raises(UsageError, match="without TLS"):
        read_place(f"http://{host}:33333")


def test_what_vouches_is_kept() -> None:
    assert read_place("https://a", certificate="c.pem") == Place("", "a", certificate="c.pem")
    assert read_place("https://a", pin=PIN) == Place("", "a", pin=PIN)
    assert read_place("http://127.0.0.1", pin=PIN).pin == ""
    with pytest.raises(UsageError, match="both given"):
        read_place("https://a", "c.pem", PIN)


@pytest.mark.parametrize(
    "text",
    [
        PIN,
        PIN.upper(),
        f" {PIN}\n",
        "SHA256:" + ":".join(["01", "23", "45", "67", "89", "ab", "cd", "ef"] * 4),
    ],
)
def test_pins(text: str) -> None:
    assert read_pin(text) == PIN


@pytest.mark.parametrize(
    "text", ["", PIN[7:], PIN[:-1], PIN + "0", PIN.replace("a", "g", 1), "md5:" + PIN[7:]]
)
def test_what_is_no_pin(text: str) -> None:
    with pytest.raises(UsageError, match="no pin"):
        read_pin(text)
