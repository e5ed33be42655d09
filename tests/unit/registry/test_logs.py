"""The log: one line of JSON each, and no secret in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from d1fleet.registry import credentials, logs
from d1fleet.registry.model import AuditEntry, Host

from .web import ADMIN, PASSWORD, Web, with_web


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What is written; the loggers are as they were afterwards."""
    root = logging.getLogger()
    names = ("uvicorn", *logs.QUIET)
    before = root.handlers[:], root.level, {name: logging.getLogger(name).level for name in names}
    stream = io.StringIO()
    logs.set_up("debug", stream)
    yield stream
    for each in root.handlers[:]:
        root.removeHandler(each)
    for each in before[0]:
        root.addHandler(each)
    root.setLevel(before[1])
    for name, level in before[2].items():
        logging.getLogger(name).setLevel(level)


def _lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line(written: io.StringIO) -> None:
    logging.getLogger("d1fleet.registry").warning("host %s", "gone", extra={"host": "alder", "count": 3})
    (line,) = _lines(written)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "d1fleet.registry",
        "message": "host gone",
        "host": "alder",
        "count": 3,
    }


def test_no_field_makes_a_line(written: io.StringIO) -> None:
    text = 'x\n{"level": "info", "message": "forged"}\r\x1b[31m\x00\u2028\x85'
    logging.getLogger("d1fleet").info("%s", text, extra={"path": text, "level": "forged", "time": "forged"})
    assert written.getvalue().isascii() and written.getvalue().count("\n") == 1
    assert all(each.isprintable() for each in written.getvalue().rstrip("\n"))
    (line,) = _lines(written)
    assert line["message"] == text and line["path"] == text
    assert line["level"] == "info" and line["time"] != "forged"


def test_texts_are_bounded(written: io.StringIO) -> None:
    logging.getLogger("d1fleet").info("x" * 100_000, extra={"path": "y" * 100_000})
    assert len(written.getvalue()) < 5000


def test_entries_of_the_audit_log_stand_by_themselves(written: io.StringIO) -> None:
    entry = AuditEntry(1.0, "operator:ada", "drain", "alder", "192.0.2.1", "")
    logging.getLogger("d1fleet.registry").info("audit", extra={"audit": entry})
    (line,) = _lines(written)
    assert line["audit"] == {
        "at": 1.0,
        "who": "operator:ada",
        "what": "drain",
        "whom": "alder",
        "source": "192.0.2.1",
        "detail": "",
    }


def test_secrets_are_hidden(written: io.StringIO) -> None:
    token, _, _ = credentials.new_secret_text(credentials.TOKEN)
    key, _, _ = credentials.new_secret_text(credentials.KEY)
    credential = credentials.Credentials(b"s" * 32).issue(Host("0" * 32, "alder", ("engine",)), 1.0)
    log = logging.getLogger("d1fleet.registry")
    for text in (token, key, credential, "postgresql://ada:hunter2@db/x", f"Authorization: Bearer {key}"):
        log.error("it was %s", text, extra={"also": text})
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("failed")
    for secret in (token, key, credential, "hunter2"):
        assert secret not in written.getvalue()
    assert token[:12] in written.getvalue()  # which one it was can be seen
    assert "Traceback" in _lines(written)[-1]["exception"]


def test_what_is_shown_to_be_let_in_is_in_no_line(written: io.StringIO) -> None:
    """All that a host and an operator send in a life."""

    @with_web
    async def run(web: Web) -> None:
        alder = await web.host()
        token = await web.token()
        await alder.beat()
        operator = await web.operator()
        await operator.post(f"{ADMIN}/operators", json={"name": "ada", "password": PASSWORD})
        await operator.get(f"{ADMIN}/hosts", headers={"Cookie": "d1fleet=cookie-secret"})
        key = (await operator.post(f"{ADMIN}/keys", json={"kind": "viewer"})).json()["key"]
        bad = await web.client(headers={"Authorization": "Bearer d1k_00000000_" + "A" * 43})
        await bad.get(f"{ADMIN}/hosts?token={token}")
        await operator.get(f"{ADMIN}/hosts?password={PASSWORD}")
        text = written.getvalue()
        for secret in (token, key, web.key, alder.credential, PASSWORD, "cookie-secret", "A" * 43):
            assert secret not in text
        assert '"path": "/api/v1/checkin"' in text and '"what": "put operator"' in text

    run()


def test_others_are_heard_of_when_something_is_wrong(written: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    logging.getLogger("alembic").info("Context impl SQLiteImpl.")
    logging.getLogger("uvicorn.error").error("it broke")
    assert [line["message"] for line in _lines(written)] == ["it broke"]
