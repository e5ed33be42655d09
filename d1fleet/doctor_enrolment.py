"""A doctor's checks of what the roles leave on hosts: server, slots, marks, limits, nice values. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from .doctor_case import Case
from .findings import NOTE, WARNING, Finding, Mend

LEAST_STARTUPS = 10
"""sshd's own START of MaxStartups: fewer logins at once, and builds that begin together are turned away."""

_SSHD_FILE = re.compile(r"/etc/ssh/(sshd_config\.d/)?[A-Za-z0-9_.-]+")


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
