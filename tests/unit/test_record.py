"""What is written of a build, and that docs/record.md, the table of events and the code say the same."""

from __future__ import annotations

import ast
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import d1fleet
from d1fleet import record as module
from d1fleet import why
from d1fleet.errors import UsageError
from d1fleet.record import EVENTS, FORMAT, Record

ROOT = Path(d1fleet.__file__).parent
DOCUMENT = ROOT.parent / "docs" / "record.md"
ALIKE = (
    "host-failed",
    "host-drained",
    "host-lost",
    "host-fenced",
    "host-undrained",
    "host-added",
    "host-removed",
)


def named_and_kept(folder: Path, kept: Path) -> Record:
    record = Record(str(folder / "named"))
    record.keep(kept.open("w", encoding="utf-8"), str(kept))
    return record


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_both_files_have_the_same(tmp_path: Path) -> None:
    record = named_and_kept(tmp_path, tmp_path / "kept")
    record.write(event="job", dir=b"/\xff", argv=[b"make", b"a b"], job=1)
    record.close()
    assert (tmp_path / "named").read_bytes() == (tmp_path / "kept").read_bytes()
    (line,) = lines(tmp_path / "named")
    assert os.fsencode(line["dir"]) == b"/\xff"
    assert isinstance(line["at_s"], float)
    assert (tmp_path / "named").stat().st_mode & 0o777 == 0o600


def test_jobs_wait_for_a_flush_and_hosts_do_not(tmp_path: Path) -> None:
    path = tmp_path / "record"
    record = Record(str(path))
    record.write(event="job", job=1)
    assert path.read_text() == ""
    record.flush()
    assert len(lines(path)) == 1
    record.write(event="job", job=2)
    record.write(event="host-up", host="a")
    assert [line["event"] for line in lines(path)] == ["job", "job", "host-up"]
    for number in range(10_000):
        record.write(event="job", job=number)
    assert path.stat().st_size > 100_000  # memory is bounded, however late the next flush is
    record.close()
    assert len(lines(path)) == 10_003


def test_what_is_kept_is_bounded_and_what_is_named_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_BYTES", 1000)
    record = named_and_kept(tmp_path, tmp_path / "kept")
    for number in range(100):
        record.write(event="job", job=number)
    assert record.wanted
    record.close()
    assert len(lines(tmp_path / "named")) == 100
    assert (tmp_path / "kept").stat().st_size < 1100
    assert lines(tmp_path / "kept")[-1]["event"] == "cut"


def test_a_full_disk_ends_one_record_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    record = named_and_kept(tmp_path, Path("/dev/full"))
    record.write(event="end")
    record.write(event="end")
    assert record.wanted
    record.close()
    assert len(lines(tmp_path / "named")) == 2
    assert capfd.readouterr().err.count("the record /dev/full ends here, the build goes on") == 1


def test_without_files_nothing_is_written() -> None:
    record = Record(None)
    record.write(event="job")
    assert not record.wanted
    record.close()


def test_a_file_that_cannot_be_written_is_the_users_fault(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name another file"):
        Record(str(tmp_path / "none" / "record"))


# The contract


def _documented() -> dict[str, dict[str, str]]:
    """Event -> field -> type, from the document's tables."""
    found: dict[str, dict[str, str]] = {}
    events: list[str] = []
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("#"):
            events = re.findall(r"`([a-z-]+)`", line.split(":")[0]) if line.startswith("### ") else []
            found.update({event: {} for event in events})
        row = re.match(r"\| (\w+) \| ([\w\[\]]+\??) \| .+ \|$", line)
        if row and row[1] != "field":
            for event in events:
                found[event][row[1]] = row[2]
    return found


def test_the_document_has_the_fields_of_the_table() -> None:
    documented = _documented()
    for event, fields in EVENTS.items():
        assert documented.pop(event) == fields, event
    assert documented == {}


def test_the_document_says_which_format() -> None:
    assert f"This is format {FORMAT}." in DOCUMENT.read_text()


def test_the_document_has_the_reasons() -> None:
    rows = re.findall(r"^\| ([a-z-]+) \| ([^|]+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert {word: text for word, text in rows if word != "reason"} == why.REASONS


def test_the_document_has_the_bounds() -> None:
    text = DOCUMENT.read_text()
    assert f"{module.LARGEST_BYTES >> 20} MiB with an event `cut`" in text


def _written() -> list[tuple[str, int, set[str], set[str]]]:
    """Each `...record.write(...)` in the code: file, line, events, fields."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("record.write")):
                continue
            named = {keyword.arg: keyword.value for keyword in node.keywords}
            event = named.pop("event")
            events = {str(event.value)} if isinstance(event, ast.Constant) else set(ALIKE)
            found.append((path.name, node.lineno, events, {name for name in named if name}))
    return found


def test_the_code_writes_what_the_table_has() -> None:
    written = _written()
    assert {event for _, _, events, _ in written for event in events} == set(EVENTS) - {"cut"}
    for file, line, events, fields in written:
        for event in events:
            assert fields <= EVENTS[event].keys(), f"{file}:{line}"
            if event != "end":  # which has its fields from a dictionary
                assert EVENTS[event].keys() - {"at_s"} <= fields, f"{file}:{line}"


def test_the_users_own_limit_is_no_news_for_what_was_not_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))

    code = (
        "import sys; from d1fleet.record import Record; r = Record(None); p = sys.argv[1];"
        "r.keep(open(p, 'w'), p); [r.write(event='end') for _ in range(9)]; print(r.wanted); r.close()"
    )
    command = [sys.executable, "-B", "-c", code, str(tmp_path / "kept")]
    done = subprocess.run(
        command, preexec_fn=limited, capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert (done.stdout, done.stderr) == ("False\n", "")
