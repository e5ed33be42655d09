"""The registry breaks in the middle of builds by distcc: they go on, nothing that was acknowledged is lost,
and the pool is whole again within two beats of its return.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .members import WITHIN_S, Site, site, within

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(2400)]

HOSTS = ("h1", "h2", "h3")
TWO_BEATS_S = 2 * 15 * 1.2
"""With all their jitter."""

FILES = 60
TREE = f"""
mkdir -p /tmp/flat && cd /tmp/flat && rm -rf *
for n in $(seq {FILES}); do
  for m in $(seq 400); do echo "int f${{n}}_$m(int x) {{ return x * $m + $n; }}"; done >f$n.c
done
echo 'all: $(patsubst %.c,%.o,$(wildcard *.c))' >Makefile
echo '%.o: %.c ; @sleep 1; gcc -O2 -c -o $@ $<' >>Makefile
make -s -j8 CC=gcc all >/dev/null && sha256sum *.o >../alone && rm *.o
"""
BUILD = """
cd /tmp/flat && rm -f *.o log && export PATH=/usr/lib/distcc:$PATH DISTCC_LOG=/tmp/flat/log
make -s -j3 all >/dev/null && sha256sum --quiet -c ../alone && grep -c 'completed ok' log
"""


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("r")
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=755", "tmpfs", str(disk)], check=True)
    try:
        with site("trouble", disk, len(HOSTS)) as found:
            found.join_all(HOSTS, "engine")
            within(WITHIN_S, lambda: found.right("engine", HOSTS))
            found.on("h1", TREE, limit_s=300)
            yield found
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def during_a_build(joined: Site, trouble: Callable[[], None]) -> None:
    """Do something while h1 builds; its objects are right, and others have compiled most of them."""
    with ThreadPoolExecutor(1) as pool:
        built = pool.submit(joined.on, "h1", BUILD, limit_s=300)
        within(
            30,
            lambda: (
                "" if joined.on("h1", "ls /tmp/flat/*.o 2>/dev/null | head -1; :") else "nothing is built"
            ),
        )
        trouble()
        assert not built.done(), "the build was over before the trouble was"
        assert int(built.result()) >= FILES - 2


def up(joined: Site) -> str:
    """Who is not up, and whose files are wrong."""
    states = {host["name"]: host["state"] for host in joined.registry.ask("host", "list")}
    return "" if set(states.values()) == {"up"} and len(states) == len(HOSTS) else str(states)


def whole(joined: Site) -> str:
    return up(joined) or joined.right("engine", HOSTS)


def test_it_is_killed(joined: Site) -> None:
    during_a_build(joined, joined.registry.kill)
    assert joined.right("engine", HOSTS) == ""
    joined.registry.start()
    within(TWO_BEATS_S, lambda: whole(joined))


def test_its_disk_is_full(joined: Site) -> None:
    stuffing = joined.registry.data.parent / "stuffing"

    def fill() -> None:
        with stuffing.open("wb") as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"x" * 65536)
                file.flush()
        said = joined.registry.command(
            *(
                "registry",
                "project",
                "create",
                "late",
                "--range",
                "192.0.2.0/24",
                "--data",
                str(joined.registry.data),
            ),
            check=False,
        )
        assert said == ""

    during_a_build(joined, fill)
    assert up(joined) == "", "hosts check in all the same"
    assert [each["name"] for each in joined.registry.ask("project", "list")] == ["engine"]
    stuffing.unlink()
    joined.registry.ask("project", "create", "late", "--range", "192.0.2.0/24")
    joined.registry.kill()
    joined.registry.start()
    assert [each["name"] for each in joined.registry.ask("project", "list")] == ["engine", "late"]
    joined.registry.ask("project", "delete", "late", "--yes")
    within(TWO_BEATS_S, lambda: whole(joined))


def _database(joined: Site) -> list[Path]:
    return sorted(joined.registry.data.glob("registry.db*"))


def test_its_database_is_deleted_while_it_runs(joined: Site) -> None:
    def delete() -> None:
        for each in _database(joined):
            each.unlink()

    during_a_build(joined, delete)
    within(WITHIN_S, lambda: "" if _database(joined) else "there is no new database")
    assert whole(joined) == ""
    joined.registry.kill()
    joined.registry.start()
    within(TWO_BEATS_S, lambda: whole(joined))


def test_its_database_is_lost_and_a_backup_brings_the_projects_back(joined: Site, tmp_path: Path) -> None:
    """Made before one of the hosts had joined: that one comes back by itself, too."""
    backup = tmp_path / "backup"
    joined.registry.ask("host", "forget", "h3", "--yes")
    joined.registry.command("registry", "backup", str(backup), "--data", str(joined.registry.data))
    joined.on("h3", "systemctl stop d1fleet-checkin; rm -f /var/lib/d1fleet-checkin/*")
    joined.join("h3", "engine")
    within(WITHIN_S, lambda: whole(joined))
    joined.registry.stop()
    for each in _database(joined):
        each.unlink()
    joined.registry.start()
    joined.registry.stop()
    assert joined.right("engine", HOSTS) == "", "without projects nobody is told anything"
    joined.registry.command("registry", "restore", str(backup), "--data", str(joined.registry.data))
    joined.registry.start()
    within(TWO_BEATS_S, lambda: whole(joined))


CUT = " && ".join(
    [
        "nft add table inet cut",
        "nft add chain inet cut o '{ type filter hook output priority 0; }'",
        "nft add rule inet cut o tcp dport 33333 drop",
    ]
)


def test_it_cannot_be_reached_and_a_peer_dies(joined: Site) -> None:
    def cut() -> None:
        for host in HOSTS:
            joined.on(host, CUT)

    during_a_build(joined, cut)
    assert joined.right("engine", HOSTS) == "", "the last good files stay"
    joined.on("h3", "systemctl stop d1fleet-distcc")
    within(150, lambda: "" if set(joined.peers("h1", "engine")) == {"h2"} else "h1 has h3 still")
    joined.on("h3", "systemctl start d1fleet-distcc")
    within(150, lambda: joined.right("engine", HOSTS))
    for host in HOSTS:
        joined.on(host, "nft delete table inet cut")
    within(TWO_BEATS_S, lambda: whole(joined))


def test_nothing_secret_is_in_its_log(joined: Site) -> None:
    token = joined.registry.token("engine")
    text = joined.registry.log.read_text()
    assert "audit" in text
    for line in text.splitlines():
        assert line.startswith("d1fleet:") or json.loads(line)
    assert token not in text and "d1j_" not in text and "Bearer" not in text
