"""Says what check_host.py has found on each host, with the mends as they can be typed.

Runs on the controller with PYTHONPATH at d1fleet/'s folder. Standard input and output are JSON:

    in   {"hosts": {HOST: what check_host.py has printed there, or ""}, "inventories": [PATH, ...],
          "ansible": PROGRAM, "playbook": PROGRAM, "checkout": FOLDER or ""}
    out  {"lines": [TEXT, ...], "faults": {HOST: NUMBER}}

Hosts' answers are theirs: whatever is not as it should be is a fault of that host.
"""

import json
import os
import sys

from d1fleet.findings import FAULT, NOTE, SEVERITIES, Commands, Finding, Mend, shown
from d1fleet.words import plain

LONGEST = 1 << 20
MOST = 200
FIELDS = {"id", "severity", "what", "mend", "root", "play"}
PLAYS = ("", "site", "refresh")


def read(answer):
    """A host's answer.

    Raises:
        ValueError: it is none.
    """
    if not answer:
        raise ValueError("it was not reached, or its check has failed")
    if len(answer) > LONGEST:
        raise ValueError("its answer is too long")
    told = json.loads(answer)
    if not isinstance(told, dict) or set(told) != {"checked", "not_checked", "findings"}:
        raise ValueError("its answer is not an examination's")
    if not (
        _texts(told["checked"])
        and isinstance(told["not_checked"], dict)
        and isinstance(told["findings"], list)
    ):
        raise ValueError("its answer has other types")
    if not (_texts(list(told["not_checked"])) and _texts(list(told["not_checked"].values()))):
        raise ValueError("its answer has other types")
    if len(told["findings"]) > MOST:
        raise ValueError("its answer has too many findings")
    for each in told["findings"]:
        if not isinstance(each, dict) or set(each) != FIELDS or not _texts(list(each.values())):
            raise ValueError("a finding of its has other fields")
        if each["severity"] not in SEVERITIES or each["play"] not in PLAYS:
            raise ValueError("a finding of its has a severity or a playbook that is none")
    return told


def _texts(values):
    if not isinstance(values, list) or len(values) > MOST:
        return False
    return all(isinstance(each, str) and len(each) <= 8192 and each.isprintable() for each in values)


def report(given):
    """The answer; see above."""
    findings, checked, not_checked = [], {}, {}
    for host, answer in given["hosts"].items():
        try:
            told = read(answer)
        except (ValueError, RecursionError) as error:
            what = f"nothing is known of it: {error}"
            mend = Mend("see above; `ansible HOST -m ping` shows whether it is reached")
            findings.append(Finding("unknown", FAULT, host, what, mend))
            continue
        for each in told["findings"]:
            mend = Mend(each["mend"], play=each["play"], root=each["root"])
            findings.append(Finding(each["id"], each["severity"], host, each["what"], mend))
        checked.update(dict.fromkeys(told["checked"]))
        not_checked.update({f"{host}: {what}": why for what, why in told["not_checked"].items()})
    commands = Commands(
        inventories=[os.path.abspath(path) for path in given["inventories"]],
        ansible=given["ansible"],
        playbook=given["playbook"],
        checkout=given["checkout"] or None,
    )
    lines = []
    for each in shown(findings, commands):
        # All names: the command has to be for these hosts, and no others.
        lines.append(f"{each.severity}  {', '.join(map(plain, each.hosts))}: {plain(each.what)}")
        lines.append(plain(f"  mend: {each.mend}"))
        if each.command:
            lines.append(f"    {each.command}")
    if all(each.severity == NOTE for each in findings):
        lines.insert(0, f"all well on {len(given['hosts'])} hosts")
    lines.append(plain(f"checked as root: {', '.join(checked) or 'nothing'}"))
    lines += [plain(f"not checked: {what}: {why}") for what, why in not_checked.items()]
    again = commands.of(Mend(play="site"), ())
    if again:
        lines.append(f"whether the inventory says something else by now: {again} --check --diff")
    faults = {host: sum(f.severity == FAULT and f.host == host for f in findings) for host in given["hosts"]}
    return {"lines": lines, "faults": {host: count for host, count in faults.items() if count}}


if __name__ == "__main__":
    json.dump(report(json.load(sys.stdin)), sys.stdout)
