"""The configuration: what root may write into it, and who may have written it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet.checkin import config
from d1fleet.checkin.config import Registry
from d1fleet.checkin.strictjson import BadDocumentError
from d1fleet.errors import UsageError
from tests.unit.checkin.documents import EVIL_TEXTS, changed, json_values, paths

GOOD: dict[str, Any] = {
    "registry": "https://192.0.2.1:33333",
    "certificate": "/etc/d1fleet/registry.pem",
    "networks": ["192.0.2.0/24"],
    "slots": None,
    "port": 3632,
    "ssh_port": 22,
    "tools": ["arm-none-eabi-gcc", "/opt/x/bin/gcc"],
    "default_project": "",
    "owner": "ada",
    "host_keys": "/etc/ssh/ssh_host_*_key.pub",
}


def parse(value: Any) -> config.Configuration:
    return config.parse(json.dumps(value).encode())


def test_a_good_one() -> None:
    found = parse(GOOD)
    assert found.registry == Registry("192.0.2.1", 33333, True)
    assert (found.slots, found.owner, found.tools[0]) == (None, "ada", "arm-none-eabi-gcc")


def test_most_of_it_may_be_missing() -> None:
    found = parse({name: GOOD[name] for name in ("registry", "certificate", "networks")})
    assert (found.port, found.ssh_port, found.tools, found.owner) == (3632, 22, (), "")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://registry.example", "https://registry.example:33333"),
        ("https://registry.example:443/", "https://registry.example:443"),
        ("https://[2001:db8::1]:33333", "https://[2001:db8::1]:33333"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://127.9.9.9", "http://127.9.9.9:33333"),
    ],
)
def test_registries(url: str, text: str) -> None:
    assert str(config.registry(url)) == text


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1:33333",
        "http://localhost:33333",
        "http://registry.example",
        "http://127.0.0.1.evil.example",
        "ftp://192.0.2.1",
        "192.0.2.1:33333",
        "https://",
        "https://user:secret@192.0.2.1",
        "https://192.0.2.1/path",
        "https://192.0.2.1/?query",
        "https://192.0.2.1:99999",
        "https://192.0.2.1:x",
        "https://a b",
        "https://a\nb",
        "https://[::1",
        "",
        7,
    ],
)
def test_what_is_no_registry(url: object) -> None:
    with pytest.raises(BadDocumentError, match="registry"):
        config.registry(url)


def test_in_the_clear_is_refused_with_the_reason() -> None:
    with pytest.raises(BadDocumentError, match="say https"):
        config.registry("http://192.0.2.1:33333")


@given(st.sampled_from([path for path in paths(GOOD) if path]), json_values | st.sampled_from(EVIL_TEXTS))
def test_another_value_is_sound_or_refused(path: tuple[Any, ...], value: Any) -> None:
    try:
        found = parse(changed(GOOD, path, value))
    except BadDocumentError:
        return
    assert found.slots is None or 1 <= found.slots <= 4096
    assert 1 <= found.port <= 65535
    assert os.path.isabs(found.host_keys) and found.certificate[:1] in ("", "/")


def test_a_file_that_others_can_write_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "checkin.json"
    path.write_text(json.dumps(GOOD))
    path.chmod(0o644)
    assert config.load(str(path)).owner == "ada"
    path.chmod(0o664)
    with pytest.raises(UsageError, match="by others than root"):
        config.load(str(path))
    path.chmod(0o644)
    with pytest.raises(UsageError, match="by others than root"):
        config.load(str(path), owners=(os.geteuid() + 1,))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text(json.dumps(GOOD))
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(UsageError, match="cannot be read"):
        config.load(str(tmp_path / "link"))


@pytest.mark.parametrize("text", ["", "{}", "nonsense", json.dumps({**GOOD, "more": 1})])
def test_a_file_that_cannot_be_meant_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "checkin.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=str(path)):
        config.load(str(path))


def test_a_stamp_is_another_when_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert config.stamp(str(path)) == ()
    path.write_text("a")
    first = config.stamp(str(path))
    assert first and config.stamp(str(path)) == first
    other = tmp_path / "y"
    other.write_text("a")
    other.replace(path)
    assert config.stamp(str(path)) != first
