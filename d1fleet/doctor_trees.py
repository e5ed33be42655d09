"""A doctor's checks of trees, mounts and clocks: what make goes by. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath

from .doctor_case import Case, Seen
from .doctor_facts import Tree
from .findings import FAULT, WARNING, Finding, Mend

CLOCK_WARN_S, CLOCK_FAULT_S = 0.5, 2.0
"""make compares time stamps: half a second is as long as a short recipe takes, two are a wrong build."""

STALE_WARN_S, STALE_FAULT_S = 0.5, 3.0
"""How late a host may see what another one has made. An NFS that caches looks again after 3 s at least."""

ATTRIBUTES_S = 3
"""What acregmax and acdirmax should be at most: what one host makes the others have to see soon."""

_SERVICE = re.compile(r"(systemd-timesyncd|chronyd?|ntpsec|ntpd?|openntpd)\.service")
_NETWORK = re.compile(
    r"nfs4?|cifs|smb3|9p|ceph|afs|lustre|beegfs|gfs2?|ocfs2|glusterfs|virtiofs|fuse\.(sshfs|glusterfs|ceph.*)"
)


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
        f"{folder} is seen late there: {what} {how}; sub-makes there wait to see what others have made",
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
