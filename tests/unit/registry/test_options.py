"""How the service is set up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from d1fleet.errors import UsageError
from d1fleet.registry import options
from d1fleet.registry.limits import Limits
from d1fleet.registry.options import Options, load_options
from d1fleet.registry.pool import Timing


@pytest.fixture(autouse=True)
def no_usual_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    usual = tmp_path / "usual.yml"
    monkeypatch.setattr(options, "USUAL_FILE", usual)
    return usual


def _file(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "registry.yml"
    file.write_text(text)
    return file


def test_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = load_options()
    assert found == Options(Path("/var/lib/d1fleet-registry"))
    assert (found.listen, found.port, found.tls, found.old_clients_listen) == ("127.0.0.1", 33333, False, "")
    assert found.store_url == "sqlite:////var/lib/d1fleet-registry/registry.db"
    assert found.timing == Timing()
    assert found.limits == Limits()


def test_the_folder_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert load_options(environ={"XDG_DATA_HOME": "/home/ada/data"}).data == Path(
        "/home/ada/data/d1fleet-registry"
    )
    monkeypatch.setenv("HOME", "/home/ada")
    for environ in ({}, {"XDG_DATA_HOME": "relative"}):
        assert load_options(environ=environ).data == Path("/home/ada/.local/share/d1fleet-registry")


def test_a_file(tmp_path: Path) -> None:
    file = _file(
        tmp_path,
        """
        data: state
        listen: "::"
        port: 1234
        tls_certificate: registry.crt
        tls_key: /keys/registry.key
        database: postgresql+psycopg://d1fleet:hunter2@db/d1fleet
        beat_s: 5
        jitter: 0.1
        gone_after_s: 20
        public_url: https://registry.example:33333/
        old_clients_listen: 192.0.2.1
        old_clients_port: 4321
        forwarded_from: [10.0.0.1, "fd00::/64"]
        log_level: warning
        limits: {connections_a_source: 9000, body_s: 2.5}
        """,
    )
    found = load_options({"port": 99, "listen": None}, file)
    assert found == Options(
        data=tmp_path / "state",
        listen="::",
        port=99,
        tls_certificate=tmp_path / "registry.crt",
        tls_key=Path("/keys/registry.key"),
        database="postgresql+psycopg://d1fleet:hunter2@db/d1fleet",
        beat_s=5.0,
        jitter=0.1,
        gone_after_s=20.0,
        public_url="https://registry.example:33333",
        old_clients_listen="192.0.2.1",
        old_clients_port=4321,
        forwarded_from=("10.0.0.1/32", "fd00::/64"),
        log_level="warning",
        limits=Limits(connections_a_source=9000, body_s=2.5),
    )
    assert found.tls and found.store_url == found.database


def test_the_usual_file_is_read_where_there_is_one(no_usual_file: Path) -> None:
    no_usual_file.write_text("port: 7\n")
    assert load_options().port == 7
    no_usual_file.write_text("")
    assert load_options().port == 33333


def test_a_path_with_odd_letters(tmp_path: Path) -> None:
    folder = tmp_path / "a b%20?c#d"
    url = load_options({"data": folder}).store_url
    assert make_url(url).database == str(folder / "registry.db")


WRONG: dict[str, list[Any]] = {
    "port": [-1, 65536, "33333", True, None, 1.5, []],
    "listen": ["localhost", "", "192.0.2", 5, None, "192.0.2.0/24", "a\x1b[31m"],
    "data": ["", 5, None, []],
    "tls_certificate": ["", 5],
    "database": ["mysql://x", "registry.db", 5, None, "sqlite://\n"],
    "beat_s": [0, -1, 301, "15", None, True],
    "jitter": [-0.1, 0.6, "x"],
    "gone_after_s": [0, 4000, "40"],
    "public_url": [
        *("registry.example", "ftp://x", "https://", "https://x/path", "https://a:b@x", "https://x:y", 5),
        *("https://x?y", "https://x#y", "https://x y", "https://ü", None),
    ],
    "old_clients_listen": ["x", 5, None],
    "old_clients_port": [-1, 65536],
    "forwarded_from": ["x", [5], {"a": 1}, 5, ["192.0.2.1/24"], None],
    "log_level": ["loud", 5, None, "INFO"],
    "limits": ["x", [], None, {"nothing": 1}, {"body_s": 0}, {"connections": "many"}],
}


def test_wrong_values(tmp_path: Path) -> None:
    for key, value in ((key, each) for key, wrong in WRONG.items() for each in wrong):
        file = _file(tmp_path, yaml.safe_dump({key: value}))
        with pytest.raises(UsageError) as caught:
            load_options(config=file)
        assert caught.value.message.startswith(f"{file}: {key}"), (key, value)
        assert caught.value.mend.startswith("it has to be "), (key, value)
        assert caught.value.message.isprintable(), (key, value)
        if value is not None:
            with pytest.raises(UsageError, match=f"--{key.replace('_', '-')}"):
                load_options({key: value})


def test_wrong_files(tmp_path: Path) -> None:
    for text, wanted in (
        ("prot: 5", "there is no key prot"),
        ("- a", "holds no mapping"),
        ("5: 6", "holds no mapping"),
        ("a: [", "line 1 is no YAML"),
        ("a: b: c", "line 1 is no YAML"),
        ("!!python/object/apply:os.system [id]", "is no YAML"),
        ("#" * 70_000, "holds no mapping"),
    ):
        with pytest.raises(UsageError, match=wanted) as caught:
            load_options(config=_file(tmp_path, text))
        assert str(tmp_path / "registry.yml") in caught.value.message and caught.value.mend


def test_what_was_meant_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_options(config=_file(tmp_path, "prot: 5"))
    assert caught.value.mend == "did you mean port?"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_options(config=tmp_path / "nothing.yml")
    (tmp_path / "latin.yml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UsageError, match="no YAML"):
        load_options(config=tmp_path / "latin.yml")


def test_a_password_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_options(config=_file(tmp_path, "database: mysql://ada:hunter2@db/x"))
    assert "hunter2" not in str(caught.value)


def test_beyond_this_machine_only_with_tls() -> None:
    for address in ("0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "169.254.0.1"):
        with pytest.raises(UsageError) as caught:
            load_options({"listen": address})
        assert address in caught.value.message
        assert "d1fleet registry certificate" in caught.value.mend and "proxy" in caught.value.mend
        files = {"tls_certificate": "/x.crt", "tls_key": "/x.key"}
        assert load_options({"listen": address, **files}).listen == address
        # For old clients there is nothing else.
        assert load_options({"old_clients_listen": address}).old_clients_listen == address
    for address in ("127.0.0.1", "127.0.0.53", "::1"):
        assert load_options({"listen": address}).listen == address


def test_what_does_not_fit_together() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"tls_certificate": "/x.crt"}, "tls_certificate and tls_key"),
        ({"tls_key": "/x.key"}, "tls_certificate and tls_key"),
        ({"beat_s": 30}, "gone_after_s"),
        ({"gone_after_s": 20}, "gone_after_s"),
        ({"jitter": 0.5}, "gone_after_s"),
        ({"old_clients_listen": "127.0.0.1"}, "old_clients_listen"),
    ]
    for values, wanted in wrong:
        with pytest.raises(UsageError, match=wanted) as caught:
            load_options(values)
        assert caught.value.mend


def test_one_lost_beat_gives_nobody_up() -> None:
    found = load_options({"beat_s": 2.0, "gone_after_s": 5.0})
    latest_s = 2 * found.beat_s * (1 + found.jitter)
    assert found.gone_after_s >= latest_s


def test_every_option_can_be_said() -> None:
    assert set(options._READERS) == set(Options.__dataclass_fields__)
