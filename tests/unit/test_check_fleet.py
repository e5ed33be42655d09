"""roles/fleet/files/fleet_findings.py, and what it makes of hosts' answers. Hosts are in tests/doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FINDING = {
    "id": "nft",
    "severity": "fault",
    "what": "it is not",
    "mend": "load it",
    "root": "nft -f x",
    "play": "",
}
WELL: dict[str, Any] = {"checked": ["distcc"], "not_checked": {}, "findings": []}


def report(**hosts: Any) -> dict[str, Any]:
    """The answer for what hosts have printed."""
    given = {
        "hosts": {name: each if isinstance(each, str) else json.dumps(each) for name, each in hosts.items()},
        "inventories": ["/inv"],
        "ansible": "ansible",
        "playbook": "ansible-playbook",
        "checkout": "/src",
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "roles/fleet/files/fleet_findings.py")],
        input=json.dumps(given),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_all_well() -> None:
    answer = report(alder=WELL, birch=WELL)
    assert answer["faults"] == {}
    assert answer["lines"][:2] == ["all well on 2 hosts", "checked as root: distcc"]
    assert answer["lines"][-1].endswith(
        "cd /src && ansible-playbook --inventory /inv site.yml --check --diff"
    )


def test_faults_come_first_and_can_be_typed() -> None:
    note = {**FINDING, "id": "journal", "severity": "note", "root": "", "play": ""}
    old = {**FINDING, "id": "hosts", "severity": "warning", "root": "", "play": "refresh"}
    sick = {**WELL, "findings": [note, old, FINDING], "not_checked": {"sshd": "not there"}}
    answer = report(alder=sick, birch=WELL, cedar=sick)
    assert answer["faults"] == {"alder": 1, "cedar": 1}
    lines = answer["lines"]
    assert lines[0] == "fault  alder, cedar: it is not"
    assert lines[2].startswith("    cd /src && ansible alder,cedar --inventory /inv --become ")
    assert lines[5] == (
        "    cd /src && ansible-playbook --inventory /inv playbooks/refresh.yml --limit alder,cedar"
    )
    assert "not checked: alder: sshd: not there" in lines


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("", "it was not reached"),
        ("no json", "Expecting value"),
        ("[]", "not an examination's"),
        ({"findings": []}, "not an examination's"),
        ({**WELL, "checked": "all"}, "other types"),
        ({**WELL, "not_checked": {"x": 1}}, "other types"),
        ({**WELL, "findings": [FINDING] * 201}, "too many"),
        ({**WELL, "findings": [{**FINDING, "severity": "panic"}]}, "severity"),
        ({**WELL, "findings": [{**FINDING, "play": "../evil"}]}, "playbook"),
        ({**WELL, "findings": [{**FINDING, "root": "x\nreboot"}]}, "other fields"),
        ({**WELL, "findings": [{**FINDING, "what": "\x1b[2J"}]}, "other fields"),
        ({**WELL, "findings": [{"id": "x"}]}, "other fields"),
        ('{"x": "' + "y" * (1 << 20) + '"}', "too long"),
        ("[" * 5000, "nothing is known"),
    ],
)
def test_a_host_that_answers_anything_else_is_a_fault(answer: Any, says: str) -> None:
    found = report(alder=answer, birch=WELL)
    assert found["faults"] == {"alder": 1}
    assert (
        found["lines"][0].startswith("fault  alder: nothing is known of it: ") and says in found["lines"][0]
    )
