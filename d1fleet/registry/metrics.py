"""Figures of the service, as Prometheus reads them. They have a registry of their own: two services in one
process, as in tests, count apart.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from .core import Core
from .model import State

CONTENT_TYPE = CONTENT_TYPE_LATEST

_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""A check-in takes less than a millisecond of work; what is beyond has waited for others."""


class Metrics:
    """What is counted, and what the core knows anyway."""

    def __init__(self, core: Core) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Core(core))
        self.checkins = Counter("d1fleet_checkins", "Check-ins that were taken", registry=self._registry)
        self.checkin_s = Histogram(
            "d1fleet_checkin_seconds",
            "How long check-ins take",
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._refused = Counter(
            "d1fleet_refused", "Requests that were refused, by reason", ["code"], registry=self._registry
        )
        self.turned_away = Counter(
            "d1fleet_connections_turned_away",
            "Connections that were closed at once, as there were too many",
            registry=self._registry,
        )

    def refused(self, code: str) -> None:
        """A request was refused; codes are words of ours, and few."""
        self._refused.labels(code).inc()

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self._registry)


class _Core(Collector):
    """What the core knows, read when it is asked for."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def collect(self) -> Iterator[Metric]:
        core = self._core
        hosts = GaugeMetricFamily("d1fleet_hosts", "Hosts by state and project", labels=["state", "project"])
        now_s = core.clocks.monotonic()
        found = Tally(
            (core.pool.state(host, now_s), project)
            for host in core.pool.hosts.values()
            for project in host.projects
        )
        for project in sorted(core.pool.projects):
            for state in State:
                hosts.add_metric([state.value, project], found[state, project])
        yield hosts
        yield GaugeMetricFamily("d1fleet_known_hosts", "Hosts", value=len(core.pool.hosts))
        yield GaugeMetricFamily("d1fleet_waiters", "Hosts that wait for news", value=core.waiters)
        yield CounterMetricFamily(
            "d1fleet_documents_worked_out",
            "Documents of projects that were worked out",
            value=core.pool.worked_out,
        )
        yield GaugeMetricFamily(
            "d1fleet_database_trouble", "Whether the database cannot be written", value=bool(core.trouble)
        )
        yield GaugeMetricFamily(
            "d1fleet_feed_subscribers", "Panels and others that look on", value=len(core.feed)
        )
