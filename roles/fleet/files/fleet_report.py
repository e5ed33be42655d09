"""Says per project which hosts take part in builds, which are left out and why, and what to type next.

Runs on the controller with PYTHONPATH at d1fleet/'s folder. Standard input is JSON:

    {"projects": {NAME: [HOST, ...]}, "reference": {PROJECT: {"parts": {...}, "packages": PACKAGES}},
     "hosts": {HOST: {"state": STATE, "mismatch": one of d1fleet_toolchain_mismatch, "parts": {PART: TEXT},
                      "record": {PROJECT: {"parts": {...}}}, "packages": PACKAGES,
                      "why": {PACKAGE: TEXT}: why it could not get what the project has}},
     "check": BOOL, "command": [WORD, ...]}

where STATE is `done`, `failed`, or `absent` for a host that --limit left out, and PACKAGES are {SOURCE:
{PACKAGE: VERSION}}. Standard output is the report.

Parts, packages and reasons are hosts' own words: none of them may become a line of the report, which ends in
a command to be typed.
"""

import json
import shlex
import sys

import fleet_facts

from d1fleet.server.toolchain import differences
from d1fleet.words import plain

ABSENT = "not in this run"

_SHOWN = 2
"""Packages that are named with a host, one of each source; and parts of its toolchain."""


def report(given):
    """The lines."""
    lines = []
    for project, names in given["projects"].items():
        hosts = {name: _read(given["hosts"][name]) for name in names}
        lines += _project(project, hosts, given["reference"].get(project) or {}, given)
    if given["check"]:
        lines.append("Nothing was changed. To enrol them, run it again without --check.")
    return lines


def _read(host):
    """A host whose word is of the right shape."""
    return {
        **host,
        "parts": fleet_facts.parts(host["parts"]),
        "record": fleet_facts.record(host["record"]),
        "packages": fleet_facts.packages(host.get("packages")),
    }


def _project(project, hosts, reference, given):
    wanted = reference.get("parts") or {}
    states = {
        state: [name for name, host in hosts.items() if host["state"] == state]
        for state in ("done", "failed", "absent")
    }
    if given["check"]:
        return [
            f"{project}: {words} {_listed(states[state])}"
            for state, words in (("done", "can be enrolled:"), ("failed", "cannot be enrolled, see above:"))
            if states[state]
        ]
    lines, taking = [], []
    for name, host in hosts.items():
        why = differs(host, project, wanted)
        if host["state"] == "failed":
            lines.append(f"{project}: {name} failed, see above: builds leave it out, or find it as it was")
        elif why and host["mismatch"] == "ignore":
            lines.append(f"{project}: {name} takes part (d1fleet_toolchain_mismatch: ignore): {why}")
            taking.append(name)
        elif why:
            lines.append(f"{project}: builds leave {name} out: {why}")
            lines += _packages(project, name, host, reference.get("packages") or {})
        else:
            taking.append(name)
    if any(differs(host, project, wanted) and host["parts"] for host in hosts.values()):
        lines.append(
            f"{project}: to mend a difference, bring its package to the version of the other hosts (for all:"
            " d1fleet_toolchain_versions). Where packages are equal, a program differs: a wrapper in"
            " /usr/local/bin, or a link in /usr/bin. There `type -a cc; ls -l /usr/bin/cc` shows both."
            " A host of another release of the distribution belongs into a project of its own"
        )
    head = (
        f"{project}: {len(taking)} of {len(hosts)} hosts take part"
        + (": " if taking else "")
        + _listed(taking)
    )
    if not taking:
        return [head, *lines]
    command = shlex.join([*given["command"], "--project", project, "-j8"])
    return [head, *lines, f"{project}: next, in a folder that all its hosts share:", command]


def _packages(project, name, host, wanted):
    """Which of its packages have other versions, and why, where that is known."""
    own = host.get("packages") or {}
    words = []
    for source, packages in wanted.items():
        others = [
            package
            for package, version in packages.items()
            if own.get(source, {}).get(package, version) != version
        ]
        if others:
            first = source if source in others else others[0]
            why = (host.get("why") or {}).get(first, "")
            words.append(
                f"{first} {own[source][first]} and not {packages[first]}"
                + (f" ({plain(str(why))})" if why else "")
            )
    if words:
        yield f"{project}: {name} has {_some(words)}"


def differs(host, project, wanted):
    """Why builds leave a host out; empty where they don't, or where that cannot be told."""
    if host["state"] == "failed":
        return ""
    if host["state"] == "absent":
        record = ((host["record"] or {}).get(project) or {}).get("parts") or {}
        if not record:
            return f"{ABSENT}, and not enrolled for {project} or not reached: run site.yml without --limit"
        if record != wanted:
            return f"{ABSENT}, and it goes by an older record: run site.yml without --limit"
    return _some([plain(text) for text in differences(wanted, host["parts"])])


def _some(words):
    more = len(words) - _SHOWN
    return "; ".join([*words[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def _listed(names):
    return ", ".join(names)


if __name__ == "__main__":
    print("\n".join(report(json.load(sys.stdin))))
