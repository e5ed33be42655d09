"""What `d1fleet why` makes of records."""

from __future__ import annotations

import ast
import fnmatch
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet import why
from d1fleet.errors import NoRecordError
from d1fleet.record import EVENTS

BEGIN: dict[str, Any] = {
    "event": "build",
    "at_s": 1000.0,
    "format": 1,
    "version": "0.1",
    "time": "2026-01-31T18:05:00+0100",
    "folder": "/p",
    "command": ["make", "-j8"],
    "program": False,
    "project": "demo",
    "hosts": ["alder", "birch", "cedar"],
    "pid": 1,
}
END: dict[str, Any] = {"event": "end", "at_s": 1100.0, "exit": 0, "signal": None}


def up(host: str, at_s: float, slots: int = 4) -> dict[str, Any]:
    return {
        "event": "host-up",
        "at_s": 1000 + at_s,
        "host": host,
        "slots": slots,
        "transport": "pipes",
        "transport_reason": "",
        "fingerprint": "",
        "same_machine": [],
    }


def out(event: str, host: str, at_s: float, reason: str = "it broke") -> dict[str, Any]:
    return {"event": event, "at_s": 1000 + at_s, "host": host, "reason": reason, "fingerprint": ""}


def job(
    number: int, *argv: str, host: str | None = "alder", span: Sequence[float] = (1, 1, 2), **more: Any
) -> Any:
    asked_s, placed_s, ended_s = span
    return {
        "event": "job",
        "at_s": 1000 + ended_s,
        "job": number,
        "dir": "/p",
        "argv": ["make", *argv],
        "host": host,
        "local_reason": None if host else "by the rule goal=install",
        "parent": None,
        "asked_from": None,
        "exit": 0 if host else None,
        "signal": 0 if host else None,
        "infrastructure": "",
        "asked_s": 1000 + asked_s,
        "placed_s": 1000 + placed_s if host else 0.0,
        "waited_s": 0.0 if host else None,
        "ran_s": ended_s - placed_s if host else None,
        "candidates": [["alder", 0.25], ["birch", 0.5]] if host else [],
        "reason": "soonest" if host else "",
        "waited_for": "",
        "expected_s": None,
        **more,
    }


def build(
    *events: dict[str, Any], number: int = 1, end: dict[str, Any] | None = END, **begin: Any
) -> why.Build:
    jobs = [event for event in events if event["event"] == "job"]
    hosts = [event for event in events if event["event"] != "job"]
    return why.Build(number, {**BEGIN, **begin}, jobs, hosts, end)


def test_the_events_here_are_as_a_build_writes_them() -> None:
    for event in (BEGIN, END, up("a", 1), out("host-lost", "a", 1), job(1)):
        assert event.keys() - {"event"} == EVENTS[event["event"]].keys()


def story(target: str, *events: dict[str, Any]) -> tuple[dict[str, Any], str]:
    ((found, entry),) = why.find([build(*events)], target)
    told = why.explain(found, entry)
    json.dumps(told)
    return told, why.tell(told)


def test_a_job_on_the_cheapest_host() -> None:
    told, text = story("1", up("alder", 0.1), up("birch", 0.2), job(1, "-C", "lib"))
    assert text.splitlines() == [
        "job 1: make -C lib",
        "  in lib, build 1, 2026-01-31 18:05:00 in /p: make -j8",
        "",
        "It ran on alder, because it would have ended it first.",
        "It ended well after 1.00 s.",
        "",
        "      1.000 s  asked for",
        "      1.000 s  given to alder",
        "      2.000 s  over",
        "",
        "hosts then, and in how many seconds each would have ended it, as far as could be told:",
        "-> alder   0.25  4 slots",
        "   birch   0.50  4 slots",
        "   cedar      -  it had not come up yet",
        "",
        "Nothing else of this build ran on alder meanwhile.",
    ]
    assert (told["reason"], told["waited_s"], told["waited_for"]) == ("soonest", 0, "")


@pytest.mark.parametrize(
    ("candidates", "word"),
    [
        ([["alder", 0.25], ["birch", 0.3]], "last-host"),
        ([["alder", 0.25]], "of-another-version"),
    ],
)
def test_reasons(candidates: list[list[Any]], word: str) -> None:
    told, text = story("1", up("alder", 0.1), job(1, candidates=candidates, reason=word))
    assert told["reason"] == word
    assert f"because {why.REASONS.get(word, word)}." in text


def test_hosts_that_were_out_and_why() -> None:
    events = [
        up("alder", 0.1),
        up("birch", 0.1),
        out("host-failed", "cedar", 0.2, "its key is unknown"),
        out("host-lost", "birch", 0.9, "its host was lost"),
        job(1),
        out("host-drained", "alder", 1.5, "later"),
    ]
    told, text = story("1", *events)
    assert [host["state"] for host in told["hosts"]] == ["up", "out", "out"]
    assert "   cedar      -  it could not take part: its key is unknown" in text
    assert "it was lost: its host was lost" in text
    assert "later" not in text


def test_waiting_and_what_for() -> None:
    told, text = story("1", job(1, span=(0.1, 0.6, 2)), up("alder", 0.5))
    assert told["waited_for"] == "the first hosts to come up"
    assert "given to alder, having waited 0.50 s for the first hosts to come up" in text
    told, text = story("2", up("alder", 0), job(1, span=(0, 0, 5)), job(2, span=(1, 5, 6), waited_s=0.5))
    assert told["waited_for"] == "a host with room for it"
    assert "5.500 s  started, when a slot there was free (0.50 s)" in text
    told, _ = story("1", up("alder", 0), job(1, span=(1, 5, 6), waited_for="a free token"))
    assert told["waited_for"] == "a free token"


def test_what_else_ran_there_and_elsewhere() -> None:
    others = [job(number, "-C", f"d{number}", span=(0, 0, 1 + number / 10)) for number in range(2, 10)]
    elsewhere = job(20, host="birch", span=(0, 0, 9))
    told, text = story(
        "1", up("alder", 0), up("birch", 0), job(1), *others, elsewhere, job(30, span=(0, 0, 1))
    )
    assert told["running"] == {"alder": 8, "birch": 1}
    assert [each["job"] for each in told["beside"]] == [9, 8, 7, 6, 5, 4, 3, 2]
    assert "   0.90 s with job 9: make -C d9" in text and "   ... and 3 more" in text
    assert "-> alder   0.25  4 slots, 8 sub-makes of this build there" in text
    assert "   birch   0.50  4 slots, 1 sub-make of this build there" in text


def test_one_that_stayed_here() -> None:
    told, text = story("install", up("alder", 0.1), job(4, "install", host=None))
    assert (told["host"], told["reason"]) == (None, "local")
    assert "It stayed on this machine: by the rule goal=install." in text
    assert "keep_local in d1fleet.yml takes it back" in text
    told, text = story(
        "1", out("host-failed", "alder", 0.1), job(1, host=None, local_reason="no host can take part")
    )
    assert "alder: it could not take part: it broke" in text


def test_one_that_stayed_on_the_host_that_called_it() -> None:
    stays: dict[str, Any] = {
        "local_reason": "room-here",
        "reason": "room-here",
        "placed_s": 0.0,
        "ran_s": None,
        "exit": None,
    }
    entry = job(2, host="birch", parent=1, asked_from="birch", candidates=[], **stays)
    told, text = story("2", up("alder", 0), up("birch", 0), job(1, host="birch", span=(0, 0, 9)), entry)
    assert "  called by job 1 on birch" in text
    assert "It stayed on birch, because a free slot where it was called is as good as one elsewhere." in text
    assert (told["placed_s"], told["beside"], told["outcome"]) == (None, [], "ran where it was called")


def test_a_host_that_was_drained_from_the_start_says_so() -> None:
    """Its server says it before it has shown that it sees the tree."""
    events = [out("host-drained", "alder", 0.1, "new kernel"), up("alder", 0.2)]
    stayed = job(1, host=None, local_reason="no host can take part", reason="no-host")
    assert "alder: it got no more sub-makes: new kernel" in story("1", *events, stayed)[1]
    events += [out("host-undrained", "alder", 0.3)]
    assert "no more sub-makes" not in story("1", *events, stayed)[1]


def test_hosts_that_are_one_machine_share_its_slots() -> None:
    events = [up("alder", 0.1), up("birch", 0.2) | {"same_machine": ["alder"]}]
    text = story("1", *events, job(1))[1]
    assert "4 slots that it shares with birch: they are one machine" in text
    assert "4 slots that it shares with alder: they are one machine" in text


@pytest.mark.parametrize(("up_s", "waited"), [(1.1, "a host with room for it"), (2.9, "the first hosts")])
def test_hosts_are_blamed_for_coming_late_only_where_they_did(up_s: float, waited: str) -> None:
    late = job(1, span=(1, 3, 4), waited_for="full")
    assert f"having waited 2.00 s for {waited}" in story("1", up("alder", up_s), late)[1]


def test_a_digit_that_is_no_number_is_a_word() -> None:
    assert why.find([build(job(1, argv=["make", "²"]))], "²")


def test_every_local_reason_that_is_explained_is_one_of_ours() -> None:
    constants = {
        (node.value if isinstance(node, ast.Constant) else ast.unparse(node)[2:-1])
        for path in Path(why.__file__).parent.glob("*.py")
        if path.name != "why.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Constant, ast.JoinedStr))
    }
    texts = [text for text in constants if isinstance(text, str)]
    for form, _ in why.LOCAL:
        assert fnmatch.filter(texts, form), form


def test_under_strict_it_ran_nowhere() -> None:
    text = story("1", job(1, host=None, local_reason="", infrastructure="no host"))[1]
    assert "It ran nowhere: was lost (no host)." in text
    assert "(--strict forbids that it runs on this machine)" in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"exit": 2}, "It failed, exit 2 after 1.00 s."),
        ({"exit": None, "signal": 9}, "It died of signal 9 after 1.00 s."),
        ({"exit": None, "signal": None, "infrastructure": "lost"}, "It was lost (lost) after 1.00 s."),
    ],
)
def test_how_it_ended(more: dict[str, Any], said: str) -> None:
    assert said in story("1", up("alder", 0), job(1, **more))[1]


def test_attempts_before_and_what_others_will_add() -> None:
    lost = job(1, host="birch", exit=None, signal=None, infrastructure="lost")
    told, text = story("1", lost, job(1, span=(1, 3, 4), parent=7, asked_from="cedar", expected_s=2.5))
    assert "Before that, on birch: was lost (lost)." in text
    assert "called by job 7 on cedar" in text
    assert "Expected were 2.50 s." in text
    assert told["earlier_attempts"] == [{"host": "birch", "outcome": "was lost (lost)"}]


def test_a_host_cannot_play_with_the_terminal() -> None:
    text = story("1", out("host-failed", "alder", 0.1, "\x1b[2J"), job(1))[1]
    assert "\x1b" not in text


# Finding


def numbers(found: Sequence[tuple[why.Build, Any]]) -> list[tuple[int, int]]:
    return [(each.number, entry["job"]) for each, entry in found]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("2", [(1, 2)]),
        ("9", []),
        ("all", [(1, 1), (2, 1)]),
        ("lib", [(1, 1), (2, 1)]),
        ("lib/", [(1, 1), (2, 1)]),
        ("/p/lib", [(1, 1), (2, 1)]),
        ("x", [(1, 2)]),
        ("lib/x", [(1, 2)]),
        ("V=1", [(2, 2)]),
        ("a*", [(1, 1), (2, 1)]),
        ("V=", [(2, 2)]),
        ("none", []),
    ],
)
def test_finding(target: str, expected: list[tuple[int, int]]) -> None:
    builds = [
        build(job(1, "-C", "lib", "all"), job(2, "-C", "lib/x")),
        build(job(1, "-C", "lib", "all"), job(2, "V=1"), number=2),
    ]
    assert numbers(why.find(builds, target)) == expected


# Reading


def write(path: Path, *events: dict[str, Any], tail: str = "") -> Path:
    path.write_text("".join(json.dumps(event) + "\n" for event in events) + tail)
    return path


def test_reading_one_that_was_cut_off(tmp_path: Path) -> None:
    read = why.read(write(tmp_path / "r", BEGIN, up("alder", 1), job(1), tail='{"event": "jo'), 3)
    assert (read.number, len(read.jobs), len(read.hosts), read.end) == (3, 1, 1, None)
    assert "which has not ended, or was killed" in why.tell(why.explain(read, read.jobs[0]))
    assert "not, or killed" in why.tell_builds([read])[1]


def test_events_and_fields_of_later_versions_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "r", {**BEGIN, "new": 1}, {"event": "moon", "at_s": 1}, job(1, other=[1]), END)
    read = why.read(path)
    assert (len(read.jobs), read.hosts, read.end) == (1, [], END)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no record of a build"),
        ("no json\n", "no record of a build"),
        ("[]\n", "no record of a build"),
        ("1\n", "no record of a build"),
        (json.dumps(END) + "\n", "no record of a build"),
        (json.dumps({**BEGIN, "format": 2}) + "\n", "newer than this d1fleet"),
        (json.dumps({**BEGIN, "format": None}) + "\n", "no record of a build"),
        ("\xff\n", "no record of a build"),
    ],
)
def test_what_is_no_record(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "r"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(NoRecordError, match=said):
        why.read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NoRecordError, match="cannot be read: No such file"):
        why.read(tmp_path / "none")


words = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=8)


@given(argv=st.lists(words, max_size=4), folder=words, reason=words, target=words, host=st.booleans())
def test_any_command_can_be_told_of(
    argv: list[str], folder: str, reason: str, target: str, host: bool
) -> None:
    entry = job(1, *argv, host="alder" if host else None, dir=f"/p/{folder}")
    entry["local_reason"] = None if host else reason
    whole = build(up("alder", 0), entry)
    text = why.tell(why.explain(whole, entry))
    assert all(line.isprintable() for line in text.split("\n"))
    why.find([whole], target)
    assert numbers(why.find([whole], "1")) == [(1, 1)]
