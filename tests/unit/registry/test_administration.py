"""What operators do, and what is left of it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from d1fleet.registry.administration import By
from d1fleet.registry.refusals import Refused
from d1fleet.registry.store import StoreError

from .memory_store import ALDER, BIRCH, CEDAR, RANGES, SOMEBODY, Registry
from .test_service import refused, with_registry

VIEWER = By("key:1f2e3d4c", False)

Change = Callable[[Registry, By], Awaitable[Any]]

CHANGES: dict[str, Change] = {
    "create project": lambda registry, by: registry.admin.create_project(by, "tools", RANGES),
    "change project": lambda registry, by: registry.admin.change_project(by, "engine", transport="ssh"),
    "delete project": lambda registry, by: registry.admin.delete_project(by, "engine", with_hosts=True),
    "create token": lambda registry, by: registry.admin.create_token(by, "engine"),
    "rotate tokens": lambda registry, by: registry.admin.rotate_tokens(by, "engine"),
    "revoke token": lambda registry, by: registry.admin.revoke_token(
        by, "engine", registry.admin.tokens("engine")[0].id
    ),
    "drain": lambda registry, by: registry.admin.drain(by, "alder"),
    "undrain": lambda registry, by: registry.admin.undrain(by, "alder"),
    "expunge": lambda registry, by: registry.admin.expunge(by, "alder"),
    "readmit": lambda registry, by: registry.admin.readmit(by, "alder"),
    "forget": lambda registry, by: registry.admin.forget(by, "alder"),
    "change host": lambda registry, by: registry.admin.change_host(by, "alder", address="192.0.2.7"),
    "put operator": lambda registry, by: registry.admin.put_operator(by, "eve", "correct horse battery"),
    "remove operator": lambda registry, by: registry.admin.remove_operator(by, "ada"),
    "create key": lambda registry, by: registry.admin.create_key(by, "viewer"),
    "remove key": lambda registry, by: registry.admin.remove_key(by, registry.admin.keys()[0].id),
}


async def furnished(registry: Registry) -> None:
    await registry.joined("alder", ALDER)
    await registry.admin.put_operator(SOMEBODY, "ada", "correct horse battery")
    await registry.admin.create_key(SOMEBODY, "operator")


@pytest.mark.parametrize("what", CHANGES)
def test_a_viewer_changes_nothing(what: str) -> None:
    @with_registry
    async def test(registry: Registry) -> None:
        await furnished(registry)
        before = (dict(registry.store.records), registry.core.snapshot())
        error = await refused(CHANGES[what](registry, VIEWER))
        assert (error.status, error.code) == (403, "viewer")
        assert (dict(registry.store.records), registry.core.snapshot()) == before

    test()


@pytest.mark.parametrize("what", CHANGES)
def test_what_cannot_be_stored_has_not_happened(what: str) -> None:
    @with_registry
    async def test(registry: Registry) -> None:
        await furnished(registry)
        before = registry.core.snapshot()
        registry.store.fault = StoreError("no space left", "make room")
        error = await refused(CHANGES[what](registry, SOMEBODY))
        assert (error.status, error.code) == (503, "database")
        assert registry.core.snapshot() == before
        registry.store.fault = None
        await CHANGES[what](registry, SOMEBODY)

    test()


@pytest.mark.parametrize("what", CHANGES)
def test_each_change_is_in_the_audit_log_and_survives_a_restart(what: str) -> None:
    @with_registry
    async def test(registry: Registry) -> None:
        await furnished(registry)
        await CHANGES[what](registry, SOMEBODY)
        entry = (await registry.admin.audit(1))[0]
        assert (entry.what, entry.who, entry.source) == (what, SOMEBODY.who, SOMEBODY.source)
        await registry.core.flush()
        kept = registry.core.snapshot()
        registry.again()
        await registry.core.start()
        for name in ("projects", "hosts", "tokens", "operators", "keys"):
            assert set(map(repr, getattr(registry.core.snapshot(), name))) == set(
                map(repr, getattr(kept, name))
            )

    test()


@with_registry
async def test_a_project_needs_a_name_of_its_own_and_ranges_of_ones_own(registry: Registry) -> None:
    await furnished(registry)
    for name, ranges, field in (
        ("", RANGES, "name"),
        ("all", RANGES, "name"),
        ("Localhost", RANGES, "name"),
        ("a-b", RANGES, "name"),
        ("a/b", RANGES, "name"),
        ("..", RANGES, "name"),
        ("\u0441tools", RANGES, "name"),
        ("a" * 64, RANGES, "name"),
        ("tools", (), "ranges"),
        ("tools", ("0.0.0.0/0",), "ranges"),
        ("tools", ("127.0.0.0/8",), "ranges"),
        ("tools", ("::/0",), "ranges"),
        ("tools", ("192.0.2.1/24",), "ranges"),
        ("tools", ("192.0.2.0/24 ",), "ranges"),
        ("tools", tuple(f"192.0.{number}.0/24" for number in range(33)), "ranges"),
    ):
        error = await refused(registry.admin.create_project(SOMEBODY, name, ranges))
        assert (error.status, error.field) == (422, field), (name, ranges)
    assert (await refused(registry.admin.create_project(SOMEBODY, "engine", RANGES))).status == 409
    assert (await refused(registry.admin.create_project(SOMEBODY, "alder", RANGES))).status == 409
    assert [project.name for project in registry.admin.projects()] == ["engine"]


@with_registry
async def test_a_project_with_hosts_is_not_deleted_by_mistake(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    await registry.joined("birch", BIRCH, "tools")
    error = await refused(registry.admin.delete_project(SOMEBODY, "engine"))
    assert (error.status, error.code) == (409, "not_empty")
    token, _ = await registry.admin.create_token(SOMEBODY, "engine")
    await registry.admin.delete_project(SOMEBODY, "engine", with_hosts=True)
    assert (await alder.beat())["all"] == []
    assert (await refused(registry.service.join(token, "cedar", alder.next(), CEDAR))).code == "token"
    assert [project.name for project in registry.admin.projects()] == ["tools"]
    # A new one of that name is another one: nobody is in it.
    await registry.admin.create_project(SOMEBODY, "engine", RANGES)
    assert registry.admin.hosts("engine") == []


@with_registry
async def test_a_drained_host_compiles_for_nobody_and_sends_work(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    birch = await registry.joined("birch", BIRCH)
    await registry.admin.drain(SOMEBODY, "alder")
    assert await birch.peers() == []
    assert await alder.peers() == ["birch"]
    answer = await alder.beat()
    assert (answer["state"], answer["message"]) == ("drained", "engine: drained by an operator")
    assert (await birch.beat())["projects"]["engine"]["members"] == [ALDER, BIRCH]
    await registry.admin.undrain(SOMEBODY, "alder")
    assert await birch.peers() == ["alder"]


@with_registry
async def test_who_is_thrown_out_stays_out_until_it_is_readmitted(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    birch = await registry.joined("birch", BIRCH)
    await registry.admin.expunge(SOMEBODY, "alder")
    for _ in range(3):
        assert (await refused(alder.beat())).code == "expunged"
    assert (await birch.beat())["projects"]["engine"]["members"] == [BIRCH]
    token, _ = await registry.admin.create_token(SOMEBODY, "engine")
    assert (await refused(registry.service.join(token, "alder", alder.next(), ALDER))).code == "expunged"
    error = await refused(registry.service.join(token, "alder", alder.next(), ALDER, alder.credential))
    assert error.code == "expunged", "nor by its credential"
    await registry.core.flush()
    registry.again()
    await registry.core.start()
    assert (await refused(alder.beat())).code == "expunged", "nor after a restart"
    await registry.admin.readmit(SOMEBODY, "alder")
    await alder.beat()
    assert await birch.peers() == ["alder"]


@with_registry
async def test_a_host_is_moved_to_another_project(registry: Registry) -> None:
    alder = await registry.joined("alder", ALDER)
    birch = await registry.joined("birch", BIRCH)
    cedar = await registry.joined("cedar", CEDAR, "tools")
    await registry.admin.change_host(SOMEBODY, "alder", projects=["tools"])
    assert (await birch.peers(), await cedar.peers("tools")) == ([], ["alder"])
    answer = await alder.beat()
    assert answer["all"] == ["tools"]
    assert registry.core.credentials.read(answer["credential"]).projects == ("tools",)
    for projects in ([], ["tools", "tools"], ["nowhere"]):
        error = await refused(registry.admin.change_host(SOMEBODY, "alder", projects=projects))
        assert (error.status, error.field) == (422, "projects")


@with_registry
async def test_a_fixed_address_has_to_be_one_of_the_projects(registry: Registry) -> None:
    await registry.joined("alder", ALDER)
    for address in ("203.0.113.1", "127.0.0.1", "alder", "192.0.2.1/24", "192.0.2.1 ", "0.0.0.0", "::1"):
        error = await refused(registry.admin.change_host(SOMEBODY, "alder", address=address))
        assert (error.status, error.field) == (422, "address"), address
    assert registry.admin.host("alder").address == ALDER


@with_registry
async def test_a_beat_during_a_change_is_not_lost(registry: Registry) -> None:
    """While an operator's word is written, the host says something else."""
    alder = await registry.joined("alder", ALDER)
    apply = registry.store.apply
    seen: list[str] = []

    def slow(*arguments: Any, **values: Any) -> None:
        apply(*arguments, **values)
        seen.append("written")

    import asyncio

    registry.store.apply = slow  # type: ignore[method-assign]
    draining = asyncio.create_task(registry.admin.drain(SOMEBODY, "alder"))
    await asyncio.sleep(0)
    await alder.beat(slots=9)
    await draining
    host = registry.admin.host("alder")
    assert (host.drained, host.slots, seen) == (True, 9, ["written"])
    await registry.core.flush()
    assert (registry.store.open().hosts[0].slots, registry.store.open().hosts[0].drained) == (9, True)


@with_registry
async def test_secrets_are_shown_once_and_stored_nowhere(registry: Registry) -> None:
    await furnished(registry)
    token, kept_token = await registry.admin.create_token(SOMEBODY, "engine")
    key, kept_key = await registry.admin.create_key(SOMEBODY, "viewer")
    everything = repr(registry.store.records) + repr(await registry.admin.audit())
    for secret in (token, key, "correct horse battery"):
        assert secret not in everything
    assert kept_token.id in everything and kept_key.id in everything


@with_registry
async def test_keys_say_who_one_is(registry: Registry) -> None:
    await furnished(registry)
    viewer, kept = await registry.admin.create_key(SOMEBODY, "viewer")
    operator, _ = await registry.admin.create_key(SOMEBODY, "operator")
    token, _ = await registry.admin.create_token(SOMEBODY, "engine")
    by = registry.admin.who_has(viewer, ALDER)
    assert by == By(f"key:{kept.id}", False, ALDER)
    found = registry.admin.who_has(operator, ALDER)
    assert found is not None and found.may_change
    for nobodys in ("", token, viewer[:-1], viewer + "x", f"d1k_{kept.id}_{'A' * 43}"):
        assert registry.admin.who_has(nobodys, ALDER) is None
    await registry.admin.remove_key(SOMEBODY, kept.id)
    assert registry.admin.who_has(viewer, ALDER) is None


@with_registry
async def test_sign_in(registry: Registry) -> None:
    await furnished(registry)
    assert (await registry.admin.sign_in("ada", "correct horse battery", ALDER)).kind == "operator"
    texts = set()
    for name, password in (("ada", "wrong"), ("eve", "correct horse battery"), ("ada", ""), ("", "")):
        error = await refused(registry.admin.sign_in(name, password, ALDER))
        assert error.status == 403
        texts.add(str(error))
    assert len(texts) == 1, "it does not say which of both is wrong"
    error = await refused(registry.admin.put_operator(SOMEBODY, "eve", "short"))
    assert error.field == "password"
    error = await refused(registry.admin.put_operator(SOMEBODY, "Eve!", "long enough it is"))
    assert error.field == "name"
    with pytest.raises(Refused):
        await registry.admin.put_operator(SOMEBODY, "eve", "long enough it is", "root")


@with_registry
async def test_who_looks_on_hears_what_changes(registry: Registry) -> None:
    import asyncio

    alder = await registry.joined("alder", ALDER)
    heard: list[frozenset[str]] = []

    async def listen() -> None:
        async for news in registry.core.feed.subscribe():
            heard.append(news.hosts)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    await alder.beat(jobs=3)
    await registry.core.stop()
    await listening
    assert frozenset([alder.id]) in heard
    assert json.dumps([sorted(each) for each in heard])
