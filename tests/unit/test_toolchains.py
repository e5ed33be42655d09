"""Who is left out for its toolchain, who is spoken of, and what is said."""

from __future__ import annotations

import pytest

from d1fleet.errors import InventoryError
from d1fleet.fleet import Inventory
from d1fleet.hostvars import HostVariables
from d1fleet.protocol import Hello
from d1fleet.server.toolchain import TOOLS
from d1fleet.toolchains import Toolchains, Verdict

MISMATCH = "d1fleet_toolchain_mismatch"
FINE = Verdict()
OURS = {"machine": "x86_64", "cc": "gcc 14", "c++": "g++ 14", "ld": "GNU ld 2.44"}
THEIRS = OURS | {"cc": "gcc 12"}
CROSS = {"arm-gcc": "arm-gcc 14"}


def recorded(found: dict[str, str], record: dict[str, str] = OURS) -> Hello:
    return Hello(toolchain=found, project_toolchain=record)


def test_hosts_that_have_what_the_record_says() -> None:
    judge = Toolchains("demo").judge
    assert judge("alder", "exclude", recorded(OURS)) == FINE
    assert judge("birch", "fail", recorded(OURS | {"newer": "part"})) == FINE


def test_another_toolchain_than_the_projects_is_left_out() -> None:
    judge = Toolchains("demo").judge
    judge("alder", "exclude", recorded(OURS))
    for mismatch in ("exclude", "fail"):
        verdict = judge("birch", mismatch, recorded(THEIRS))
        assert verdict.reason == "its toolchain is not project demo's: cc: gcc 12, the project has gcc 14"
        assert verdict.mend == (
            "bring its packages, links and wrappers to what the other hosts have; after an upgrade of all"
            " hosts run site.yml again, so that the record is new; or set d1fleet_toolchain_mismatch: ignore"
        )
        assert not verdict.note


WAITS = Verdict(waits=True)


def test_the_first_host_waits_until_another_has_what_the_record_says() -> None:
    toolchains = Toolchains("demo")
    assert toolchains.judge("alder", "exclude", recorded(THEIRS)) == WAITS
    assert not toolchains.decided
    assert toolchains.judge("birch", "exclude", recorded(OURS)) == FINE
    assert set(toolchains.decided) == {"alder"}
    assert "cc: gcc 12" in toolchains.decided["alder"].reason


def test_a_host_that_comes_again_is_no_second_opinion_on_itself() -> None:
    toolchains = Toolchains("demo")
    for _ in range(2):
        assert toolchains.judge("alder", "exclude", recorded(THEIRS)) == WAITS
        toolchains.forget("alder")
    assert toolchains.judge("birch", "exclude", recorded(OURS)) == FINE
    assert not toolchains.decided


def test_without_records_a_host_that_comes_again_is_not_compared_with_itself() -> None:
    toolchains = Toolchains("demo")
    toolchains.judge("alder", "exclude", Hello(toolchain=OURS))
    toolchains.forget("alder")
    assert toolchains.judge("alder", "exclude", Hello(toolchain=THEIRS)) == FINE
    assert "differs from alder's" in toolchains.judge("birch", "exclude", Hello(toolchain=OURS)).note


def test_hosts_that_were_upgraded_together_take_part() -> None:
    toolchains = Toolchains("demo")
    newer = OURS | {"cc": "gcc 15"}
    assert toolchains.judge("alder", "exclude", recorded(newer)) == WAITS
    assert toolchains.judge("birch", "exclude", recorded(THEIRS)) == WAITS
    verdict = toolchains.judge("cedar", "exclude", recorded(newer | {"more": "than the record"}))
    assert not verdict.reason and not verdict.waits
    assert verdict.note == (
        "cedar and alder have the same toolchain, but their project's record has another:"
        " cc: gcc 15, the project has gcc 14; run site.yml again"
    )
    assert toolchains.decided.pop("alder") == FINE
    assert "cc: gcc 12, the project has gcc 15" in toolchains.decided.pop("birch").reason
    assert not toolchains.decided
    assert toolchains.judge("dogwood", "exclude", recorded(newer)) == FINE
    # One that was not upgraded does not fit any more, though the record says so.
    assert "cc: gcc 14, the project has gcc 15" in toolchains.judge("elm", "exclude", recorded(OURS)).reason


def test_hosts_that_never_had_the_projects_toolchain_do_not_outvote_the_record() -> None:
    """As with two releases of Debian in a project, where those of the other one come first."""
    toolchains = Toolchains("demo")
    other = Hello(toolchain=THEIRS, project_toolchain=OURS, as_enrolled=True)
    for name in ("alder", "birch"):
        assert toolchains.judge(name, "exclude", other) == WAITS
    assert toolchains.judge("cedar", "exclude", recorded(OURS)) == FINE
    assert set(toolchains.decided) == {"alder", "birch"}
    assert all(verdict.reason for verdict in toolchains.decided.values())


def test_of_hosts_that_agree_two_have_to_be_upgraded() -> None:
    toolchains = Toolchains("demo")
    stays = Hello(toolchain=THEIRS, project_toolchain=OURS, as_enrolled=True)
    assert toolchains.judge("alder", "exclude", stays) == WAITS
    assert toolchains.judge("birch", "exclude", recorded(THEIRS)) == WAITS
    assert "cedar and birch have the same" in toolchains.judge("cedar", "exclude", recorded(THEIRS)).note
    other_order = Toolchains("demo")
    assert other_order.judge("birch", "exclude", recorded(THEIRS)) == WAITS
    assert other_order.judge("alder", "exclude", stays) == WAITS
    # What the others have moved on to.
    assert toolchains.decided.pop("birch") == FINE
    assert toolchains.decided.pop("alder") == FINE


def test_who_waits_for_nobody_is_left_out() -> None:
    toolchains = Toolchains("demo")
    assert toolchains.judge("alder", "exclude", recorded(THEIRS)) == WAITS
    toolchains.settle(alone=False)
    assert "cc: gcc 12, the project has gcc 14" in toolchains.decided["alder"].reason


def test_a_fleet_of_one_needs_no_second_opinion() -> None:
    toolchains = Toolchains("demo")
    assert toolchains.judge("alder", "exclude", recorded(THEIRS)) == WAITS
    toolchains.settle(alone=True)
    assert not toolchains.decided["alder"].reason
    assert "it is alone and takes part; run site.yml again" in toolchains.decided["alder"].note


def test_a_tool_of_the_project_that_all_lack_was_not_upgraded() -> None:
    toolchains = Toolchains("demo")
    for name in ("alder", "birch"):
        assert toolchains.judge(name, "exclude", recorded(OURS, OURS | CROSS)) == WAITS
    toolchains.settle(alone=False)
    for name in ("alder", "birch"):
        assert toolchains.decided[name].reason.endswith(": arm-gcc: none, the project has arm-gcc 14")


def test_where_a_tool_lies_is_said_and_is_no_difference() -> None:
    places = {"cc": "/usr/local/bin/cc", "ld": "/opt/bin/ld"}
    toolchains = Toolchains("demo")
    assert toolchains.judge("alder", "exclude", recorded(OURS)) == FINE
    same = Hello(toolchain=OURS, toolchain_places=places, project_toolchain=OURS)
    assert toolchains.judge("birch", "exclude", same) == FINE
    other = Hello(toolchain=THEIRS, toolchain_places=places, project_toolchain=OURS)
    assert toolchains.judge("cedar", "exclude", other).reason.endswith(
        ": cc: gcc 12 at /usr/local/bin/cc, the project has gcc 14"
    )


def test_where_a_tool_lies_is_said_without_records_too() -> None:
    judge = Toolchains("").judge
    judge("alder", "exclude", Hello(toolchain=OURS))
    other = Hello(toolchain=THEIRS, toolchain_places={"cc": "/usr/local/bin/cc"})
    assert "cc: gcc 12 at /usr/local/bin/cc, alder has gcc 14" in judge("birch", "exclude", other).note


def test_many_differences_are_not_all_said() -> None:
    record = {name: "1" for name in TOOLS} | {"libc": "1", "headers": "1"}
    toolchains = Toolchains("demo")
    toolchains.judge("alder", "exclude", recorded(record, record))
    reason = toolchains.judge("birch", "exclude", recorded({}, record)).reason
    assert reason.count("the project has") == 2
    assert reason.endswith("; and 5 more")


def test_records_that_differ() -> None:
    judge = Toolchains("demo").judge
    judge("alder", "exclude", recorded(OURS))
    verdict = judge("birch", "exclude", recorded(THEIRS, THEIRS))
    assert verdict.reason == (
        "its record of project demo's toolchain is another than alder's: cc: gcc 12, alder's has gcc 14"
    )
    assert verdict.mend.startswith("run site.yml for all hosts of the project at once")


def test_a_record_that_has_a_tool_more() -> None:
    judge = Toolchains("demo").judge
    judge("alder", "exclude", recorded(OURS))
    assert "arm-gcc: only there" in judge("birch", "exclude", recorded(OURS, OURS | CROSS)).reason


def test_a_record_that_is_not_believed() -> None:
    verdict = Toolchains("demo").judge("alder", "exclude", Hello(toolchain=OURS, record_fault="mode 0666"))
    assert verdict.reason == "its record of toolchains is not believed: mode 0666"
    assert "run site.yml" in verdict.mend


def test_a_host_without_a_record_among_enrolled_ones() -> None:
    judge = Toolchains("demo").judge
    judge("alder", "exclude", recorded(OURS))
    assert judge("birch", "exclude", Hello(toolchain=OURS)) == FINE
    assert "cc: gcc 12, the project has" in judge("cedar", "exclude", Hello(toolchain=THEIRS)).reason


def test_what_a_host_without_a_record_was_not_asked_is_not_guessed() -> None:
    judge = Toolchains("demo").judge
    judge("alder", "exclude", recorded(OURS | CROSS, OURS | CROSS))
    verdict = judge("birch", "exclude", Hello(toolchain=OURS))
    assert verdict.reason == (
        "it has no record of project demo's toolchain, as alder has: what its arm-gcc is cannot be told"
    )


def test_a_record_that_comes_late_overtakes() -> None:
    toolchains = Toolchains("demo")
    assert toolchains.judge("alder", "exclude", Hello(toolchain=THEIRS)) == FINE
    assert toolchains.judge("birch", "exclude", Hello(toolchain=OURS)).note
    assert toolchains.judge("cedar", "ignore", Hello(toolchain=THEIRS)) == FINE
    assert toolchains.judge("dogwood", "exclude", recorded(OURS)) == FINE
    assert set(toolchains.decided) == {"alder"}
    assert "cc: gcc 12" in toolchains.decided["alder"].reason


def test_without_records_a_difference_is_a_note() -> None:
    judge = Toolchains("").judge
    assert judge("alder", "exclude", Hello(toolchain=OURS)) == FINE
    assert judge("birch", "exclude", Hello(toolchain=OURS)) == FINE
    assert judge("cedar", "exclude", Hello(toolchain=THEIRS | {"ld": "lld 19"})) == Verdict(
        note="its toolchain differs from alder's: cc: gcc 12, alder has gcc 14; objects may not fit together"
    )


def test_without_records_and_compilers_nobody_is_spoken_of() -> None:
    judge = Toolchains("").judge
    bare = {"machine": "x86_64", "cc": "none", "c++": "none", "ld": "none"}
    for name, parts in {"alder": bare, "birch": OURS, "cedar": bare, "dogwood": {}}.items():
        assert judge(name, "exclude", Hello(toolchain=parts)) == FINE
    assert "differs from birch's" in judge("elm", "exclude", Hello(toolchain=THEIRS)).note


def test_whoever_is_ignored_is_not_judged_and_sets_no_measure() -> None:
    toolchains = Toolchains("demo")
    assert toolchains.judge("alder", "ignore", recorded(OURS, THEIRS)) == FINE
    assert toolchains.judge("birch", "ignore", Hello(record_fault="mode 0666")) == FINE
    assert toolchains.judge("cedar", "exclude", recorded(OURS)) == FINE
    assert toolchains.judge("dogwood", "ignore", Hello(toolchain=THEIRS)) == FINE


@pytest.mark.parametrize(
    ("variables", "found"),
    [({}, "exclude"), *(({MISMATCH: word}, word) for word in ("exclude", "fail", "ignore"))],
)
def test_the_inventory_says_what_a_mismatch_means(variables: dict[str, str], found: str) -> None:
    inventory = Inventory.of(
        {
            "_meta": {"hostvars": {"alder": variables}},
            "projects": {"children": ["demo"]},
            "demo": {"hosts": ["alder"]},
        }
    )
    assert inventory.fleet("demo").hosts[0].toolchain_mismatch == found


@pytest.mark.parametrize("value", ["", "warn", "Ignore", True, ["ignore"], "{{ x }}"])
def test_other_words_for_it_are_refused(value: object) -> None:
    with pytest.raises(InventoryError, match=f"host alder: {MISMATCH} is "):
        HostVariables("alder", {MISMATCH: value}).host()


def test_a_misspelt_variable_is_found_out() -> None:
    with pytest.raises(InventoryError, match="no variable") as caught:
        HostVariables("alder", {"d1fleet_toolchain_missmatch": "ignore"}).host()
    assert MISMATCH in caught.value.mend
