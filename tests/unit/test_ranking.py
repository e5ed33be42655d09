"""Rankings answer as if all hosts were sorted for each question."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from d1fleet.machines import HostState, Machine
from d1fleet.ranking import Ranking


@given(
    slots=st.lists(st.sampled_from([1, 2, 4, 40, 100]), min_size=1, max_size=8),
    steps=st.lists(
        st.tuples(st.integers(0, 7), st.sampled_from([0, 1, 2, 3, 39, 55, 60, 99]), st.integers(0, 3)),
        min_size=20,
        max_size=150,
    ),
    weight=st.sampled_from([1, 2, 3, 33, 50, 1000]),
    count=st.integers(1, 4),
    out=st.sets(st.integers(0, 7)),
)
def test_the_best_with_room(
    slots: list[int], steps: list[tuple[int, int, int]], weight: int, count: int, out: set[int]
) -> None:
    hosts = [HostState(f"h{order}", Machine(number), order) for order, number in enumerate(slots)]
    ranking = Ranking()
    keys: dict[HostState, float] = {}
    for which, used, key in steps:
        host = hosts[which % len(hosts)]
        host.machine.used = used % (host.machine.slots + 1)
        host.version += 1
        if host.machine.free:
            keys[host] = float(key)
            ranking.note(host, (keys[host],))
        else:
            keys.pop(host, None)
    fit = [
        host
        for host in keys
        if host.machine.free >= min(weight, host.machine.slots) and host.order not in out
    ]
    expected = sorted(fit, key=lambda host: (keys[host], host.order))[:count]
    for _ in range(2):  # to ask changes nothing
        assert ranking.best(weight, count, lambda host: host.order not in out) == expected
