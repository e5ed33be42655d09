"""PROTOCOL.md and the code say the same: messages, numbers, limits, layouts."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib import resources

import pytest

from d1fleet import errors, protocol, shims
from d1fleet.transport import launcher

TEXT = resources.files("d1fleet").joinpath("PROTOCOL.md").read_text()

_HEADING = re.compile(r"^### (\d+) `(\w+)`, from (?:the )?(\w+)$", re.M)


def _rows(section: str) -> list[list[str]]:
    """The cells of the section's tables, without their heads."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    ruled = [number for number, row in enumerate(rows) if set("".join(row)) == {"-"}]
    assert ruled
    return [row for number, row in enumerate(rows) if number not in ruled and number + 1 not in ruled]


def _documented() -> dict[int, tuple[str, str, list[tuple[str, str]]]]:
    part = TEXT.split("\n## Messages\n")[1].split("\n## ")[0]
    found: dict[int, tuple[str, str, list[tuple[str, str]]]] = {}
    heads = list(_HEADING.finditer(part))
    assert len(heads) == part.count("\n### ")
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        section = part[head.end() : following.start() if following else None]
        rows = _rows(section)
        assert all(len(row) == 4 and row[3] for row in rows), head[0]
        assert int(head[1]) not in found
        found[int(head[1])] = (head[2], head[3], [(row[0], row[1]) for row in rows])
    return found


def _coded() -> dict[int, tuple[str, str, list[tuple[str, str]]]]:
    found = {}
    for kind, message in protocol.KINDS.items():
        rows = [(f.name, str(f.type)) for f in fields(message) if f.name != "attempt"]
        found[kind] = (message.__name__, message.SENDER, rows)
    return found


def test_every_message_is_documented_as_it_is() -> None:
    assert _documented() == _coded()


def test_raw_fields_are_the_bytes_fields_and_stand_last() -> None:
    for name, _, rows in _coded().values():
        raw = [field for field, kind in rows if kind == "bytes"]
        message = next(cls for cls in protocol.KINDS.values() if cls.__name__ == name)
        assert list(message.RAW) == raw
        assert [field for field, _ in rows][len(rows) - len(raw) :] == raw


def test_every_class_of_infrastructure_is_documented() -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith("| infrastructure "))
    words = {
        protocol.LOST,
        protocol.REFUSED,
        protocol.CANCELLED,
        protocol.FENCED,
        protocol.NO_SPACE,
        protocol.INTERNAL,
    }
    assert set(re.findall(r"`([a-z-]+)`", row)) == words


@pytest.mark.parametrize(
    "words",
    [
        f"This is version {protocol.VERSION};",
        f"| 4 | length | bytes of payload, {protocol.MAX_PAYLOAD} at most |",
        f"begins with {protocol.STREAM_CREDIT} bytes of credit",
        f"{protocol.OUTPUT_CHUNK} in a frame",
        f"bytes that follow, {protocol.MAX_PAYLOAD} at most",
        f"`{launcher.MAGIC.decode()}X.Y\\n`",
        "below " + ".".join(map(str, launcher.OLDEST_PYTHON)),
        f"the first {len(launcher.server_hash())} hexadecimal digits",
        f"{errors.UnfitError.exit_code} after `Unfit`, ",
        f" {errors.ProtocolError.exit_code} after a ProtocolError",
        f"it ends with {errors.JobLostError.exit_code}.",
        f"with exit status\n{errors.ProtocolError.exit_code};",
    ],
)
def test_numbers(words: str) -> None:
    assert words in TEXT


def test_the_frame_header_adds_up() -> None:
    section = TEXT.split("\n## 2. Frames\n")[1].split("\n\n**")[0]
    sizes = [int(row[0]) for row in _rows(section) if row[0].isdigit()]
    assert sizes == [4, 1, 4]
    assert sum(sizes) == protocol.HEADER.size


def test_the_shims_request_adds_up() -> None:
    section = TEXT.split("\n## 3. The shim's request\n")[1].split("\n\nWith the first byte")[0]
    rows = _rows(section)
    fixed = [int(row[0]) for row in rows if row[0].isdigit()]
    assert sum(fixed[1:6]) == shims._FIXED.size
    assert sum(fixed[6:]) == shims._BLOCKS.size
    assert f"{shims._LIMIT.size} each" in [row[0] for row in rows]
    assert f"`{shims._MAGIC.decode()}`" in rows[1][2]


def test_the_shims_verbs() -> None:
    section = TEXT.split("The reply is 5 bytes")[1]
    verbs = [row[0].strip("`").encode() for row in _rows(section)]
    assert verbs == [shims.LOCAL, shims.EXIT, shims.SIGNAL, shims.INFRASTRUCTURE]
    assert shims._REPLY.size == 5
