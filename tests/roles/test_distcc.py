"""distcc on three enrolled hosts: right hosts files, one nice value, and nobody in or out who should not."""

from __future__ import annotations

import os
import re
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.roles.roles import Play
from tests.roles.site import Site, bare_site

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(1800)]

FILE = "/etc/d1fleet/hosts/demo"
LIB = "/usr/local/lib/d1fleet/distcc"
UNIT = "d1fleet-distcc.service"
NICE = 7
SLOTS = len(os.sched_getaffinity(0))
"""Of a host that nobody has set any for: the processors of this machine."""
LIMIT_S = 30.0


@dataclass
class Enrolled:
    site: Site
    first: Play
    second: Play
    checked: Play

    def refresh(self, *arguments: str, **variables: Any) -> Play:
        """With NICE, unless that is given: as None, the inventory's counts."""
        playbook, self.site.playbook = self.site.playbook, "playbooks/refresh.yml"
        try:
            given = {"d1fleet_nice": NICE, **variables}
            return self.site.play(
                *arguments, **{name: each for name, each in given.items() if each is not None}
            )
        finally:
            self.site.playbook = playbook


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enrolled]:
    def builders(public: str) -> list[dict[str, Any]]:
        return [{"name": "root", "uid": 0, "authorized_keys": [public]}]

    with bare_site("distcc", tmp_path_factory.mktemp("d"), builders) as site:
        settings = {"d1fleet_nice": NICE}
        yield Enrolled(site, site.play(**settings), site.play(**settings), site.play("--check", **settings))


def until(found: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
    end = time.monotonic() + limit_s
    while not found():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.2)


def _peers(site: Site, host: str, file: str = FILE) -> list[str]:
    lines = site.on(host, f"cat {file}").splitlines()
    return [line.split()[-1] for line in lines if re.match(r"[\d\[]", line)]


def _runs(site: Site, host: str) -> str:
    """The server's pid; 0 where it does not run."""
    return site.on(host, f"systemctl show -P MainPID {UNIT}").strip()


def test_a_second_run_changes_nothing_and_check_mode_is_clean(enrolled: Enrolled) -> None:
    assert enrolled.first.code == 0, enrolled.first.text
    assert enrolled.second.code == 0
    assert enrolled.second.total("changed") == 0, enrolled.second.text
    assert enrolled.checked.code == 0
    assert enrolled.checked.total("changed") == 0, enrolled.checked.text


def test_each_member_has_the_others_and_begins_with_another(enrolled: Enrolled) -> None:
    site = enrolled.site
    assert [_peers(site, host.name) for host in site.hosts] == [["h2", "h3"], ["h3", "h1"], ["h1", "h2"]]
    assert set(site.everywhere(f"cmp {FILE} /etc/distcc/hosts && distcc -j")) == {f"{3 * SLOTS}\n"}
    text = site.on("h1", f"cat {FILE}")
    assert f"localhost/{SLOTS}\n" in text
    assert f"{site.hosts['h2'].address}/{SLOTS},lzo" in text


FLAT = """mkdir -p /tmp/flat && cd /tmp/flat && rm -f *
for n in $(seq 24); do echo "int f$n(int x) { return x * $n; }" >f$n.c; done
echo 'OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))' >Makefile
echo 'all: $(OBJECTS)' >>Makefile
echo '%.o: %.c ; @gcc -O2 -c -o $@ $<' >>Makefile
make -s all && sha256sum *.o >../alone && rm *.o
export PATH=/usr/lib/distcc:$PATH
export DISTCC_LOG=/tmp/flat/log DISTCC_FALLBACK=0
make -s -j $(distcc -j) && sha256sum --quiet -c ../alone && cat log
"""


def test_as_it_was_used_before_us(enrolled: Enrolled) -> None:
    """Masquerade and `distcc -j`, on all hosts, with the same objects; without us."""
    site = enrolled.site
    log = site.on("h1", FLAT)
    done = re.findall(r"compile f\d+\.c on (\S+) completed ok", log)
    assert len(done) == 24
    assert {each.split("/")[0] for each in done} == {
        "localhost",
        site.hosts["h2"].address,
        site.hosts["h3"].address,
    }


def _from(site: Site, host: str, to: str, command: str, *, check: bool = True) -> str:
    """Have one host send another a compilation, and nobody else."""
    words = f"export DISTCC_HOSTS={site.hosts[to].address}/1,lzo DISTCC_FALLBACK=0 DISTCC_SKIP_LOCAL_RETRY=1"
    return site.on(host, f"cd /tmp; rm -rf ~/.distcc; {words}; {command}", check=check)


def test_what_a_client_has_run_is_confined(enrolled: Enrolled) -> None:
    """distcc's list of compilers stops nobody: gcc runs what -wrapper says."""
    site = enrolled.site
    site.everywhere(
        "mkdir -p /home/ada && echo secret >/home/ada/key && chmod -R a+rX /home/ada\n"
        "cat >/usr/local/bin/payload <<'E'\n"
        "#!/bin/sh\n"
        '[ "$(id -un)" = root ] && exec "$@"\n'
        "{ echo user $(id -un); ps -o ni= -p $$\n"
        "cat /home/ada/key /etc/d1fleet/hosts/demo /etc/ssh/sshd_config && echo READ\n"
        "for f in /usr /etc /run/lock /dev/shm /var/lib /home; do touch $f/x && echo WROTE $f; done\n"
        "touch /tmp/own && echo own\n"
        f"for a in 127.0.0.1 {' '.join(host.address for host in site.hosts)}; do\n"
        'for p in 22 3632; do timeout 3 bash -c ": </dev/tcp/$a/$p" && echo REACHED $a $p; done; done\n'
        "unshare -rm true && echo UNSHARED\n"
        "for p in $(pgrep -x distccd); do head -c 1 /proc/$p/mem; : <>/proc/$p/mem && echo LOOKED; done\n"
        "setsid timeout 30 python3 -m http.server -d /usr/share 4444 >/dev/null 2>&1 & sleep 1; } >&2 2>&1\n"
        'exec "$@"\n'
        "E\n"
        "chmod 755 /usr/local/bin/payload"
    )
    said = _from(
        site,
        "h1",
        "h2",
        "echo 'int x;' >a.c; distcc gcc -wrapper /usr/local/bin/payload -c a.c -o a.o 2>&1; ls -l a.o",
    )
    assert "user distccd" in said
    assert "a.o" in said.splitlines()[-1]
    assert "own" in said
    assert not re.search("READ|WROTE|REACHED|UNSHARED|LOOKED|secret", said), said
    assert site.on("h2", "ls /tmp/own /var/tmp/own; :") == ""
    # What it has left listening answers nobody, neither a stranger nor a user of that host.
    assert "http.server" in site.on("h2", "ps -eo args")
    assert not _answers(site, "h2", 4444)
    assert site.on("h2", "timeout 3 bash -c ': </dev/tcp/127.0.0.1/4444' && echo in; :") == ""
    # The whole host may be niced.
    nice = NICE + int(site.on("h2", "ps -o ni= -p 1"))
    assert re.search(rf"^ *{nice}$", said, re.M), said


CROSS = "/opt/cross/bin/arm-test-gcc"


def test_a_cross_compiler_outlives_a_change_of_gcc(enrolled: Enrolled) -> None:
    site = enrolled.site
    script = '#!/bin/sh\\nexec /usr/bin/gcc -DCROSS=1 "$@"\\n'
    site.everywhere(f"mkdir -p /opt/cross/bin; printf '{script}' >{CROSS}; chmod +x {CROSS}")
    settings = {"d1fleet_nice": NICE, "d1fleet_toolchain_tools": [CROSS]}
    done = site.play(**settings)
    assert done.code == 0, done.text
    assert site.play(**settings).total("changed") == 0
    site.everywhere("apt-get -q install -y --reinstall gcc-12 >/dev/null 2>&1; update-distcc-symlinks")
    said = _from(
        site,
        "h1",
        "h3",
        "PATH=/usr/lib/distcc:$PATH; echo 'int x = CROSS;' >c.c; arm-test-gcc -c c.c -o c.o 2>&1 && ls c.o",
    )
    assert said == "c.o\n"
    assert "arm-test-gcc c.c" in site.on("h3", f"journalctl -u {UNIT} -o cat")
    assert "COMPILE_OK" in site.on("h3", f"journalctl -u {UNIT} -o cat | grep arm-test-gcc")
    assert site.play(**{**settings, "d1fleet_toolchain_tools": []}).code == 0
    assert site.on("h1", "ls /usr/lib/distcc").count("arm-test") == 0


def test_who_is_no_member_is_not_let_in(enrolled: Enrolled) -> None:
    """This machine is in the hosts' network, which --allow names, and is no member."""
    site = enrolled.site
    assert _answers(site, "h2", 22)
    assert not _answers(site, "h2", 3632)
    before = site.on("h2", f"journalctl -u {UNIT} -o cat | wc -l")
    assert not _answers(site, "h2", 3632)
    assert site.on("h2", f"journalctl -u {UNIT} -o cat | wc -l") == before


def _answers(site: Site, host: str, port: int) -> bool:
    try:
        with socket.create_connection((site.hosts[host].address, port), 2):
            return True
    except OSError:
        return False


def test_without_its_table_the_server_does_not_run(enrolled: Enrolled) -> None:
    site = enrolled.site
    before = _runs(site, "h3")
    assert before != "0"
    site.on("h3", "nft flush ruleset")
    until(lambda: _runs(site, "h3") == "0", "the server's end")
    until(lambda: _runs(site, "h3") not in ("0", before), "the server with its table")
    assert site.hosts["h1"].address in site.on("h3", "nft list table inet d1fleet_distcc")


def test_a_new_address_reaches_all_without_a_restart(enrolled: Enrolled) -> None:
    site = enrolled.site
    old = site.hosts["h3"].address
    new = re.sub(r"\d+$", "77", old)
    site.on("h3", f"ip address add {new}/24 dev eth0")
    pids = [_runs(site, host.name) for host in site.hosts]
    (site.folder / "more" / "host_vars").mkdir(exist_ok=True)
    (site.folder / "more" / "host_vars" / "h3.yml").write_text(f"d1fleet_address: {new}\n")
    try:
        done = enrolled.refresh()
        assert done.code == 0, done.text
        assert all(f"{new}/{SLOTS}" in site.on(host, f"cat {FILE}") for host in ("h1", "h2"))
        assert new in site.on("h1", "nft list set inet d1fleet_distcc members4")
        assert [_runs(site, host.name) for host in site.hosts] == pids
        assert enrolled.refresh().total("changed") == 0
    finally:
        (site.folder / "more" / "host_vars" / "h3.yml").unlink()
        site.on("h3", f"ip address del {new}/24 dev eth0")
    assert enrolled.refresh().code == 0
    assert f"{old}/{SLOTS}" in site.on("h1", f"cat {FILE}")


def test_a_host_that_is_off_and_limit_lose_no_entry(enrolled: Enrolled) -> None:
    site = enrolled.site
    whole = site.on("h1", f"cat {FILE}")
    site.hosts["h3"].kill()
    try:
        assert enrolled.refresh().counts["h3"]["unreachable"] == 1
        assert site.on("h1", f"cat {FILE}") == whole
        done = enrolled.refresh("--limit", "h1", d1fleet_slots=SLOTS + 1)
        assert done.code == 0, done.text
        assert _peers(site, "h1") == ["h2", "h3"]
        assert f"{site.hosts['h2'].address}/{SLOTS + 1},lzo" in site.on("h1", f"cat {FILE}")
    finally:
        site.hosts["h3"].start()
        site.hosts["h3"].wait_for_sshd()
    assert enrolled.refresh().code == 0
    assert site.on("h1", f"cat {FILE}") == whole
    assert _runs(site, "h3") != "0"


OTHERS_FILES = """cd / && find etc usr/local -type f ! -path 'etc/d1fleet/*' ! -path etc/distcc/hosts \\
! -path 'etc/systemd/system/d1fleet-distcc*' -exec sha256sum {} + | LC_ALL=C sort -k2"""


def test_slots_and_nice_of_one_and_a_host_that_leaves_and_comes_back(enrolled: Enrolled) -> None:
    site = enrolled.site
    look = f"cat {FILE} /etc/distcc/hosts; nft list table inet d1fleet_distcc; ps -C distccd -o args="
    before, others = site.everywhere(look), site.everywhere(OTHERS_FILES)
    inventory = site.hosts.inventory.read_text()
    known = yaml.safe_load(inventory)
    del known["projects"]["children"]["demo"]["hosts"]["h3"]
    own = site.folder / "more" / "host_vars" / "h1.yml"
    own.parent.mkdir(exist_ok=True)
    all_of_them = site.folder / "more" / "group_vars" / "demo.yml"
    try:
        site.hosts.inventory.write_text(yaml.safe_dump(known))
        all_of_them.write_text(f"d1fleet_nice: {NICE}\n")
        own.write_text(f"d1fleet_slots: {SLOTS + 2}\nd1fleet_nice: {NICE + 5}\n")
        done = enrolled.refresh(d1fleet_nice=None)
        assert done.code == 0, done.text
        assert _peers(site, "h1") == ["h2"]
        assert _peers(site, "h2") == ["h1"]
        assert f"{site.hosts['h1'].address}/{SLOTS + 2},lzo" in site.on("h2", f"cat {FILE}")
        assert f"localhost/{SLOTS + 2}" in site.on("h1", f"cat {FILE}")
        assert f"--nice {NICE + 5}" in site.on("h1", "ps -C distccd -o args=")
        nices = site.on("h1", "ps -C distccd -o ni=").split()
        assert nices and set(nices) == {str(NICE + 5)}
        assert site.hosts["h3"].address not in site.on("h1", "nft list table inet d1fleet_distcc")
        # Who has left is not touched, and is let in no more.
        assert site.on("h3", look) == before[2]
    finally:
        site.hosts.inventory.write_text(inventory)
        own.unlink()
        all_of_them.unlink()
    assert enrolled.refresh().code == 0
    assert site.everywhere(look) == before
    assert site.everywhere(OTHERS_FILES) == others
    assert enrolled.refresh().total("changed") == 0


def test_a_host_that_serves_nobody(enrolled: Enrolled) -> None:
    site = enrolled.site
    (site.folder / "more" / "host_vars").mkdir(exist_ok=True)
    (site.folder / "more" / "host_vars" / "h3.yml").write_text("d1fleet_distcc: false\n")
    try:
        done = enrolled.refresh()
        assert done.code == 0, done.text
        assert enrolled.refresh().total("changed") == 0
        assert _peers(site, "h1") == ["h2"]
        assert "left out: h3: it serves no distcc" in site.on("h1", f"cat {FILE}")
        assert _peers(site, "h3") == ["h1", "h2"]
        assert "inactive" in site.on("h3", f"systemctl is-active {UNIT}; nft list tables", check=False)
        assert "d1fleet" not in site.on("h3", "nft list tables; ls /etc/systemd/system")
    finally:
        (site.folder / "more" / "host_vars" / "h3.yml").unlink()
    assert enrolled.refresh().code == 0
    assert _runs(site, "h3") != "0"


def test_a_file_that_distcc_would_not_read_is_not_written(enrolled: Enrolled, tmp_path: Path) -> None:
    site = enrolled.site
    site.on("h1", "printf 'localhost/2\\n10.0.0.9:notaport/3\\n' >/tmp/bad")
    check = "/usr/bin/python3 -ISE /usr/local/lib/d1fleet/distcc/check_hosts.py"
    assert "invalid tcp port" in site.on("h1", f"{check} /tmp/bad 2>&1; :")
    assert site.on("h1", f"{check} {FILE} && echo fine") == "fine\n"


def test_over_ssh_with_a_key_that_is_bound(enrolled: Enrolled) -> None:
    """On networks that others can listen to: nobody listens but sshd, and one login a host serves a build."""
    site = enrolled.site
    key = (site.folder / "builder").read_text()
    write = f"umask 077; mkdir -p ~/.ssh; printf %s {shlex.quote(key)} >~/.ssh/id_ed25519"
    site.on("h1", write)
    try:
        done = enrolled.refresh(d1fleet_distcc_transport="ssh")
        assert done.code == 0, done.text
        assert enrolled.refresh(d1fleet_distcc_transport="ssh").total("changed") == 0
        assert (
            site.on("h1", f"grep -c '^@.*/{SLOTS}:{LIB}/serve,lzo' {FILE}; cmp {FILE} /etc/distcc/hosts")
            == "2\n"
        )
        assert set(site.everywhere("ss -Hltn sport = 3632 | awk '{print $4}'")) == {"127.0.0.1:3632\n"}
        assert not _answers(site, "h2", 3632)
        log = site.on("h1", f"export DISTCC_SSH={LIB}/ssh\n{FLAT}")
        names = {each.split("/")[0] for each in re.findall(r"compile f\d+\.c on (\S+) completed ok", log)}
        assert names == {"localhost", f"@{site.hosts['h2'].address}", f"@{site.hosts['h3'].address}"}
        assert "COMPILE_OK" in site.on("h2", f"journalctl -u {UNIT} -o cat --since=-1min")
        # Of the same key, nothing else.
        asked = f"{LIB}/ssh {site.hosts['h2'].address} id 2>&1 </dev/null; :"
        assert "this key starts builds of d1fleet and nothing else" in site.on("h1", asked)
        # Whose key is not known to be the host's own is not spoken with.
        site.on("h1", "sed -i.bak '/ d1fleet:h2$/d' /etc/ssh/d1fleet_known_hosts; pkill -x ssh; :")
        asked = f"{LIB}/ssh {site.hosts['h2'].address} true 2>&1 </dev/null; :"
        assert "Host key verification failed" in site.on("h1", asked)
    finally:
        site.on(
            "h1",
            "cd /etc/ssh; [ ! -e d1fleet_known_hosts.bak ] || mv d1fleet_known_hosts.bak d1fleet_known_hosts",
        )
        site.on("h1", "rm ~/.ssh/id_ed25519; pkill -x ssh; :")
    assert enrolled.refresh().code == 0
    assert _peers(site, "h1") == ["h2", "h3"]
    assert not set("".join(site.everywhere(f"ls {LIB}")).split()) & {
        "serve",
        "distcc_relay.py",
        "ssh",
        "ssh_config",
    }
    assert site.on("h2", "ss -Hltn sport = 3632 | awk '{print $4}'").strip() == "0.0.0.0:3632"


CCACHE = """export PATH=/usr/lib/ccache:$PATH CCACHE_PREFIX=distcc DISTCC_FALLBACK=0 DISTCC_SKIP_LOCAL_RETRY=1
mkdir -p /tmp/cc && cd /tmp/cc && : >log; export DISTCC_LOG=/tmp/cc/log
echo 'int y(int x) { return x * 3; }' >y.c; gcc -O2 -c y.c -o y.o
/usr/bin/gcc -O2 -c y.c -o z.o && cmp y.o z.o
grep -c 'compile y.c on' log || :
"""


def test_ccache_where_it_is_asked_for(enrolled: Enrolled) -> None:
    """By a playbook with that role alone; people use it without us."""
    site = enrolled.site
    book = site.folder / "ccache.yml"
    book.write_text("- hosts: projects\n  become: true\n  roles: [fleet, ccache]\n")
    playbook, site.playbook = site.playbook, str(book)
    asked = {"d1fleet_nice": NICE, "d1fleet_ccache": True}
    shared = {**asked, "d1fleet_ccache_folder": "/var/cache/d1fleet-ccache", "d1fleet_ccache_group": "video"}
    config = "/etc/ccache.conf"
    try:
        site.on("h3", f"echo 'max_size = 1G' >{config}")
        checked = site.play("--check", "--limit", "h1", **asked)
        assert checked.code == 0, checked.text
        assert "would be installed: ccache" in checked.words
        done = site.play(**asked)
        assert done.code == 2, done.text
        assert [host for host, counts in done.counts.items() if counts["failed"]] == ["h3"]
        assert "h3 has a /etc/ccache.conf of its own" in done.words
        assert site.on("h3", f"cat {config}") == "max_size = 1G\n"
        assert site.play("--limit", "h1,h2", **asked).total("changed") == 0
        # Compiled once, and once more when the record of the toolchain is another.
        assert site.on("h1", CCACHE).split() == ["1"]
        assert site.on("h1", CCACHE, check=False).split() == ["0"]
        record = "/etc/d1fleet/toolchain.json"
        site.on("h1", f"cp {record} /tmp/record; sed -i 's/ld/ld /' {record}")
        assert site.on("h1", CCACHE).split() == ["1"]
        site.on("h1", f"cp /tmp/record {record}")
        assert site.play("--limit", "h1", **shared).code == 0
        assert site.on("h1", "stat -c '%U %G %a' /var/cache/d1fleet-ccache") == "root video 2770\n"
        assert "cache_dir = /var/cache/d1fleet-ccache" in site.on("h1", "ccache --show-config")
        assert site.play("--limit", "h1", **shared).total("changed") == 0
        gone = site.play(d1fleet_nice=NICE)
        assert gone.code == 0, gone.text
        assert site.everywhere(f"cat {config} 2>&1; :")[2] == "max_size = 1G\n"
        assert "No such file" in site.on("h1", f"cat {config} 2>&1; :")
        assert site.play(d1fleet_nice=NICE).total("changed") == 0
    finally:
        site.playbook = playbook
        site.on("h3", f"rm {config}")
