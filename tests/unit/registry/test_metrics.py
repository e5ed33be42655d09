"""Figures for Prometheus."""

from __future__ import annotations

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from d1fleet.registry.store import StoreError

from .memory_store import ALDER, BIRCH, SOMEBODY
from .web import ADMIN, Web, settled, until, with_web


async def _read(web: Web) -> dict[str, float]:
    viewer = await web.operator("viewer")
    answer = await viewer.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        sample.name
        + "".join(f" {name}={sample.labels[name]}" for name in sorted(sample.labels)): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@with_web
async def test_what_is_counted(web: Web) -> None:
    before = await _read(web)
    assert before["d1fleet_known_hosts"] == 0
    alder = await web.host()
    await web.host("birch", BIRCH)
    await web.registry.admin.drain(SOMEBODY, "birch")
    known = {"engine": (await alder.beat()).json()["projects"]["engine"]["revision"]}
    await settled(web)
    stranger = await web.client()
    for _ in range(3):
        await stranger.get(f"{ADMIN}/hosts")
    await stranger.get("/nothing")
    waiting = asyncio.create_task(alder.wait(known))
    await until(lambda: web.registry.core.waiters == 1)
    found = await _read(web)
    assert found["d1fleet_hosts project=engine state=up"] == 1
    assert found["d1fleet_hosts project=engine state=drained"] == 1
    assert found["d1fleet_hosts project=engine state=gone"] == 0
    assert found["d1fleet_known_hosts"] == 2
    assert found["d1fleet_checkins_total"] == 1
    assert found["d1fleet_checkin_seconds_count"] == 1
    assert found["d1fleet_checkin_seconds_bucket le=+Inf"] == 1
    assert found["d1fleet_refused_total code=key"] == 3
    assert found["d1fleet_refused_total code=path"] == 1
    assert found["d1fleet_waiters"] == 1
    assert found["d1fleet_documents_worked_out_total"] == web.registry.core.pool.worked_out > 0
    assert found["d1fleet_feed_subscribers"] == 0
    assert found["d1fleet_database_trouble"] == 0
    web.shared.end()
    await waiting


@with_web
async def test_trouble_with_the_database(web: Web) -> None:
    operator = await web.operator()
    web.store.fault = StoreError("no space")
    await operator.post(f"{ADMIN}/projects", json={"name": "engine", "ranges": ["192.0.2.0/24"]})
    answer = await operator.get("/metrics")
    assert "d1fleet_database_trouble 1.0" in answer.text
    assert 'd1fleet_refused_total{code="database"} 1.0' in answer.text
    assert ALDER not in answer.text
