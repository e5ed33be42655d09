"""What hosts ask for: to join, to check in, to wait, to leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import wraps

import pytest

from d1fleet.registry.core import GATHER_S
from d1fleet.registry.credentials import Credentials
from d1fleet.registry.model import State
from d1fleet.registry.refusals import Refused
from d1fleet.registry.store import StoreError

from .memory_store import ALDER, BIRCH, CEDAR, RANGES, SOMEBODY, Registry, report

Test = Callable[[Registry], Awaitable[None]]


def with_registry(test: Test) -> Callable[[], None]:
    """Run a test in a loop, with a registry that has started."""

    @wraps(test)
    def run() -> None:
        async def whole() -> None:
            registry = Registry()
            await registry.core.start()
            try:
                await test(registry)
            finally:
                await registry.core.stop()

        asyncio.run(whole())

    del run.__wrapped__  # else pytest would look for a fixture `registry`
    return run


async def refused(what: Awaitable[object]) -> Refused:
    with pytest.raises(Refused) as caught:
        await what
    return caught.value


@with_registry
async def test_two_that_join_are_each_others_peers(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    birch = await registry.joined("birch", BIRCH)
    assert await alder.peers() == ["birch"]
    assert await birch.peers() == ["alder"]
    answer = await birch.beat()
    assert answer["all"] == ["engine"]
    assert answer["state"] == "up"
    assert answer["message"] == ""
    assert answer["projects"]["engine"]["members"] == [ALDER, BIRCH]


@with_registry
async def test_only_what_a_host_does_not_know_is_said(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    revision = (await alder.beat())["projects"]["engine"]["revision"]
    found = await registry.service.check_in(alder.credential, alder.next(), {"engine": revision}, ALDER)
    assert json.loads(found.body())["projects"] == {}
    assert registry.core.pool.worked_out == 1


@with_registry
async def test_a_token_lets_into_its_project_alone(registry: Registry) -> None:
    await registry.joined("alder", ALDER)
    await registry.admin.create_project(SOMEBODY, "tools", RANGES)
    birch = await registry.joined("birch", BIRCH, "tools")
    assert (await birch.beat())["all"] == ["tools"]
    assert await birch.peers("tools") == []


@with_registry
async def test_a_wrong_old_or_foreign_token_is_void_and_nothing_is_stored(registry: Registry) -> None:
    await registry.admin.create_project(SOMEBODY, "engine", RANGES)
    first, kept = await registry.admin.create_token(SOMEBODY, "engine")
    await registry.admin.rotate_tokens(SOMEBODY, "engine")
    key, _ = await registry.admin.create_key(SOMEBODY, "operator")
    before = dict(registry.store.records)
    for token in ("", "d1j_x", first, first[:-1] + "x", key, f"d1j_{kept.id}_{'A' * 43}", "d1j_\u0661" * 9):
        error = await refused(registry.service.join(token, "alder", report(), ALDER))
        assert (error.status, error.code) == (403, "token")
        assert token == "" or token not in str(error)
    assert registry.store.records == before
    assert registry.core.pool.hosts == {}


@with_registry
async def test_a_name_that_cannot_be_used_is_refused(registry: Registry) -> None:
    await registry.admin.create_project(SOMEBODY, "engine", RANGES)
    token, _ = await registry.admin.create_token(SOMEBODY, "engine")
    for name in ("", "localhost", "Alder", "a b", "a\nb", "al\u0434er", "{{x}}", "-x", "a" * 101, "projects"):
        error = await refused(registry.service.join(token, name, report(), ALDER))
        assert (error.status, error.field) == (422, "name"), name
    error = await refused(registry.service.join(token, "engine", report(), ALDER))
    assert (error.status, error.code) == (409, "name_taken")
    assert registry.core.pool.hosts == {}


@with_registry
async def test_nobody_takes_the_name_of_one_that_is_there(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    token, _ = await registry.admin.create_token(SOMEBODY, "engine")
    stranger = report("stranger")
    for other in (
        stranger,
        replace(alder.report, session="f" * 32),
        replace(stranger, machine=alder.report.machine),
    ):
        error = await refused(registry.service.join(token, "alder", other, CEDAR))
        assert (error.status, error.code) == (409, "name_taken")
    assert (await alder.beat())["state"] == "up"
    assert registry.admin.host("alder").address == ALDER


@with_registry
async def test_a_machine_that_lost_its_credential_takes_its_name_back_when_it_is_away(
    registry: Registry,
) -> None:
    alder = await registry.joined("alder", ALDER)
    token, _ = await registry.admin.create_token(SOMEBODY, "engine")
    await registry.service.leave(alder.credential, False, ALDER)
    error = await refused(registry.service.join(token, "alder", report("stranger"), CEDAR))
    assert error.code == "name_taken"
    again = replace(alder.report, session="e" * 32, sequence=1)
    credential, host, _ = await registry.service.join(token, "alder", again, BIRCH)
    assert (host.id, host.address, host.generation) == (alder.id, BIRCH, 2)
    assert (await refused(alder.beat())).status == 401, "the old credential is void"
    alder.credential, alder.source, alder.report = credential, BIRCH, again
    assert (await alder.beat())["state"] == "up"


@with_registry
async def test_a_host_joins_a_further_project_by_its_credential(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    await registry.joined("birch", BIRCH, "tools")
    token, _ = await registry.admin.create_token(SOMEBODY, "tools")
    other = replace(alder.report, session="d" * 32, sequence=1, slots=99)
    credential, host, _ = await registry.service.join(token, "alder", other, ALDER, alder.credential)
    assert (host.projects, host.slots) == (("engine", "tools"), 4), "what joins is not what checks in"
    for _ in range(4):
        assert (await alder.beat())["state"] == "up"
    alder.credential = credential
    assert await alder.peers("tools") == ["birch"]
    error = await refused(registry.service.join(token, "cedar", alder.next(), ALDER, alder.credential))
    assert error.code == "name_taken"


@with_registry
async def test_the_address_is_the_one_that_a_host_is_seen_at(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    birch = await registry.joined("birch", BIRCH)
    await alder.beat(addresses=(BIRCH, "192.0.2.200"))
    assert registry.admin.host("alder").address == ALDER, "what it says of its addresses does not count"
    alder.source = "192.0.2.200"
    await alder.beat()
    answer = await birch.beat()
    assert answer["projects"]["engine"]["peers"][0]["address"] == "192.0.2.200"
    assert answer["projects"]["engine"]["members"] == [BIRCH, "192.0.2.200"]


@with_registry
async def test_from_outside_its_ranges_a_host_is_nobodys_peer_and_hears_why(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    birch = await registry.joined("birch", BIRCH)
    for source in ("203.0.113.7", "10.0.0.1", "fe80::1", "::ffff:203.0.113.7", "224.0.0.1", "0.0.0.0"):
        alder.source = source
        answer = await alder.beat()
        assert "in none of the ranges" in answer["message"]
        assert await birch.peers() == []
        assert (await birch.beat())["projects"]["engine"]["members"] == [BIRCH]
    alder.source = f"::ffff:{ALDER}"
    await alder.beat()
    assert await birch.peers() == ["alder"]


@with_registry
async def test_on_the_registrys_own_machine_one_of_its_own_addresses_counts(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    registry.own_addresses = ("127.0.0.1", "192.0.2.1", "10.9.9.9")
    alder.source = "127.0.0.1"
    answer = await alder.beat(addresses=("127.0.0.1", BIRCH, "10.9.9.9", "192.0.2.1"))
    assert answer["message"] == ""
    assert registry.admin.host("alder").address == "192.0.2.1"
    answer = await alder.beat(addresses=(BIRCH,))
    assert "registry's own machine" in answer["message"]
    assert registry.admin.host("alder").address == ""


@with_registry
async def test_an_address_that_an_operator_has_fixed_stays(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    await registry.admin.change_host(SOMEBODY, "alder", address="192.0.2.50")
    alder.source = "203.0.113.1"
    assert (await alder.beat())["message"] == ""
    assert registry.admin.host("alder").address == "192.0.2.50"
    await registry.admin.change_host(SOMEBODY, "alder", address="")
    assert "in none of the ranges" in (await alder.beat())["message"]


@with_registry
async def test_an_old_report_is_taken_once(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    recorded = alder.next(slots=2)
    await registry.service.check_in(alder.credential, recorded, {}, ALDER)
    await alder.beat(slots=8)
    for _ in range(5):
        error = await refused(registry.service.check_in(alder.credential, recorded, {}, ALDER))
        assert (error.status, error.code) == (409, "replayed")
    assert registry.admin.host("alder").slots == 8
    assert (await alder.beat())["state"] == "up"


@with_registry
async def test_two_machines_with_one_credential_are_noticed(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    birch = await registry.joined("birch", BIRCH)
    copy = replace(alder, source=CEDAR, report=replace(alder.report, session="c" * 32))
    await copy.beat()
    assert (await refused(alder.beat())).code == "replayed", "it may have been under way"
    await copy.beat()
    assert (await refused(alder.beat())).code == "cloned"
    assert (await refused(copy.beat())).code == "cloned"
    assert await birch.peers() == []
    assert (await birch.beat())["projects"]["engine"]["members"] == [BIRCH]


@with_registry
async def test_a_copy_of_a_running_machine_is_noticed(registry: Registry) -> None:
    """Of a virtual machine with its memory: both go on in one session."""
    alder = await registry.joined("alder", ALDER)
    copy = replace(alder, source=CEDAR)
    codes = []
    for each in (alder, copy, alder, copy, alder, copy, alder):
        try:
            await each.beat()
        except Refused as error:
            codes.append(error.code)
    assert codes[-1] == "cloned"


@with_registry
async def test_a_new_start_of_the_service_is_no_copy(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    for number in range(20):
        await alder.beat(session=f"{number:032x}", sequence=1)
    assert (await alder.beat())["state"] == "up"


@with_registry
async def test_a_credential_on_another_machine_is_refused_and_harms_nobody(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    copy = replace(alder, source=CEDAR, report=replace(alder.report, machine="e" * 64, session="d" * 32))
    for _ in range(4):
        error = await refused(copy.beat())
        assert (error.status, error.code) == (403, "cloned")
    assert (await alder.beat())["state"] == "up"
    assert registry.admin.host("alder").address == ALDER


@with_registry
async def test_ssh_host_keys_are_pinned_until_an_operator_readmits(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    pinned = registry.admin.host("alder").host_keys
    for keys in ((), (f"ssh-ed25519 {'B' * 40}",), (*pinned, f"ssh-rsa {'B' * 40}")):
        error = await refused(alder.beat(host_keys=keys))
        assert (error.status, error.code) == (409, "host_key")
    assert registry.admin.host("alder").host_keys == pinned
    await registry.admin.readmit(SOMEBODY, "alder")
    await alder.beat(host_keys=(f"ssh-ed25519 {'B' * 40}",))
    assert registry.admin.host("alder").host_keys == (f"ssh-ed25519 {'B' * 40}",)


@with_registry
async def test_goodbye_is_told_at_once_and_the_next_beat_brings_it_back(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    birch = await registry.joined("birch", BIRCH)
    await registry.service.leave(alder.credential, False, ALDER)
    assert await birch.peers() == []
    await alder.beat()
    assert await birch.peers() == ["alder"]


@with_registry
async def test_who_leaves_for_good_is_forgotten_with_its_credential(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    await registry.service.leave(alder.credential, True, ALDER)
    assert (await refused(alder.beat())).status == 401
    assert (await refused(registry.service.leave(alder.credential, True, ALDER))).status == 401
    assert registry.admin.hosts() == []
    again = await registry.joined("alder", CEDAR)
    assert (await again.beat())["state"] == "up"


@with_registry
async def test_foreign_credentials_say_nothing(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    host = registry.admin.host("alder")
    others = Credentials(b"t" * 32)
    for text in (
        "",
        "x",
        alder.credential + "x",
        alder.credential[:-2],
        others.issue(host, 0),
        "\u00e4",
        "A" * 9999,
    ):
        alder.credential = text
        for what in (
            alder.beat(),
            registry.service.wait(text, {}, 1),
            registry.service.leave(text, True, ALDER),
        ):
            error = await refused(what)
            assert (error.status, error.code) == (401, "credential")
    assert registry.admin.host("alder") == host


@with_registry
async def test_who_waits_hears_of_a_change(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    known = {"engine": (await alder.beat())["projects"]["engine"]["revision"]}
    waiting = asyncio.create_task(registry.service.wait(alder.credential, known, 60))
    while not registry.core.waiters:
        await asyncio.sleep(0)
    await registry.joined("birch", BIRCH)
    answer = json.loads((await asyncio.wait_for(waiting, 10 * GATHER_S + 5)).body())
    assert [peer["name"] for peer in answer["projects"]["engine"]["peers"]] == ["alder", "birch"]
    assert registry.core.waiters == 0


@with_registry
async def test_who_waits_without_a_change_is_answered_in_time(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    known = {"engine": (await alder.beat())["projects"]["engine"]["revision"]}
    answer = await asyncio.wait_for(registry.service.wait(alder.credential, known, 0.05), 5)
    assert json.loads(answer.body())["projects"] == {}


@with_registry
async def test_who_waits_is_not_answered_for_what_is_no_news(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    known = {"engine": (await alder.beat())["projects"]["engine"]["revision"]}
    waiting = asyncio.create_task(registry.service.wait(alder.credential, known, 60))
    while not registry.core.waiters:
        await asyncio.sleep(0)
    await registry.admin.change_host(SOMEBODY, "alder", projects=["engine"])
    registry.core.wake([alder.id])
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done() and registry.core.waiters == 1
    await registry.joined("birch", BIRCH)
    assert len(json.loads((await asyncio.wait_for(waiting, 10)).body())["projects"]["engine"]["peers"]) == 2


@with_registry
async def test_who_waits_and_is_thrown_out_hears_it(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    known = {"engine": (await alder.beat())["projects"]["engine"]["revision"]}
    waiting = asyncio.create_task(registry.service.wait(alder.credential, known, 60))
    while not registry.core.waiters:
        await asyncio.sleep(0)
    await registry.admin.expunge(SOMEBODY, "alder")
    assert (await refused(asyncio.wait_for(waiting, 10))).code == "expunged"


@with_registry
async def test_who_waits_twice_is_answered_once_and_waits_once(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    known = {"engine": (await alder.beat())["projects"]["engine"]["revision"]}
    first = asyncio.create_task(registry.service.wait(alder.credential, known, 60))
    while not registry.core.waiters:
        await asyncio.sleep(0)
    second = asyncio.create_task(registry.service.wait(alder.credential, known, 60))
    await asyncio.wait_for(first, 10)
    assert registry.core.waiters == 1
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert registry.core.waiters == 0


@with_registry
async def test_without_a_database_hosts_check_in_and_nobody_joins(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    birch = await registry.joined("birch", BIRCH)
    token, _ = await registry.admin.create_token(SOMEBODY, "engine")
    registry.store.fault = StoreError("the database cannot be written: no space left", "make room")
    await alder.beat(slots=7)
    assert (await birch.beat())["projects"]["engine"]["peers"][0]["slots"] == 7
    error = await refused(registry.service.join(token, "cedar", report("cedar"), CEDAR))
    assert (error.status, error.code) == (503, "database")
    assert registry.core.pool.named("cedar") is None
    assert registry.core.trouble != ""
    assert (await refused(registry.service.leave(alder.credential, True, ALDER))).status == 503
    assert (await alder.beat())["state"] == "up", "what is refused has not happened"
    registry.store.fault = None
    await registry.core.flush()
    assert registry.core.trouble == ""
    registry.again()
    await registry.core.start()
    assert registry.admin.host("alder").slots == 7


@with_registry
async def test_after_a_restart_everything_is_as_it_was(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    await registry.joined("birch", BIRCH)
    await registry.core.stop()
    registry.again()
    await registry.core.start()
    assert await alder.peers() == ["birch"]
    registry.time.now_s += 41
    registry.core.expire()
    await alder.beat()
    assert await alder.peers() == [], "who does not come back is given up"


@with_registry
async def test_after_the_database_is_lost_hosts_come_back_when_their_projects_are(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    birch = await registry.joined("birch", BIRCH)
    registry.store.records.clear()
    registry.time.now_s += 100
    registry.store.made_at = registry.core.clocks.wall()
    registry.again()
    await registry.core.start()
    assert (await refused(alder.beat())).code == "projects"
    await registry.admin.create_project(SOMEBODY, "engine", RANGES)
    await alder.beat()
    assert await birch.peers() == ["alder"]
    assert {host.name for host in registry.store.open().hosts} == {"alder", "birch"}
    # Whoever is removed from then on stays removed.
    registry.time.now_s += 100
    cedar = await registry.joined("cedar", CEDAR)
    await registry.admin.forget(SOMEBODY, "cedar")
    assert (await refused(cedar.beat())).status == 401


@with_registry
async def test_a_database_that_vanishes_is_written_anew(registry: Registry) -> None:
    from d1fleet.registry.store import StoreGoneError

    await registry.joined("alder", ALDER)
    registry.store.records.clear()
    registry.store.fault = StoreGoneError("registry.db was removed", "")
    await registry.admin.create_project(SOMEBODY, "tools", RANGES)
    kept = registry.store.open()
    assert {project.name for project in kept.projects} == {"engine", "tools"}
    assert [host.name for host in kept.hosts] == ["alder"]
    assert len(kept.tokens) == 1


@with_registry
async def test_old_clients_are_refused_where_they_are_not_wanted(registry: Registry) -> None:
    await registry.joined("alder", ALDER)
    error = await refused(_old(registry, "engine", CEDAR))
    assert (error.status, error.code) == (403, "old_clients")
    assert registry.core.pool.old_clients("engine") == []


async def _old(registry: Registry, project: str, source: str, slots: int = 8) -> str:
    return registry.service.old_client(project, "h" * 32, "bob", "0.0.6", slots, source)


@with_registry
async def test_old_clients_get_themselves_first_and_the_others(registry: Registry) -> None:
    await registry.joined("alder", ALDER)
    await registry.admin.change_project(SOMEBODY, "engine", old_clients=True)
    assert await _old(registry, "engine", CEDAR) == f"localhost/8 {ALDER}/4\n"
    assert await _old(registry, "engine", "192.0.2.44", 2) == f"localhost/2 {ALDER}/4 {CEDAR}/8\n"
    assert await _old(registry, "unknown", CEDAR) == "localhost/8\n"
    for source in ("203.0.113.1", "127.0.0.1", "::1", ""):
        assert (await refused(_old(registry, "engine", source))).status in (403, 422)
    for slots in (0, -1, 10_000):
        assert (await refused(_old(registry, "engine", CEDAR, slots))).field == "threads"


@with_registry
async def test_the_state_of_a_host_is_what_an_operator_reads(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    states: list[State] = []
    for silent_s in (1.0, 34.0, 41.0):
        registry.time.now_s += silent_s
        states.append(registry.core.pool.state(registry.admin.host("alder"), registry.time.now_s))
        registry.time.now_s -= silent_s
    assert states == [State.UP, State.SUSPECT, State.GONE]
    assert (await alder.beat())["state"] == "up"
