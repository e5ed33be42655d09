"""Five hosts that join, leave, move and break: each peer's file is right within seconds, and a compilation
from and to each host works, or is refused, as it should.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.containers.podman import podman

from .members import GONE_WITHIN_S, WITHIN_S, Site, network, site, within

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(2400)]

ENGINE = ("h1", "h2", "h3")
TOOLS = ("h3", "h4", "h5")
"""h3 is in both."""


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site("registry", tmp_path_factory.mktemp("r"), 5) as found:
        found.registry.ask("project", "create", "tools", "--range", network(found.hosts))
        found.join_all(("h1", "h2"), "engine")
        found.join_all(("h4", "h5"), "tools")
        found.join("h3", "engine")
        found.join("h3", "tools")
        yield found


def _all_right(joined: Site) -> str:
    return joined.right("engine", ENGINE) or joined.right("tools", TOOLS)


@pytest.fixture(autouse=True)
def in_order(joined: Site) -> None:
    """What a test before has left behind is no reason for the next one to fail."""
    for host, project in (("h1", "engine"), ("h2", "engine")):
        joined.registry.ask("host", "change", host, "--project", project)
        joined.registry.ask("host", "undrain", host)
    within(120, lambda: _all_right(joined))


def test_whoever_has_joined_compiles_for_its_project_and_for_nobody_else(joined: Site) -> None:
    within(WITHIN_S, lambda: _all_right(joined))
    for host, to in (("h1", "h2"), ("h2", "h1"), ("h3", "h1"), ("h1", "h3"), ("h5", "h4"), ("h3", "h5")):
        assert joined.compiles(host, to), f"{host} cannot compile on {to}"
    for host, to in (("h1", "h4"), ("h5", "h2"), ("h4", "h1")):
        assert not joined.compiles(host, to), f"{host} compiles on {to}, which is in another project"


def test_a_host_that_is_shut_down_and_comes_back(joined: Site) -> None:
    joined.on("h2", "systemctl stop d1fleet-checkin")
    within(WITHIN_S, lambda: joined.right("engine", ("h1", "h3")))
    assert joined.registry.host("h2")["state"] == "left"
    joined.on("h2", "systemctl start d1fleet-checkin")
    within(WITHIN_S, lambda: _all_right(joined))
    assert joined.compiles("h1", "h2")


def test_a_host_that_gets_another_address(joined: Site) -> None:
    host = joined.hosts["h1"]
    before = host.address
    other = before.rpartition(".")[0] + ".200"
    named = podman(
        "inspect", "--format", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{end}}", host.container
    )
    net = named.stdout.strip()
    for address in (other, before):
        podman("network", "disconnect", net, host.container)
        podman("network", "connect", "--ip", address, net, host.container)
        host.address = address
        within(WITHIN_S, lambda: joined.right("engine", ENGINE))
        assert joined.compiles("h2", "h1")
        assert joined.compiles("h1", "h2")


def test_a_host_that_gets_other_slots(joined: Site) -> None:
    joined.on("h2", 'sed -i \'s/"slots": [^,]*/"slots": 7/\' /etc/d1fleet/checkin.json')
    within(WITHIN_S, lambda: "" if joined.peers("h1", "engine")["h2"].split("/")[1] == "7,lzo" else "not yet")
    joined.on("h2", 'sed -i \'s/"slots": [^,]*/"slots": null/\' /etc/d1fleet/checkin.json')
    within(WITHIN_S, lambda: "" if joined.peers("h1", "engine")["h2"].split("/")[1] != "7,lzo" else "not yet")


def test_a_host_that_is_moved_to_another_project(joined: Site) -> None:
    joined.registry.ask("host", "change", "h1", "--project", "tools")
    within(WITHIN_S, lambda: joined.right("engine", ("h2", "h3")) or joined.right("tools", (*TOOLS, "h1")))
    assert joined.compiles("h1", "h4")
    assert joined.compiles("h5", "h1")
    assert not joined.compiles("h1", "h2")
    assert not joined.compiles("h2", "h1")
    assert joined.on("h1", "ls /etc/d1fleet/hosts").split() == ["tools"]
    joined.registry.ask("host", "change", "h1", "--project", "engine")
    within(WITHIN_S, lambda: _all_right(joined))


def test_a_host_that_is_drained_sends_work_and_gets_none(joined: Site) -> None:
    joined.registry.ask("host", "drain", "h2")
    within(WITHIN_S, lambda: "" if "h2" not in joined.peers("h1", "engine") else "h1 has it still")
    assert joined.compiles("h2", "h1")
    joined.registry.ask("host", "undrain", "h2")
    within(WITHIN_S, lambda: _all_right(joined))


def test_a_host_that_is_thrown_out_reaches_nobody_until_it_is_readmitted(joined: Site) -> None:
    joined.registry.ask("host", "expunge", "h2")
    within(
        WITHIN_S,
        lambda: (
            joined.right("engine", ("h1", "h3")) or ("h2 has peers" if joined.peers("h2", "engine") else "")
        ),
    )
    assert not joined.compiles("h2", "h1")
    assert not joined.compiles("h1", "h2")
    joined.registry.ask("host", "readmit", "h2")
    within(30, lambda: _all_right(joined))
    assert joined.compiles("h2", "h1")


def test_a_host_that_dies_is_gone_in_time_and_comes_back_by_itself(joined: Site) -> None:
    host = joined.hosts["h4"]
    host.kill()
    within(GONE_WITHIN_S, lambda: joined.right("tools", ("h3", "h5")))
    assert joined.compiles("h3", "h5")
    host.start()
    within(30, lambda: _all_right(joined))
    assert joined.compiles("h5", "h4")


def test_a_lost_beat_removes_nobody(joined: Site) -> None:
    """A host that is not heard for one beat and a half."""
    host = joined.hosts["h5"]
    host.pause()
    try:
        wrong = joined.right("tools", ("h3", "h4", "h5")[:2])
        assert wrong, "it is a peer still"
        with pytest.raises(AssertionError):
            within(22, lambda: joined.right("tools", ("h3", "h4")))
    finally:
        host.unpause()
    within(WITHIN_S, lambda: _all_right(joined))


def test_after_a_restart_of_the_registry_everything_is_right(joined: Site) -> None:
    joined.registry.stop()
    assert _all_right(joined) == "", "hosts files stay while it is away"
    joined.registry.start()
    within(
        2 * 18,
        lambda: "" if all(joined.registry.host(f"h{n}")["state"] == "up" for n in range(1, 6)) else "no",
    )
    assert _all_right(joined) == ""
    joined.registry.kill()
    joined.registry.start()
    joined.on("h2", "systemctl restart d1fleet-checkin")
    within(2 * 18, lambda: _all_right(joined))
    for each in range(1, 6):
        assert joined.registry.host(f"h{each}")["state"] == "up"


def test_hosts_that_are_started_anew_have_right_files(joined: Site) -> None:
    joined.on("h3", "systemctl reboot || true", check=False)
    within(60, lambda: "" if joined.hosts["h3"].state() != "running" else "still there")
    joined.hosts["h3"].start()
    within(60, lambda: _all_right(joined))
    assert joined.compiles("h1", "h3")
    assert joined.compiles("h3", "h5")


def test_a_host_that_leaves_is_as_it_was_before(joined: Site) -> None:
    joined.leave("h2")
    within(WITHIN_S, lambda: joined.right("engine", ("h1", "h3")))
    assert joined.on("h2", "ls -d /etc/d1fleet /usr/local/lib/d1fleet /etc/distcc/hosts 2>/dev/null; :") == ""
    assert (
        joined.on("h2", "getent passwd d1fleet-checkin; systemctl cat d1fleet-checkin 2>/dev/null; :") == ""
    )
    assert all(host["name"] != "h2" for host in joined.registry.ask("host", "list"))
