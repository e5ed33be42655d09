"""The parts that need no podman: what is refused, what is chosen, what is written."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.containers import Host, Settings, debs, image, links, registry
from tests.containers.errors import ContainerError, ImageUnavailable, NotOurs
from tests.containers.owner import Owner
from tests.containers.recipe import RELEASES, VARIANTS, recipe
from tests.containers.subnets import Network, choose_ipv4, choose_ipv6, taken_networks

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def interfaces(tmp_path: Path) -> Path:
    """What /sys/class/net looks like on a machine with one test host and interfaces of its own."""
    net = tmp_path / "net"
    numbers = {
        "eth0": (2, 2),
        "cni-podman1": (5, 5),
        "br0": (6, 6),
        "veth1": (7, 3),
        "veth2": (8, 3),
        "tap0": (9, 9),
    }
    for name, (number, peer) in numbers.items():
        (net / name).mkdir(parents=True)
        (net / name / "ifindex").write_text(f"{number}\n")
        (net / name / "iflink").write_text(f"{peer}\n")
    for bridge in ("cni-podman1", "br0"):
        (net / bridge / "bridge").mkdir()
    for port, master in {
        "veth1": "cni-podman1",
        "veth2": "br0",
        "tap0": "cni-podman1",
        "eth0": "br0",
    }.items():
        (net / port / "master").symlink_to(f"../{master}")
    return net


@pytest.mark.parametrize(
    ("interface", "bridge"),
    [
        ("eth0", "br0"),  # the machine's own
        ("eth0", "cni-podman1"),
        ("tap0", "cni-podman1"),  # on the right bridge, and no veth
        ("veth2", "cni-podman1"),  # on another bridge
        ("veth2", "br0"),  # on a bridge that is not podman's
        ("veth3", "cni-podman1"),  # not there
        ("cni-podman1", "cni-podman1"),
    ],
)
def test_no_link_but_a_veth_of_ours_is_touched(interfaces: Path, interface: str, bridge: str) -> None:
    with pytest.raises(NotOurs):
        links.check_ours(interface, bridge, interfaces)


def test_a_veth_of_ours_may_be_touched(interfaces: Path) -> None:
    links.check_ours("veth1", "cni-podman1", interfaces)


def test_the_machines_own_interface_is_refused() -> None:
    before = Path("/sys/class/net/lo/flags").read_text()
    with pytest.raises(NotOurs):
        links.set_link("lo", "cni-podman1", up=False)
    assert Path("/sys/class/net/lo/flags").read_text() == before


@pytest.mark.parametrize(
    ("iflink", "ifindex", "error"),
    [
        ("7", "3", None),
        ("7", "2", NotOurs),  # its other end is another interface
        ("2", "3", NotOurs),  # the number is that of the machine's own in its namespace
        ("9", "9", NotOurs),
        ("77", "3", ContainerError),
        ("", "", ContainerError),
    ],
)
def test_the_hosts_end_of_a_link(
    interfaces: Path, tmp_path: Path, iflink: str, ifindex: str, error: type[Exception] | None
) -> None:
    inside = tmp_path / "proc/123/root/sys/class/net/eth0"
    inside.mkdir(parents=True)
    (inside / "iflink").write_text(iflink)
    (inside / "ifindex").write_text(ifindex)
    if error is None:
        assert links.host_end(123, "cni-podman1", interfaces, tmp_path / "proc") == "veth1"
    else:
        with pytest.raises(error):
            links.host_end(123, "cni-podman1", interfaces, tmp_path / "proc")


def test_a_subnet_is_free() -> None:
    taken: list[Network] = []
    for _ in range(20):
        chosen = choose_ipv4(taken, "one seed")
        assert not any(chosen.overlaps(other) for other in taken)
        assert chosen.prefixlen == 24 and chosen.is_private
        taken.append(chosen)
    half = ipaddress.ip_network("10.128.0.0/10")
    assert not any(choose_ipv4([half], str(seed)).overlaps(half) for seed in range(50))
    with pytest.raises(ContainerError):
        choose_ipv4([ipaddress.ip_network("10.0.0.0/8")], "")


def test_an_ipv6_subnet_is_free() -> None:
    first = choose_ipv6([], "one seed")
    assert first.is_private and first.prefixlen == 64
    assert choose_ipv6([], "one seed") == first
    assert not choose_ipv6([first], "one seed").overlaps(first)


@pytest.mark.containers
def test_what_this_machine_uses_is_taken() -> None:
    assert ipaddress.ip_network("127.0.0.0/8") in taken_networks()
    assert all(network.prefixlen for network in taken_networks())


def test_an_owner_is_told_from_a_later_process_of_its_number() -> None:
    me = Owner.me()
    assert me.is_alive() and Owner.parse(str(me)) == me
    assert not Owner(me.pid, me.started_ticks - 1, me.boot).is_alive()
    assert not Owner(me.pid, me.started_ticks, "another boot").is_alive()
    assert Owner.parse("") is None and Owner.parse("x:y:z") is None


def test_an_owner_that_waits_to_be_reaped_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not Owner(child.pid, 0, Owner.me().boot).is_alive()


@pytest.mark.parametrize(
    "settings",
    [
        {"name": ""}, {"name": "../x"}, {"name": "A"}, {"name": "a b"}, {"name": "a", "count": 0},
        {"name": "a", "count": 201}, {"name": "a", "release": "sid"}, {"name": "a", "variant": "big"},
        {"name": "a", "cpus": -1}, {"name": "a", "volumes": ["relative"]}, {"name": "a", "volumes": ["/a:b"]},
        {"name": "a", "variant": "bare", "sshfs": "/tmp"},
        {"name": "a", "count": 2, "release": "bookworm,sid"},
        {"name": "a", "count": 3, "release": "bookworm,trixie"},
    ],
)  # fmt: skip
def test_settings_that_make_no_fleet(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Settings(**settings)  # type: ignore[arg-type]


def test_a_folder_that_is_no_fleets_is_not_removed(tmp_path: Path) -> None:
    folder = tmp_path / "precious"
    folder.mkdir()
    with pytest.raises(NotOurs):
        registry.remove(registry.Found("precious", folder=folder))
    assert folder.exists()


def test_recipes_have_keys_of_their_own() -> None:
    recipes = [recipe(release, variant, "http://a") for release in RELEASES for variant in VARIANTS]
    recipes.append(recipe("bookworm", "bare", "http://b"))
    assert len({one.key for one in recipes}) == len(recipes)
    assert recipe("bookworm", "bare", "http://a").key == recipes[0].key


FAKE = """#!/bin/sh
echo x >> "$COUNT"
sleep 0.5
[ -z "$FAIL" ] || { echo "E: no mirror" >&2; exit 1; }
for last in "$@"; do case $last in *.tar) : > "$last" ;; esac; done
"""

MAKE_IMAGE = """
from tests.containers.image import image_tar
from tests.containers.recipe import recipe
print(image_tar(recipe("bookworm", "bare", "http://mirror.invalid")))
"""


@pytest.fixture
def fake_mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for mmdebstrap; returns the file in which each of its runs leaves a line."""
    program = tmp_path / "bin/mmdebstrap"
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    return tmp_path / "count"


def test_two_at_once_make_one_image(fake_mmdebstrap: Path) -> None:
    both = [
        subprocess.Popen([sys.executable, "-c", MAKE_IMAGE], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in both]
    assert said[0] == said[1] and Path(said[0].strip()).exists()
    assert fake_mmdebstrap.read_text() == "x\n"
    assert not list(Path(said[0].strip()).parent.glob("work-*"))


def test_an_image_that_is_too_old_is_made_again(
    fake_mmdebstrap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe("bookworm", "bare", "http://mirror.invalid")
    tar = image.image_tar(wanted)
    old = tar.stat().st_mtime - image.MAX_AGE_S - 60
    os.utime(tar, (old, old))
    monkeypatch.setenv("FAIL", "1")
    assert image.image_tar(wanted).stat().st_mtime == pytest.approx(old)  # better than none
    monkeypatch.delenv("FAIL")
    assert image.image_tar(wanted).stat().st_mtime > old + 60
    assert fake_mmdebstrap.read_text() == "x\n" * 3


def test_no_image_without_a_mirror(fake_mmdebstrap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(ImageUnavailable, match="E: no mirror"):
        image.image_tar(recipe("trixie", "bare", "http://mirror.invalid"))


def test_packages_are_lent_and_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lent = debs.lend(tmp_path / "one", "bookworm", "h1")
    (lent / "a.deb").write_text("a")
    (lent / "partial").mkdir()
    (lent / "partial" / "b.deb").write_text("half")
    debs.take_back(tmp_path / "one")
    again = debs.lend(tmp_path / "two", "bookworm", "h1")
    assert [path.name for path in again.iterdir()] == ["a.deb"]
    assert list(debs.lend(tmp_path / "two", "trixie", "h1").iterdir()) == []


@pytest.mark.parametrize(
    ("failures", "said", "tries"),
    [(2, "unable to freeze", 3), (9, "unable to freeze", 4), (9, "no such container", 1)],
)
def test_a_freeze_is_tried_again_where_that_can_help(
    monkeypatch: pytest.MonkeyPatch, failures: int, said: str, tries: int
) -> None:
    host, asked = Host("h1", "192.0.2.1", "none", "bridge"), []

    def podman(*arguments: str) -> None:
        asked.append(arguments)
        if len(asked) <= failures:
            raise ContainerError(said)

    monkeypatch.setattr(host, "_podman", podman)
    with contextlib.nullcontext() if tries > failures else pytest.raises(ContainerError, match=said):
        host.pause()
    assert asked == [("pause", "none")] * tries
