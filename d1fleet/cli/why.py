"""`d1fleet why`: which records to look into, and what of them to print."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import records, why
from ..errors import NoRecordError
from ..words import say

SHOWN = 40
"""Matches that are listed."""


def answer(target: str | None, record: str | None, number: int | None, as_json: bool) -> str:
    """The text for one job, or a list of those that `target` may mean. Without a target, all jobs of the
    build that was named, or all builds.

    Args:
        target: a job's number, a goal, a folder or a word of a command.
        record: a file to look into; else the records that are kept of builds here.
        number: which of those, 1 is the last; None takes the last for a job's number, all for anything else.

    Raises:
        NoRecordError: there is no such record, or no such job in it.
    """
    builds = _builds(record, number)
    if target is None and (record is not None or number is not None):
        jobs = [(build, job) for build in builds for job in sorted(build.jobs, key=lambda job: job["job"])]
        return _as_json(jobs) if as_json else "\n".join(why.tell_matches(jobs))
    if target is None:
        found: Any = [_build(build) for build in builds]
        return json.dumps(found, indent=1) if as_json else "\n".join(why.tell_builds(builds))
    matches = why.find(builds, target)
    if not matches:
        raise _nothing(builds, target)
    newest = [match for match in matches if match[0] is matches[0][0]]
    if len(newest) > 1:
        if as_json:
            return _as_json(matches)
        return "\n".join(_list(matches, target, record))
    story = why.explain(*newest[0])
    if as_json:
        return json.dumps(story, indent=1)
    earlier = matches[1:]
    more = (
        ["", f"Earlier builds have it too ({len(earlier)}):", *why.tell_matches(earlier[:5])]
        if earlier
        else []
    )
    return "\n".join([why.tell(story), *more])


def _builds(record: str | None, number: int | None) -> list[why.Build]:
    if record is not None:
        return [why.read(Path(record))]
    here = os.fsencode(os.getcwd())
    paths = records.of_tree(here)
    if not paths:
        raise NoRecordError(
            f"there is no record of a build in {os.fsdecode(here)} or above it",
            "build there first, go to where you built, or name one with --record FILE",
        )
    if number is None:
        return _readable(paths)
    if number > len(paths):
        raise NoRecordError(f"there are records of {len(paths)} builds here", "d1fleet why lists them")
    return [why.read(paths[number - 1], number)]


def _readable(paths: Sequence[Path]) -> list[why.Build]:
    """All builds but those whose record a full disk, say, has spoilt: the others can be told of all the same.

    Raises:
        NoRecordError: none can be read.
    """
    builds = []
    last: NoRecordError | None = None
    for at, path in enumerate(paths, 1):
        try:
            builds.append(why.read(path, at))
        except NoRecordError as error:
            say(f"build {at} is passed over: {error.message}")
            last = error
    if not builds and last is not None:
        raise last
    return builds


def _nothing(builds: list[why.Build], target: str) -> NoRecordError:
    first = builds[0]
    mend = (
        "d1fleet why --build N lists the sub-makes of a build; take a number, goal, folder or word of those"
    )
    if target.isdigit():
        numbers = [job["job"] for job in first.jobs]
        has = f"it has {min(numbers)} to {max(numbers)}" if numbers else "it had no sub-makes"
        build = f"the build of {first.begin['time']} in {first.begin['folder']}"
        return NoRecordError(f"there is no sub-make {target} in {build}: {has}", mend)
    return NoRecordError(f"no sub-make on record has {target} as a goal, folder or word", mend)


def _list(matches: list[tuple[why.Build, Any]], target: str, record: str | None) -> list[str]:
    more = len(matches) - SHOWN
    one = "--record FILE" if record is not None else "--build N"
    return [
        *why.tell_matches(matches[:SHOWN]),
        *([f"... and {more} more"] if more > 0 else []),
        "",
        f"{len(matches)} sub-makes match {target}; name one: d1fleet why {one} JOB",
    ]


def _as_json(matches: list[tuple[why.Build, Any]]) -> str:
    return json.dumps({"matches": [_match(*match) for match in matches]}, indent=1)


def _match(build: why.Build, job: Any) -> dict[str, Any]:
    return {
        "build": build.number,
        "job": job["job"],
        "host": job["host"],
        "ran_s": job["ran_s"],
        "folder": why.work_folder(job),
        "command": job["argv"],
    }


def _build(build: why.Build) -> dict[str, Any]:
    return {
        "build": build.number,
        "time": build.begin["time"],
        "folder": build.begin["folder"],
        "command": build.begin["command"],
        "jobs": len(build.jobs),
        "exit": build.end["exit"] if build.end else None,
        "signal": build.end["signal"] if build.end else None,
        "ended": build.end is not None,
    }
