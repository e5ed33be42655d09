"""Why a sub-make ran where it did, told from the record of its build. Pure but for reading the file.

What a record holds stands in docs/record.md. Times here are seconds since the build began.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import makeflags
from .errors import NoRecordError
from .record import FORMAT
from .words import counted, plain

REASONS: Mapping[str, str] = {
    "soonest": "it would have ended it first",
    "last-host": "no host was better, and it ran it last time",
    "method": "it was its turn by the policy that was asked for",
    "tiny": "it is over sooner than it would be sent elsewhere",
    "room-here": "a free slot where it was called is as good as one elsewhere",
    "sooner-here": "it would have taken more than twice as long elsewhere",
    "slot-not-wanted": "to move it would have freed a slot that nobody needed",
    "no-room-elsewhere": "no other host had room",
    "full-here": "the host that called it was full, and this one had room",
    "sooner-elsewhere": "this host would end it clearly sooner than the one that called it",
    "full": "no host had room",
    "hosts-are-near": "other hosts were logging in",
    "faster-soon": "a faster host was about to have room",
    "no-host": "no host could take it",
}
"""Machine words of placement for people. A record may have others: they are shown as they are."""

LOCAL: Sequence[tuple[str, str]] = (
    ("-?* only *", "make itself wants that: such a make looks, and builds nothing"),
    ("--* only *", "make itself wants that: such a make looks, and builds nothing"),
    ("by the rule *", "--keep-local '!...' or keep_local in d1fleet.yml takes it back (docs/rules.md)"),
    ("its folder is outside the tree*", "--trees PATH names further folders that all hosts share"),
    ("there are no hosts", "--hosts or --inventory names some"),
    ("no host can take part", "see what became of the hosts"),
    ("it has a -j of its own*", "it has its own jobserver, and its sub-makes may go elsewhere"),
    ("the host that it was given to would not start it", "it was refused before it began"),
    ("no host", "--strict forbids that it runs on this machine"),
    ("it cannot be asked of a host*", "the call does not fit into what a host can be sent"),
    (
        "its jobserver sits where*",
        "make's own descriptors took the place of a standard stream that was closed",
    ),
)
"""Patterns of `local_reason`, and what to make of it."""

_WAITED = {
    "": "a host with room for it",
    "full": "a host with room for it",
    "hosts-are-near": "hosts that were logging in",
    "faster-soon": "a faster host",
}
"""What the words in `waited_for` stand for."""

_NOTABLE_S = 0.05
"""A shorter wait is no wait, for people."""

_SHOWN = 5
"""Jobs beside it that are named."""

_OUT = {
    "host-failed": "could not take part",
    "host-drained": "got no more sub-makes",
    "host-lost": "was lost",
    "host-fenced": "was fenced",
    "host-removed": "left the inventory",
}


@dataclass(frozen=True)
class Build:
    """One record, read."""

    number: int
    """1 is the tree's last build, 2 the one before; 0 is a file that was named."""
    begin: Mapping[str, Any]
    jobs: Sequence[Mapping[str, Any]]
    hosts: Sequence[Mapping[str, Any]]
    """Events of hosts, in order."""
    end: Mapping[str, Any] | None = field(default=None)
    """None: it still runs, or its coordinator was killed."""

    def since(self, at_s: float) -> float:
        """Seconds since it began."""
        return round(at_s - float(self.begin["at_s"]), 3)


def read(path: Path, number: int = 0) -> Build:
    """A record from its file. A last line that was cut off, by a kill or because it is being written, is
    left out.

    Raises:
        NoRecordError: it is not there, is no record, or is of a newer format.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise NoRecordError(f"the record {path} cannot be read: {error.strerror}", _MEND) from error
    try:
        events = [json.loads(line) for line in lines]
        begin = events[0]
        if begin["event"] != "build":
            raise ValueError
        form = int(begin["format"])
        if form <= FORMAT:
            jobs = [event for event in events if event["event"] == "job"]
            hosts = [event for event in events if event["event"].startswith("host-")]
            ends = [event for event in events if event["event"] == "end"]
            return Build(number, begin, jobs, hosts, ends[-1] if ends else None)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise NoRecordError(f"{path} is no record of a build", _MEND) from error
    raise NoRecordError(f"{path} is of format {form}, newer than this d1fleet", "ask the newer one")


_MEND = "name a file that d1fleet build --record has written"


def find(builds: Iterable[Build], target: str) -> list[tuple[Build, Mapping[str, Any]]]:
    """Jobs that `target` means, newest build first: all of the best kind of match that there is. A number
    means a job of the first build alone.
    """
    builds = list(builds)
    if target.isascii() and target.isdigit():
        found = [(build, job) for build in builds[:1] for job in build.jobs if job["job"] == int(target)]
        return found[-1:]  # an earlier attempt is part of its story
    for matches in (_is_goal_or_folder, _is_word, _is_pattern):
        found = [(build, job) for build in builds for job in build.jobs if matches(build, job, target)]
        if found:
            return found
    return []


def _goals(job: Mapping[str, Any]) -> list[str]:
    return [os.fsdecode(goal) for goal in makeflags.argv_goals([os.fsencode(word) for word in job["argv"]])]


def work_folder(job: Mapping[str, Any]) -> str:
    """Where the sub-make went to work: what -C names, from where it was called."""
    below = makeflags.argv_directory([os.fsencode(word) for word in job["argv"]])
    return os.path.normpath(os.path.join(job["dir"], *map(os.fsdecode, below)))


def _is_goal_or_folder(build: Build, job: Mapping[str, Any], target: str) -> bool:
    folder = work_folder(job)
    names = {folder, os.path.relpath(folder, build.begin["folder"]), os.path.basename(folder)}
    return target.rstrip("/") in names or target in _goals(job)


def _is_word(build: Build, job: Mapping[str, Any], target: str) -> bool:
    return target in job["argv"]


def _is_pattern(build: Build, job: Mapping[str, Any], target: str) -> bool:
    text = f"{work_folder(job)} {' '.join(job['argv'])}"
    return target in text or any(fnmatch.fnmatchcase(word, target) for word in text.split())


def explain(build: Build, job: Mapping[str, Any]) -> dict[str, Any]:
    """All that the record tells of a job, as docs/record.md describes for `why --json`."""
    ended_s = build.since(job["at_s"])
    asked_s = build.since(job["asked_s"])
    placed_s = build.since(job["placed_s"]) if _was_placed(job) else None
    decided_s = ended_s if placed_s is None else placed_s
    reason, explanation = _reason(job)
    earlier = [each for each in build.jobs if each["job"] == job["job"] and each is not job]
    return {
        "build": {
            "number": build.number,
            "time": build.begin["time"],
            "folder": build.begin["folder"],
            "command": build.begin["command"],
            "ended": build.end is not None,
        },
        "job": job["job"],
        "command": job["argv"],
        "folder": work_folder(job),
        "host": job["host"],
        "local_reason": job["local_reason"],
        "outcome": outcome(job),
        "asked_s": asked_s,
        "placed_s": placed_s,
        "started_s": None if placed_s is None else round(placed_s + (job["waited_s"] or 0), 3),
        "ended_s": ended_s,
        "ran_s": job["ran_s"],
        "expected_s": job["expected_s"],
        "parent": job["parent"],
        "asked_from": job["asked_from"],
        "waited_s": None if placed_s is None else round(placed_s - asked_s, 3),
        "waited_for": _waited_for(build, job, asked_s, placed_s),
        "reason": reason,
        "explanation": explanation,
        "candidates": [{"host": host, "cost": cost} for host, cost in job["candidates"]],
        "hosts": _hosts_at(build, decided_s),
        "running": _running_at(build, job, decided_s),
        "beside": _beside(build, job),
        "earlier_attempts": [{"host": each["host"], "outcome": outcome(each)} for each in earlier],
    }


def _was_placed(job: Mapping[str, Any]) -> bool:
    """Was it given to a host? Else it stayed where it was called, or nobody took it."""
    return job["host"] is not None and job["local_reason"] is None


def outcome(job: Mapping[str, Any]) -> str:
    """How it ended, in a few words."""
    if job["infrastructure"]:
        return f"was lost ({job['infrastructure']})"
    if not _was_placed(job):
        return "ran where it was called"
    if job["signal"]:
        return f"died of signal {job['signal']}"
    return "ended well" if job["exit"] == 0 else f"failed, exit {job['exit']}"


def _reason(job: Mapping[str, Any]) -> tuple[str, str]:
    word = str(job["reason"])
    if word or _was_placed(job):
        return word, REASONS.get(word, "")
    said = str(job["local_reason"] or job["infrastructure"])
    return "local", next((text for form, text in LOCAL if fnmatch.fnmatch(said, form)), "")


def _waited_for(build: Build, job: Mapping[str, Any], asked_s: float, placed_s: float | None) -> str:
    if placed_s is None or placed_s - asked_s < _NOTABLE_S:
        return ""
    ups = [build.since(event["at_s"]) for event in build.hosts if event["event"] == "host-up"]
    first_s = min(ups, default=placed_s)
    if first_s - asked_s > (placed_s - asked_s) / 2:
        return "the first hosts to come up"
    return str(_WAITED.get(job["waited_for"], job["waited_for"]))


def _hosts_at(build: Build, now_s: float) -> list[dict[str, Any]]:
    """What each host was at that time."""
    state = {name: ("connecting", "it had not come up yet") for name in build.begin["hosts"]}
    slots: dict[str, str] = {}
    drained: dict[str, tuple[str, str]] = {}
    shared = _shared(build)
    for event in build.hosts:
        if build.since(event["at_s"]) > now_s:
            break
        if event["event"] == "host-up":
            count = event["slots"]
            slots[event["host"]] = f"{counted(count, 'slot')}{shared.get(event['host'], '')}"
            # A server says that its host is drained before it has shown that it sees the tree.
            state[event["host"]] = drained.get(event["host"], ("up", slots[event["host"]]))
        elif event["event"] == "host-undrained" and event["host"] in slots:
            state[event["host"]] = ("up", slots[event["host"]])
        elif event["event"] in ("host-added", "host-undrained"):
            state[event["host"]] = ("connecting", "it had not come up yet")
        else:
            out = ("out", f"it {_OUT.get(event['event'], event['event'])}: {event['reason']}")
            state[event["host"]] = out
        drained.pop(event["host"], None)
        if event["event"] == "host-drained":
            drained[event["host"]] = state[event["host"]]
    return [{"host": name, "state": state, "text": text} for name, (state, text) in state.items()]


def _shared(build: Build) -> dict[str, str]:
    """Of hosts that are one machine: with which others each shares its slots, in words."""
    groups: dict[str, set[str]] = {}
    for event in build.hosts:
        names = {event["host"], *event.get("same_machine", ())}
        if len(names) > 1:
            group = set().union(*(groups.get(name, {name}) for name in names))
            groups.update(dict.fromkeys(group, group))
    return {
        name: f" that it shares with {', '.join(sorted(group - {name}))}: they are one machine"
        for name, group in groups.items()
    }


def _span(build: Build, job: Mapping[str, Any]) -> tuple[float, float]:
    return build.since(job["placed_s"]), build.since(job["at_s"])


def _running_at(build: Build, job: Mapping[str, Any], now_s: float) -> dict[str, int]:
    """How many other jobs each host had at that time."""
    count: dict[str, int] = {}
    for other in build.jobs:
        start_s, end_s = _span(build, other)
        if _was_placed(other) and other["job"] != job["job"] and start_s <= now_s < end_s:
            count[other["host"]] = count.get(other["host"], 0) + 1
    return count


def _beside(build: Build, job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Other jobs on its host while it ran, those that shared most of its time first."""
    if not _was_placed(job):
        return []
    start_s, end_s = _span(build, job)
    shared = []
    for other in build.jobs:
        if not _was_placed(other) or other["host"] != job["host"] or other["job"] == job["job"]:
            continue
        begun_s, over_s = _span(build, other)
        together_s = min(end_s, over_s) - max(start_s, begun_s)
        if together_s > 0:
            shared.append((together_s, other))
    shared.sort(key=lambda each: -each[0])
    return [
        {
            "job": other["job"],
            "command": other["argv"],
            "folder": work_folder(other),
            "together_s": round(s, 3),
        }
        for s, other in shared
    ]


# For people


def tell(story: Mapping[str, Any]) -> str:
    """The text of `d1fleet why` for one job."""
    build = story["build"]
    where = "this machine" if story["host"] is None else story["host"]
    number = f"build {build['number']}, " if build["number"] else ""
    ended = "" if build["ended"] else ", which has not ended, or was killed"
    lines = [
        f"job {story['job']}: {_command(story['command'])}",
        f"  in {_below(story['folder'], build['folder'])}, {number}{_time(build['time'])}"
        f" in {build['folder']}: {_command(build['command'])}{ended}",
    ]
    if story["parent"] is not None or story["asked_from"]:
        above = f"job {story['parent']}" if story["parent"] is not None else "a sub-make"
        lines.append(f"  called by {above} on {story['asked_from'] or 'this machine'}")
    lines += ["", *_place(story, where), "", *_times(story)]
    if story["placed_s"] is not None:
        lines += ["", *_candidates(story)]
        lines += _company(story)
    else:
        lines += _left_out(story)
    return "\n".join(map(plain, lines))


def _place(story: Mapping[str, Any], where: str) -> list[str]:
    said = story["explanation"]
    if story["placed_s"] is None:
        first = f"It stayed on {where}: {story['local_reason']}." if story["local_reason"] else ""
        if said and story["reason"] in REASONS:
            return [f"It stayed on {where}, because {said}."]
        lines = [first or f"It ran nowhere: {story['outcome']}."]
        return [*lines, *([f"  ({said})"] if said else [])]
    because = said or story["reason"]
    ran = f" after {story['ran_s']:.2f} s" if story["ran_s"] is not None else ""
    lines = [
        f"It ran on {where}" + (f", because {because}." if because else "."),
        f"It {story['outcome']}{ran}.",
    ]
    if story["expected_s"] is not None:
        lines[-1] += f" Expected were {story['expected_s']:.2f} s."
    return lines + [
        f"Before that, on {each['host'] or 'this machine'}: {each['outcome']}."
        for each in story["earlier_attempts"]
    ]


def _times(story: Mapping[str, Any]) -> list[str]:
    lines = [f"  {story['asked_s']:9.3f} s  asked for"]
    if story["placed_s"] is None:
        return lines
    waited = ""
    if story["waited_s"] >= _NOTABLE_S:
        waited = f", having waited {story['waited_s']:.2f} s for {story['waited_for']}"
    lines.append(f"  {story['placed_s']:9.3f} s  given to {story['host']}{waited}")
    held_s = story["started_s"] - story["placed_s"]
    if held_s >= _NOTABLE_S:
        lines.append(f"  {story['started_s']:9.3f} s  started, when a slot there was free ({held_s:.2f} s)")
    return [*lines, f"  {story['ended_s']:9.3f} s  over"]


def _candidates(story: Mapping[str, Any]) -> list[str]:
    rows = []
    known = {each["host"]: each["cost"] for each in story["candidates"]}
    hosts = sorted(story["hosts"], key=lambda each: known.get(each["host"], float("inf")))
    width = max([len(each["host"]) for each in hosts], default=0)
    for each in hosts:
        name = each["host"]
        mark = "->" if name == story["host"] else "  "
        jobs = story["running"].get(name, 0)
        busy = f", {counted(jobs, 'sub-make')} of this build there" if jobs else ""
        if name in known:
            text = f"{known[name]:5.2f}  {each['text']}{busy}"
        elif each["state"] == "up":
            text = f"    -  not among the best: full, or slower ({each['text']}{busy})"
        else:
            text = f"    -  {each['text']}"
        rows.append(f"{mark} {name:<{width}}  {text}")
    return ["hosts then, and in how many seconds each would have ended it, as far as could be told:", *rows]


def _left_out(story: Mapping[str, Any]) -> list[str]:
    out = [each for each in story["hosts"] if each["state"] != "up"]
    return ["", *(f"   {each['host']}: {each['text']}" for each in out)] if out else []


def _company(story: Mapping[str, Any]) -> list[str]:
    beside = story["beside"]
    if not beside:
        return ["", f"Nothing else of this build ran on {story['host']} meanwhile."]
    rows = [
        f"   {each['together_s']:.2f} s with job {each['job']}: {_command(each['command'])}"
        for each in beside[:_SHOWN]
    ]
    more = len(beside) - len(rows)
    return ["", f"on {story['host']} meanwhile:", *rows, *([f"   ... and {more} more"] if more else [])]


def tell_matches(found: Sequence[tuple[Build, Mapping[str, Any]]]) -> list[str]:
    """A line for each of several jobs, below headings."""
    rows = [("build", "job", "on", "seconds", "folder", "command")]
    for build, job in found:
        ran = f"{job['ran_s']:.2f}" if job["ran_s"] is not None else ""
        folder = _below(work_folder(job), build.begin["folder"])
        where = job["host"] or "this machine"
        rows.append((str(build.number or "-"), str(job["job"]), where, ran, folder, _command(job["argv"])))
    return _table(rows)


def tell_builds(builds: Sequence[Build]) -> list[str]:
    """A line for each build, below headings."""
    rows = [("build", "began", "sub-makes", "ended", "command")]
    for build in builds:
        end = build.end
        how = (
            "not, or killed"
            if end is None
            else f"signal {end['signal']}"
            if end["signal"]
            else f"exit {end['exit']}"
        )
        began = _time(build.begin["time"])
        rows.append((str(build.number), began, str(len(build.jobs)), how, _command(build.begin["command"])))
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        plain("  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)).rstrip())
        for row in rows
    ]


def _command(argv: Sequence[str]) -> str:
    return shlex.join(argv)


def _below(folder: str, base: str) -> str:
    return os.path.relpath(folder, base) if f"{folder}/".startswith(f"{base}/") else folder


def _time(text: str) -> str:
    """The time of a record without its zone, for a reader on the machine that wrote it."""
    return text[:19].replace("T", " ")
