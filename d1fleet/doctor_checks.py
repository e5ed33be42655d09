"""A doctor's checks of hosts, one function each: what is known goes in, findings come out. Pure.

To add one: write it, and add a line to CHECKS. Those of distcc are in doctor_distcc.py.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from .doctor_case import Case, Seen
from .doctor_facts import Tree
from .errors import ConnectError, D1fleetError, HostKeyError, LoginError, ServerStartError
from .findings import FAULT, NOTE, WARNING, Finding, Mend
from .protocol import Hello
from .toolchains import Toolchains

Check = Callable[[Case], Iterator[Finding]]

CLOCK_WARN_S, CLOCK_FAULT_S = 0.5, 2.0
"""make compares time stamps: half a second is as long as a short recipe takes, two are a wrong build."""

STALE_WARN_S, STALE_FAULT_S = 0.5, 3.0
"""How late a host may see what another one has made. An NFS that caches looks again after 3 s at least."""

DISK_WARN_BYTES, DISK_FAULT_BYTES = 1 << 30, 100 << 20
"""Guesses: what a middling build writes, and what hardly any compilation can do with."""

FILES_WARN_SHARE = 0.02

MEMORY_WARN_BYTES, MEMORY_FAULT_BYTES = 512 << 20, 128 << 20
"""Guesses: what one large C++ file takes, and what a small one takes."""

LEAST_STARTUPS = 10
"""sshd's own START of MaxStartups: fewer logins at once, and builds that begin together are turned away."""

ATTRIBUTES_S = 3
"""What acregmax and acdirmax should be at most: what one host makes the others have to see soon."""

_NETWORK = re.compile(
    r"nfs4?|cifs|smb3|9p|ceph|afs|lustre|beegfs|gfs2?|ocfs2|glusterfs|virtiofs|fuse\.(sshfs|glusterfs|ceph.*)"
)
_SERVICE = re.compile(r"(systemd-timesyncd|chronyd?|ntpsec|ntpd?|openntpd)\.service")
_SSHD_FILE = re.compile(r"/etc/ssh/(sshd_config\.d/)?[A-Za-z0-9_.-]+")
_MAKE = re.compile(r"GNU Make (\d+)\.(\d+)")
_OLDEST_MAKE = (4, 2)


# -- being reached ------------------------------------------------------------------------------------


def check_reached(case: Case) -> Iterator[Finding]:
    """Each way that a login can fail; and hosts that have said nothing of themselves."""
    kinds: dict[type[D1fleetError], str] = {
        HostKeyError: "host-key",
        LoginError: "login",
        ConnectError: "unreachable",
        ServerStartError: "server-start",
    }
    for seen in case.hosts:
        if seen.error is not None:
            id_ = kinds.get(type(seen.error), "silent")
            yield Finding(id_, FAULT, seen.name, seen.error.message, _of_error(seen.error.mend))


def _of_error(mend: str) -> Mend:
    """Where the words name a playbook of ours, it can be typed as it stands."""
    mend = mend or "see what the host itself says: log in by hand"
    return Mend(mend, play="site") if "ansible-playbook site.yml" in mend else Mend(mend)


def check_all_told(case: Case) -> Iterator[Finding]:
    """Sections that could not be found out."""
    for seen in case.known:
        for section, why in (seen.facts.missing if seen.facts else {}).items():
            yield Finding(
                "not-known",
                WARNING,
                seen.name,
                f"{section} could not be found out: {why}",
                Mend("see what hangs there: a mount that does not answer, a full disk, a program that waits"),
            )


def check_one_machine(case: Case) -> Iterator[Finding]:
    """Two names for one machine."""
    first: dict[str, str] = {}
    for seen in case.known:
        identity = seen.facts.identity if seen.facts else None
        if identity is None or not identity.machine:
            continue
        if identity.machine in first:
            yield Finding(
                "one-machine",
                WARNING,
                seen.name,
                f"it is the same machine as {first[identity.machine]}, or a copy with the same"
                " /etc/machine-id",
                Mend(
                    "take one name out; on a copy: rm /etc/machine-id, then systemd-machine-id-setup, and"
                    " restart it"
                ),
            )
        else:
            first[identity.machine] = seen.name


# -- users --------------------------------------------------------------------------------------------


def check_users(case: Case) -> Iterator[Finding]:
    """The same user, with the same numbers, and a home to keep the server in."""
    here = case.here
    for seen in case.known:
        identity = seen.facts.identity if seen.facts else None
        if identity is None:
            continue
        if identity.uid != here.uid:
            yield Finding(
                "uid",
                FAULT,
                seen.name,
                f"the login there is {identity.user or '?'} with uid {identity.uid}; here you are {here.user}"
                f" with uid {here.uid}: what it makes would be somebody else's",
                Mend(
                    f"log in there as the user with uid {here.uid} (ansible_user, or User in ssh's"
                    " configuration);"
                    " where there is none, put yourself into d1fleet_builders and enrol the host",
                ),
            )
        elif identity.gid != here.gid:
            yield Finding(
                "gid",
                WARNING,
                seen.name,
                f"{identity.user}'s group there is {identity.group or '?'} ({identity.gid}), here it is"
                f" {here.gid}: what it makes belongs to another group",
                Mend(
                    f"give {identity.user} the group with the number {here.gid} there",
                    root=f"usermod --gid {here.gid} {here.user}" if identity.user == here.user else "",
                ),
            )
        if not identity.home_usable:
            yield Finding(
                "home",
                WARNING,
                seen.name,
                f"{identity.home} is no folder that {identity.user or identity.uid} can write to: no cache of"
                " the server's can be kept there",
                Mend("have it made for that user, or correct the user's entry in passwd"),
            )


# -- trees ----------------------------------------------------------------------------------------------


def check_trees(case: Case) -> Iterator[Finding]:
    """The same tree, seen soon, and open for writing."""
    for seen in case.known:
        for number, folder in enumerate(case.here.trees):
            tree = _at(seen, number)
            if tree is None:
                continue
            if tree.difference:
                yield Finding(
                    "tree",
                    FAULT,
                    seen.name,
                    tree.difference,
                    Mend("mount the tree there at the same path, or build in a folder that all hosts share"),
                )
                continue
            if tree.write_fault:
                yield _not_writable(seen, folder, tree.write_fault, tree.mount.options, tree.mount.point)
            yield from _stale(seen, number, folder)


def _at(seen: Seen, number: int) -> Tree | None:
    trees = seen.facts.trees if seen.facts else ()
    return trees[number] if number < len(trees) else None


def _not_writable(seen: Seen, folder: str, why: str, options: str, point: str) -> Finding:
    read_only = "ro" in options.split(",")
    mend = Mend("mount it for writing, in /etc/fstab too", root=_remount("rw", point, folder))
    if not read_only:
        mend = Mend(
            "let the login there write to it: see `ls -ld` of the folder, and the export's root_squash"
        )
    return Finding("tree-write", FAULT, seen.name, f"nothing can be written to {folder} there: {why}", mend)


def _remount(option: str, point: str, folder: str) -> str:
    """A bind mount has options of its own. Whatever a host says, only what our folder lies in is named."""
    if PurePosixPath(point) not in (PurePosixPath(folder), *PurePosixPath(folder).parents):
        return ""
    path = shlex.quote(point)
    return f"mount -o remount,{option} {path} && mount -o remount,bind,{option} {path}"


def _stale(seen: Seen, number: int, folder: str) -> Iterator[Finding]:
    fresh = seen.fresh.get(number)
    if fresh is None:
        return
    late = {"a new file": fresh.made_s, "that a file has grown": fresh.grown_s}
    unseen = [what for what, when in late.items() if when is None]
    slowest = max((when for when in late.values() if when is not None), default=0.0)
    if not unseen and slowest <= STALE_WARN_S:
        return
    what = max(late, key=lambda each: float("inf") if late[each] is None else late[each] or 0.0)
    how = "not within some seconds" if unseen else f"{slowest:.1f} s late"
    yield Finding(
        "tree-stale",
        FAULT if unseen or slowest > STALE_FAULT_S else WARNING,
        seen.name,
        f"{folder} is seen late there: {what} {how}; a sub-make may miss what another host has just made",
        Mend(
            "cache less there: NFS with lookupcache=positive,actimeo=1; sshfs with"
            " attr_timeout=0,entry_timeout=0,dir_cache=no (docs/doctor.md)"
        ),
    )


def check_mounts(case: Case) -> Iterator[Finding]:
    """Mount options under which builds go wrong."""
    for seen in case.known:
        points: set[str] = set()
        for number, folder in enumerate(case.here.trees):
            tree = _at(seen, number)
            if tree is None or tree.difference or tree.mount.point in points:
                continue
            points.add(tree.mount.point)
            options = dict(
                (word.partition("=")[0], word.partition("=")[2]) for word in tree.mount.options.split(",")
            )
            if "noexec" in options:
                yield Finding(
                    "mount-noexec",
                    FAULT,
                    seen.name,
                    f"{tree.mount.point} is mounted with noexec: no program that a build makes in {folder}"
                    " runs there",
                    Mend(
                        "mount it with exec, in /etc/fstab too",
                        root=_remount("exec", tree.mount.point, folder),
                    ),
                )
            if _NETWORK.fullmatch(tree.mount.type):
                yield from _network_options(seen.name, tree.mount.point, tree.mount.type, options)


def _network_options(host: str, point: str, kind: str, options: dict[str, str]) -> Iterator[Finding]:
    in_fstab = "in /etc/fstab there, then umount and mount it"
    if "soft" in options or "softerr" in options:
        yield Finding(
            "mount-soft",
            FAULT,
            host,
            f"{point} is a soft mount: when its server is slow, reads and writes fail in the middle of a"
            " build",
            Mend(f"mount it hard (options hard, in place of soft), {in_fstab}"),
        )
    if not kind.startswith("nfs") or "noac" in options:
        return  # noac looks up everything anew: slow, and right
    if options.get("lookupcache", "all") in ("all", ""):
        yield Finding(
            "mount-lookupcache",
            WARNING,
            host,
            f"{point} remembers that files are not there (lookupcache=all): what another host has made is"
            " missed",
            Mend(f"add the option lookupcache=positive (or none), {in_fstab}"),
        )
    slow = {
        name: int(value)
        for name in ("acregmax", "acdirmax")
        if (value := options.get(name, {"acregmax": "60", "acdirmax": "60"}[name])).isdigit()
    }
    worst = max(slow.values(), default=0)
    if worst > ATTRIBUTES_S:
        yield Finding(
            "mount-attributes",
            WARNING,
            host,
            f"{point} keeps attributes for up to {worst} s (acregmax, acdirmax): time stamps are seen late",
            Mend(f"add the option actimeo=1 ({ATTRIBUTES_S} at most), {in_fstab}"),
        )


# -- clocks -----------------------------------------------------------------------------------------------


def check_clocks(case: Case) -> Iterator[Finding]:
    """Against this machine's, by a question and its answer; against the file server's, by a time stamp."""
    for seen in case.known:
        if seen.clock is not None:
            off_s = seen.clock.offset_s
            sure_s = max(0.0, abs(off_s) - seen.clock.within_s)
            yield from _clock(seen, "clock", off_s, sure_s, "of this machine's")
        for number, folder in enumerate(case.here.trees):
            tree = _at(seen, number)
            if tree is not None and tree.clock_s is not None:
                yield from _clock(
                    seen, "clock-tree", tree.clock_s, abs(tree.clock_s), f"of the time stamps in {folder}"
                )


def check_clock_here(case: Case) -> Iterator[Finding]:
    """This machine's clock, against the file server's."""
    for folder, off_s in zip(case.here.trees, case.here.clocks_s, strict=False):
        if off_s is not None and abs(off_s) > CLOCK_WARN_S:
            yield Finding(
                "clock-here",
                FAULT if abs(off_s) > CLOCK_FAULT_S else WARNING,
                "",
                f"this machine's clock is {_off(off_s)} of the time stamps in {folder}",
                Mend(
                    "set this machine's clock, and have a time service keep it right (chrony,"
                    " systemd-timesyncd)"
                ),
            )


def _clock(seen: Seen, id_: str, off_s: float, sure_s: float, of: str) -> Iterator[Finding]:
    if sure_s <= CLOCK_WARN_S:
        return
    services = seen.facts.time if seen.facts else None
    installed = [each for each in (services.installed if services else ()) if _SERVICE.fullmatch(each)]
    running = [each for each in (services.running if services else ()) if each in installed]
    if installed:
        unit = (running or installed)[0]
        mend = Mend(
            f"have {unit} set it",
            root=f"systemctl enable {unit}; systemctl restart {unit}",
        )
    else:
        mend = Mend("no time service is installed there: install one", root="apt-get install -y chrony")
    yield Finding(
        id_,
        FAULT if sure_s > CLOCK_FAULT_S else WARNING,
        seen.name,
        f"its clock is {_off(off_s)} {of}: make would take new files for old, or old ones for new",
        mend,
    )


def _off(off_s: float) -> str:
    return f"{abs(off_s):.1f} s {'ahead' if off_s > 0 else 'behind'}"


# -- room -------------------------------------------------------------------------------------------------


def check_room(case: Case) -> Iterator[Finding]:
    """Disks and memory."""
    for seen in case.known:
        facts = seen.facts
        assert facts is not None
        disks = [*(facts.disk or ()), *(tree.disk for tree in facts.trees if tree and tree.disk)]
        told: set[tuple[int, int]] = set()
        for disk in disks:
            if (disk.free_bytes, disk.total_bytes) in told or not disk.total_bytes:
                continue  # the same file system again
            told.add((disk.free_bytes, disk.total_bytes))
            where = {"tree": "the tree", "cache": "the server's cache", "slots": "the folder of slots"}.get(
                disk.what, "temporary files"
            )
            mend = Mend(f"make room there: `du -xh --max-depth=1 {disk.path} | sort -h` shows what is large")
            if disk.free_bytes < min(DISK_WARN_BYTES, disk.total_bytes // 4):
                yield Finding(
                    "disk",
                    FAULT if disk.free_bytes < min(DISK_FAULT_BYTES, disk.total_bytes // 10) else WARNING,
                    seen.name,
                    f"{disk.path} ({where}) has {_mib(disk.free_bytes)} left",
                    mend,
                )
            if disk.total_files and disk.free_files < FILES_WARN_SHARE * disk.total_files:
                yield Finding(
                    "disk-files",
                    FAULT if not disk.free_files else WARNING,
                    seen.name,
                    f"{disk.path} ({where}) has room for {disk.free_files} more files",
                    mend,
                )
        memory = facts.memory
        if memory is not None and memory.available_bytes < MEMORY_WARN_BYTES:
            yield Finding(
                "memory",
                FAULT if memory.available_bytes < MEMORY_FAULT_BYTES else WARNING,
                seen.name,
                f"{_mib(memory.available_bytes)} of memory can be had there",
                Mend(
                    "see what takes it (`ps -eo rss,args --sort=-rss | head`), or give the host fewer"
                    " d1fleet_slots"
                ),
            )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.0f} MiB"


# -- toolchains and versions --------------------------------------------------------------------------------


def check_toolchains(case: Case) -> Iterator[Finding]:
    """As a build judges them: by the project's record where there is one, else by each other."""
    judge = Toolchains(case.project)
    verdicts = {}
    known = [seen for seen in case.known if seen.facts and seen.facts.toolchain is not None]
    for seen in known:
        found = seen.facts.toolchain if seen.facts else None
        assert found is not None
        hello = Hello(
            toolchain=dict(found.parts),
            toolchain_places=dict(found.places),
            project_toolchain=dict(found.record),
            record_fault=found.record_fault,
        )
        verdicts[seen.name] = judge.judge(seen.name, seen.host.toolchain_mismatch, hello)
    judge.settle(len(case.hosts) == 1)
    verdicts |= judge.decided
    for name, verdict in verdicts.items():
        if verdict.reason:
            yield Finding("toolchain", FAULT, name, verdict.reason, Mend(verdict.mend))
        elif verdict.note:
            mend = Mend("install the same packages on all hosts; to enrol them does that", play="site")
            yield Finding("toolchain-differs", WARNING, name, verdict.note, mend)


def check_versions(case: Case) -> Iterator[Finding]:
    """make is new enough; and what hosts differ in."""
    makes: dict[str, tuple[int, int]] = {}
    for seen in case.known:
        versions = seen.facts.versions if seen.facts else None
        if versions is None:
            continue
        found = _MAKE.match(versions.make)
        if found is None or (int(found[1]), int(found[2])) < _OLDEST_MAKE:
            what = f"make there is {versions.make}" if versions.make else "there is no make in PATH there"
            yield Finding(
                "make",
                FAULT,
                seen.name,
                f"{what}; sub-makes want GNU make 4.2 or newer",
                Mend(
                    "install it, or have d1fleet_server_setup set its PATH",
                    root="apt-get update -q && apt-get install -y --reinstall make",
                ),
            )
        else:
            makes[seen.name] = int(found[1]), int(found[2])
    if len(set(makes.values())) > 1:
        usual = Counter(makes.values()).most_common(1)[0][0]
        for name, version in makes.items():
            if version != usual:
                yield Finding(
                    "make-differs",
                    WARNING,
                    name,
                    f"make there is {version[0]}.{version[1]}, most hosts have {usual[0]}.{usual[1]}",
                    Mend("bring all hosts to one version: makefiles can tell the difference"),
                )


# -- what the roles leave -------------------------------------------------------------------------------


def check_server(case: Case) -> Iterator[Finding]:
    """Installed, in this version, and usable."""
    for seen in case.known:
        server = seen.facts.server if seen.facts else None
        if server is None or server.from_installed or seen.host.transport == "local":
            continue
        if server.is_installed:
            yield Finding(
                "server-unusable",
                WARNING,
                seen.name,
                "this version of the server is installed there, and the launcher does not take it: it is"
                " not whole,"
                " or not root's alone to write; a copy of the user's own was started",
                Mend(
                    "make it root's alone; if that does not help, remove it, and enrol the host again",
                    root="cd /usr/local/lib/d1fleet/server && chown -R root:root . && chmod -R go-w .",
                ),
            )
        elif server.launcher or server.versions:
            yield Finding(
                "server-old",
                WARNING,
                seen.name,
                "another version of the server is installed there; this one was sent, into the user's own"
                " cache",
                Mend("enrol the host again", play="site"),
            )
        else:
            yield Finding(
                "server-not-installed",
                NOTE,
                seen.name,
                "no server is installed there; it was sent, into the user's own cache",
                Mend("nothing has to be done; to enrol the host installs it for all users", play="site"),
            )


def check_slots(case: Case) -> Iterator[Finding]:
    """One folder of slots for all users of a host."""
    for seen in case.known:
        slots = seen.facts.slots if seen.facts else None
        if slots is None or slots.shared or seen.host.transport == "local":
            continue
        mend = Mend("enrol the host", play="site")
        if slots.made_at_boot:
            mend = Mend("have it made again", root="systemd-tmpfiles --create /etc/tmpfiles.d/d1fleet.conf")
        yield Finding(
            "slots-per-user",
            WARNING,
            seen.name,
            f"slots are per user there ({slots.folder}): users do not share, and several builds overload it",
            mend,
        )


def check_drained(case: Case) -> Iterator[Finding]:
    """Hosts that get no work."""
    for seen in case.known:
        drain = seen.facts.drain if seen.facts else None
        if drain is None or not drain.on:
            continue
        mend = Mend("when it may work again", root="rm -f /run/d1fleet/drain/drained")
        if not drain.everybody:
            mend = Mend(f"when it may work again: d1fleet drain --undo {seen.name}, with the same inventory")
        whom = "everybody's builds" if drain.everybody else "your builds"
        yield Finding(
            "drained",
            WARNING,
            seen.name,
            f"it gets no work, in {whom}: {drain.reason or 'no reason is given'}",
            mend,
        )


def check_sshd(case: Case) -> Iterator[Finding]:
    """sshd's limits, as far as its configuration can be read."""
    for seen in case.known:
        sshd = seen.facts.sshd if seen.facts else None
        settings = sshd.settings if sshd else ()
        ours = {each.keyword: each for each in settings if PurePosixPath(each.path).name == "10-d1fleet.conf"}
        for keyword, name in (("maxsessions", "MaxSessions"), ("maxstartups", "MaxStartups")):
            lines = [each for each in settings if each.keyword == keyword]
            if not lines:
                continue
            if keyword in ours:
                others = [
                    each for each in lines if each is not ours[keyword] and each.value != ours[keyword].value
                ]
                # Of MaxStartups some versions take the last.
                stronger = [
                    each
                    for each in others
                    if keyword == "maxstartups" or lines.index(each) < lines.index(ours[keyword])
                ]
                wrong = stronger[0] if stronger else None
                why = f"in place of {ours[keyword].value} as enrolled"
            else:
                wrong = lines[0] if _too_few(keyword, lines[0].value) else None
                why = "which turns logins away when several builds begin"
            if wrong is not None:
                # By its keyword, not by the number of a line, which a host could choose.
                take_out = f"sed -i -E 's/^([[:space:]]*{name}[[:space:]=])/# \\1/I' {wrong.path}"
                known = _SSHD_FILE.fullmatch(wrong.path)
                yield Finding(
                    "sshd-limits",
                    WARNING,
                    seen.name,
                    f"sshd has {name} {wrong.value} ({wrong.path}, line {wrong.line}), {why}",
                    Mend(
                        "take that line out",
                        root=f"{take_out} && sshd -t && systemctl reload ssh" if known else "",
                    ),
                )


def _too_few(keyword: str, value: str) -> bool:
    start = value.partition(":")[0]
    return start.isdigit() and int(start) < (LEAST_STARTUPS if keyword == "maxstartups" else 1)


def check_nice(case: Case) -> Iterator[Finding]:
    """The nice value that builds get: a login that is niced already stays so, but for root."""
    for seen in case.known:
        identity = seen.facts.identity if seen.facts else None
        if identity is None or identity.uid == 0 or seen.host.transport == "local":
            continue
        own = identity.nice - identity.nice_of_all
        if own > seen.host.nice:
            yield Finding(
                "nice",
                WARNING,
                seen.name,
                f"logins there run at nice {own}, so builds do, too; d1fleet_nice is {seen.host.nice}",
                Mend("see who nices them: Nice= of sshd's unit, /etc/security/limits.conf, a start-up file"),
            )


CHECKS: tuple[tuple[str, Check], ...] = (
    ("logins and host keys", check_reached),
    ("", check_all_told),
    ("", check_one_machine),
    ("users and ids", check_users),
    ("trees", check_trees),
    ("mounts", check_mounts),
    ("clocks", check_clocks),
    ("", check_clock_here),
    ("disks and memory", check_room),
    ("toolchains", check_toolchains),
    ("versions", check_versions),
    ("d1make servers", check_server),
    ("slots", check_slots),
    ("drains", check_drained),
    ("sshd's limits", check_sshd),
    ("nice values", check_nice),
)
"""What each is called where it is said what was checked; empty where that goes without saying."""
