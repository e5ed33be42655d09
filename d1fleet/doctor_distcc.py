"""A doctor's checks of distcc: servers, hosts files, and whether members can compile on each other. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import distcclog, doctor_canaries, hostsfile
from .doctor_case import Case, Seen
from .doctor_checks import Check, check_toolchains
from .doctor_facts import Canary, Try
from .errors import D1fleetError
from .findings import FAULT, NOTE, WARNING, Finding, Mend
from .hostsfile import HostsFileError, Peer

SERVER, GUARD, VENDORS = "d1fleet-distcc.service", "d1fleet-distcc-guard.service", "distcc.service"

BACKOFF_S = 60.0
"""distcc leaves a peer out so long after a failure."""

TOO_LATE = 124
"""Status of a compilation that had to be killed."""

_BOTH = f"{GUARD} {SERVER}"
_REVERT = f"systemctl revert {_BOTH}; systemctl daemon-reload; systemctl restart {_BOTH}"
_SITES = f"/etc/systemd/system/{VENDORS}"
# systemd masks no unit whose file is in its way. A mask is empty: that is none.
_MASK = (
    f"if [ -s {_SITES} ]; then systemctl stop {VENDORS}; systemctl disable {VENDORS};"
    f" mv --backup=numbered {_SITES} {_SITES}.old; systemctl daemon-reload; fi;"
    f" systemctl mask --now {VENDORS}"
)
_LOG = f"journalctl -u {SERVER} -n 30 --no-pager"
_LEFT_OUT = re.compile(r"^# left out: ([^:]+): (.*)$", re.MULTILINE)
_TOOLCHAIN = re.compile(r" is not as the project is: |, the project has ")
"""In the reasons there that are toolchains'."""
_LONGEST_REASON = 200
"""Characters shown of another one: it is said for each pair of hosts."""
_OURS = "role d1.fleet.distcc_hosts"
"""In the first line of hosts files that the role has written."""
_SENT = re.compile(r"exec on (\S+): (\S+)")
_NO_KEY = re.compile("Permission denied|Host key verification failed")
_TEMPORARY = re.compile(r"\S*/d1fleet-canary-[^/\s']*")
_PROCESS = re.compile(r"^distccd\[\d+\] ")
_WITHOUT_A_WORD = re.compile("waiting for token|magic fairy dust")
"""Of connections that were made to see whether somebody answers."""
_MARK = re.compile(r"/[A-Za-z0-9_./@-]*/lock/backoff_[A-Za-z0-9_.:@-]+")
_OWN = re.compile(r"/[A-Za-z0-9_./@-]*/\.distcc/hosts")
"""Paths, without need for quotes, that hosts may have root do something to: what the user's server says could
be anything.
"""
_LONGEST_PATH = 255
MOST_MARKS = 20
"""In one command: what is longer is hard to read before it is typed."""
_COMPLAINT = re.compile(r"ERROR|CRITICAL|Warning|DENIED|not allowed|denied")


def serves(case: Case, name: str) -> bool:
    """Shall it compile for others?"""
    return bool(case.said(name, "d1fleet_distcc", True))


def check_units(case: Case) -> Iterator[Finding]:
    """The compile server and its guard run, and the distribution's own server does not."""
    for seen in case.known:
        if seen.distcc is None or not seen.distcc.units or not case.has_distcc:
            continue
        units = seen.distcc.units
        if not serves(case, seen.name):
            pass
        elif units[SERVER].get("LoadState") == "not-found":
            yield Finding(
                "distcc-not-enrolled",
                WARNING,
                seen.name,
                "it has no compile server of ours, other hosts of the project have",
                Mend("enrol it", play="site"),
            )
        else:
            down = [unit for unit in (GUARD, SERVER) if units[unit].get("ActiveState") != "active"]
            if down:
                states = "; ".join(f"{unit} is {_state(units[unit])}" for unit in down)
                yield Finding(
                    "distcc-down",
                    FAULT,
                    seen.name,
                    f"its compile server does not run: {states}",
                    Mend(
                        f"start it; if it ends again, its log says why: {_LOG}",
                        root=f"systemctl unmask {_BOTH}; systemctl enable --now {_BOTH}",
                    ),
                )
        vendors = units[VENDORS]
        if vendors.get("ActiveState") == "active" or vendors.get("LoadState") not in ("masked", "not-found"):
            runs = vendors.get("ActiveState") == "active"
            yield Finding(
                "distcc-vendor",
                FAULT if runs else WARNING,
                seen.name,
                f"the distribution's own {VENDORS} is"
                f" {'running, without our confinement' if runs else 'not masked'}",
                Mend("mask it; a unit file of the site's own is moved away for that", root=_MASK),
            )


def _state(unit: dict[str, str] | object) -> str:
    assert isinstance(unit, dict)
    words = [unit.get("ActiveState", "?")]
    if unit.get("LoadState") not in ("loaded", None):
        words.append(unit["LoadState"])
    if unit.get("Result") not in ("success", "", None):
        words.append(unit["Result"])
    return ", ".join(words)


def check_hosts_files(case: Case) -> Iterator[Finding]:
    """There, understood, and as the inventory says."""
    members = [seen.name for seen in case.hosts]
    for seen in case.known:
        distcc = seen.distcc
        if distcc is None or not case.project or not case.has_distcc:
            continue
        refresh = Mend("have it written again", play="refresh")
        if distcc.file_fault or not distcc.text:
            why = f"cannot be read: {distcc.file_fault}" if distcc.file_fault else "is not there"
            yield Finding("hosts-file-missing", FAULT, seen.name, f"{distcc.file} {why}", refresh)
        else:
            try:
                file = hostsfile.parse(distcc.text)
            except HostsFileError as error:
                what = f"{distcc.file}: {error}; one such word turns distribution off"
                yield Finding("hosts-file-bad", FAULT, seen.name, what, refresh)
            else:
                yield from _against_inventory(case, seen, file.peers, members, refresh)
        yield from _other_files(seen)


def _against_inventory(
    case: Case, seen: Seen, peers: tuple[Peer, ...], members: list[str], refresh: Mend
) -> Iterator[Finding]:
    distcc = seen.distcc
    assert distcc is not None
    strange = [str(peer.name) for peer in peers if peer.name not in members]
    if strange:
        yield Finding(
            "hosts-file-unknown",
            FAULT,
            seen.name,
            f"{distcc.file} names {', '.join(strange)}, which the project does not have: sources would go"
            " there",
            refresh,
        )
    there = {peer.name for peer in peers}
    lacking = [name for name in members if name not in there and name != seen.name and serves(case, name)]
    yield from _lacking(case, seen, lacking, refresh)
    for peer in peers:
        yield from _entry(case, seen, peer, refresh)


def _lacking(case: Case, seen: Seen, names: list[str], refresh: Mend) -> Iterator[Finding]:
    """Members that its file does not name. Where that is for a toolchain, `toolchain` says what mends it."""
    distcc = seen.distcc
    assert distcc is not None
    said = dict(_LEFT_OUT.findall(distcc.text))
    strange: set[str] = set()
    """Hosts whose toolchain is why."""
    for name in names:
        why = said.get(name, "")
        if _TOOLCHAIN.search(why):
            strange.add(seen.name if why.startswith(f"{seen.name} is not as ") else name)
        else:
            why = f", as it says: {why[:_LONGEST_REASON]}" if why else ""
            yield Finding(
                "hosts-file-lacks", WARNING, seen.name, f"{distcc.file} does not name {name}{why}", refresh
            )
    told = {finding.host for finding in check_toolchains(case)} if strange else set()
    for name in sorted(strange - told):
        other = case.named(name)
        if other is None or other.facts is None or other.facts.toolchain is None:
            continue  # that nothing is known of it is said already
        of = "the others" if name == seen.name else name
        yield Finding(
            "hosts-file-lacks",
            WARNING,
            seen.name,
            f"{distcc.file} does not name {of}, for a toolchain of {name} that is no reason any more",
            Mend("have toolchains looked at anew, on all hosts", play="site", everywhere=True),
        )


def _entry(case: Case, seen: Seen, peer: Peer, refresh: Mend) -> Iterator[Finding]:
    other = case.named(peer.name)
    if other is None or seen.distcc is None:
        return
    file = seen.distcc.file
    identity = other.facts.identity if other.facts else None
    slots = case.slots(peer.name) or (identity.cpus if identity else peer.slots)
    port = peer.port if peer.ssh else case.said(peer.name, "d1fleet_distcc_port", hostsfile.PORT)
    for what, is_so, wanted in (("slots", peer.slots, slots), ("port", peer.port, port)):
        if is_so != wanted:
            yield Finding(
                "hosts-file-old",
                WARNING,
                seen.name,
                f"{file} gives {peer.name} {what} {is_so}, it is {wanted} now",
                refresh,
            )
    address = case.said(peer.name, "d1fleet_address", "")
    known = [address] if address else list(identity.addresses) if identity else []
    if known and peer.address not in known:
        yield Finding(
            "hosts-file-address",
            FAULT,
            seen.name,
            f"{file} has {peer.address} for {peer.name}, whose address is {' or '.join(known)}",
            refresh,
        )


def _may_be_named(pattern: re.Pattern[str], path: str) -> bool:
    return len(path) <= _LONGEST_PATH and pattern.fullmatch(path) is not None


def _plain(path: str) -> str:
    """A test that no part of a path is a link: its user could lead root elsewhere."""
    return f'test "$(realpath {path})" = {path}'


def _other_files(seen: Seen) -> Iterator[Finding]:
    distcc = seen.distcc
    assert distcc is not None
    if distcc.own_file:
        path = distcc.own_file
        move = f"{_plain(path)} && mv {path} {path}.old"
        yield Finding(
            "hosts-file-own",
            WARNING,
            seen.name,
            f"distcc without d1fleet reads {distcc.own_file} there, in place of the project's hosts",
            Mend("move it away", root=move if _may_be_named(_OWN, path) else ""),
        )
    if _OURS in distcc.default:
        try:
            hostsfile.parse(distcc.default)
        except HostsFileError as error:
            yield Finding(
                "hosts-file-default",
                WARNING,
                seen.name,
                f"/etc/distcc/hosts, which distcc without d1fleet reads: {error}",
                Mend("have it written again", play="refresh"),
            )


def check_backoff(case: Case) -> Iterator[Finding]:
    """Marks by which distcc leaves peers out."""
    for seen in case.known:
        marks = seen.distcc.backoff if seen.distcc else ()
        if not marks:
            continue
        future = [mark for mark in marks if mark.age_s < -1]
        counting = [mark for mark in marks if -1 <= mark.age_s < BACKOFF_S]
        state = (
            "one of the future, so for longer than it should" if future
            else f"for {BACKOFF_S:.0f} s after a failure" if counting
            else "left over, of no effect"
        )  # fmt: skip
        # Those that keep a peer out come first: not all may fit.
        paths = list(dict.fromkeys(mark.path for mark in (*future, *counting, *marks)))
        known = [path for path in paths if _may_be_named(_MARK, path)]
        rest = len(known) > MOST_MARKS
        some = ", ".join(path[:_LONGEST_PATH] for path in paths[:3])
        more = f", and {len(paths) - 3} more" if len(paths) > 3 else ""
        yield Finding(
            "distcc-backoff",
            WARNING if future or counting else NOTE,
            seen.name,
            f"distcc's marks that leave peers out ({state}): {some}{more}",
            Mend(
                "remove them, once the peers are well"
                + (f" ({MOST_MARKS} at once: run doctor again for the rest)" if rest else ""),
                root=_remove(known[:MOST_MARKS]),
            ),
        )


def _remove(paths: list[str]) -> str:
    """Files, but none to which a link leads."""
    one = "$mark"
    return f"for mark in {' '.join(paths)}; do {_plain(one)} && rm -f {one}; done" if paths else ""


def check_client(case: Case) -> Iterator[Finding]:
    """distcc itself."""
    for seen in case.known:
        versions = seen.facts.versions if seen.facts else None
        if case.has_distcc and versions is not None and not versions.distcc:
            yield Finding(
                "distcc-missing",
                FAULT,
                seen.name,
                "distcc is not installed there",
                Mend(
                    "enrol the host again, or install the package",
                    root="apt-get update -q && apt-get install -y --reinstall --no-install-recommends distcc",
                ),
            )


def check_canaries(case: Case) -> Iterator[Finding]:
    """What became of the compilations: by the one that should have compiled, and from where."""
    failures: dict[tuple[str, str, str, Mend], list[str]] = {}
    for seen in case.known:
        for name, canary in seen.canaries.items():
            peer = case.named(name)
            if isinstance(canary, Canary) and peer is not None:
                for id_, why, mend in _of_canary(seen, peer, canary):
                    failures.setdefault((name, id_, why, mend), []).append(seen.name)
            elif isinstance(canary, D1fleetError):
                key = (name, "canary-unknown", canary.message, Mend("try it again, with less load on both"))
                failures.setdefault(key, []).append(seen.name)
    for (name, id_, why, mend), clients in failures.items():
        severity = WARNING if id_ == "canary-unknown" else FAULT
        yield Finding(
            id_, severity, name, f"{', '.join(clients)} cannot compile there by distcc: {why}", mend
        )


def _of_canary(client: Seen, peer: Seen, canary: Canary) -> Iterator[tuple[str, str, Mend]]:
    if canary.connect:
        unit = peer.distcc.units.get(SERVER, {}) if peer.distcc else {}
        if unit.get("ActiveState", "active") != "active":
            return  # check_units says it
        if "no answer" in canary.connect:
            why = f"{canary.connect}: its packet filter does not let that host in, or another one on the way"
            yield "canary-connect", why, Mend("tell all members of each other again", play="refresh")
        else:
            why = f"{canary.connect}: no compile server listens at its port"
            yield (
                "canary-connect",
                why,
                Mend(f"start it anew; its log: {_LOG}", root=f"systemctl restart {_BOTH}"),
            )
        return
    failed: dict[tuple[str, Mend], list[str]] = {}
    for each in canary.tries:
        if each.status and _NO_KEY.search(each.said):
            why = "it is reached over SSH, and a login of doctor's there has no key that is let in"
            yield (
                "canary-unknown",
                why,
                Mend("log in there as you do for builds, and type: d1fleet env --check"),
            )
            return
        if each.status:
            failed.setdefault(_reason(peer, each), []).append(each.compiler)
        elif each.same is False:
            why = f"{each.compiler}: the object is another than the one that is made here"
            mend = Mend(
                "its compiler is another, or wrong: compare with check of toolchains, run a memory test;"
                " meanwhile"
                f" d1fleet_distcc: false for {peer.name} in the inventory, and playbooks/refresh.yml"
            )
            yield "canary-differs", why, mend
    for (why, mend), names in failed.items():
        yield "canary-failed", f"{', '.join(names)}: {why}", mend


def _reason(peer: Seen, failed: Try) -> tuple[str, Mend]:
    """Why a compilation failed there: by what the server can do, its log, and what distcc said here."""
    masquerade = peer.distcc.masquerade if peer.distcc else ()
    # distcc gives compilers their full names: cc becomes x86_64-linux-gnu-gcc.
    name = next((sent for host, sent in reversed(_SENT.findall(failed.log)) if host != distcclog.HERE), "")
    if masquerade and (name or failed.compiler) not in masquerade:
        return (
            f"its server has no {name or failed.compiler} in /usr/lib/distcc",
            Mend("have the names made again", root="update-distcc-symlinks"),
        )
    told = distcclog.read(failed.log.splitlines())
    errors = [each for each in re.findall(r"ERROR: (.*)", failed.log) if "failed to distribute" not in each]
    if any("provided no answer" in each for each in errors):
        errors = [distcclog.NO_ANSWER]
    words = list(told.reasons.values())[-1:] or errors[-1:]
    if failed.status == TOO_LATE:
        words = ["no end within its time"]
    words = words or [distcclog.MEANINGS.get(failed.status, f"exit status {failed.status}")]
    words = [_TEMPORARY.sub("its folder", each) for each in words]
    lines = [
        _PROCESS.sub("", line)
        for line in (peer.log.lines if peer.log else ())
        if _COMPLAINT.search(line) and not _WITHOUT_A_WORD.search(line)
    ]
    if lines:
        words.append(f"its log: {' / '.join(list(dict.fromkeys(lines))[-2:])}")
    elif peer.log is not None and not peer.log.readable:
        words.append("its log is root's to read")
    return "; ".join(words), Mend(
        f"start it anew with what the inventory says; its log: {_LOG}", play="refresh"
    )


def around(case: Case, peer: str) -> list[str] | None:
    """What the shell on a server has said, to the first client that heard it out; None where none has."""
    for seen in case.known:
        canary = seen.canaries.get(peer)
        if isinstance(canary, Canary) and canary.around:
            words = [line.partition(doctor_canaries.SIGN)[2].strip() for line in canary.around.splitlines()]
            if words[-1:] == ["done"]:
                return words[:-1]
    return None


def check_sandbox(case: Case) -> Iterator[Finding]:
    """What a compilation can do there, and its nice value."""
    for seen in case.known:
        words = around(case, seen.name) or []
        trees = [path for path in case.here.trees if f"sees {path}" in words]
        if trees:
            yield Finding(
                "distcc-sees-tree",
                WARNING,
                seen.name,
                f"what a compilation is made to run there can read {', '.join(trees)}",
                Mend(
                    "name the folder in d1fleet_trees in the inventory, then enrol the host again",
                    play="site",
                ),
            )
        words = [each for each in words if each.removeprefix("sees ") not in trees]
        verbs = {"sees": "read", "writes": "write to", "reaches": "connect to"}
        can = list(
            dict.fromkeys(
                f"{verbs[word]} {rest}"
                for word, _, rest in (each.partition(" ") for each in words)
                if word in verbs
            )
        )
        if can:
            yield Finding(
                "distcc-sandbox",
                FAULT,
                seen.name,
                f"what a compilation is made to run there is not confined: it can {', '.join(can)}",
                Mend(
                    "take changes of its units away (`systemctl cat` shows them), and start them anew; if"
                    " that does"
                    " not help, enrol the host again",
                    root=_REVERT,
                ),
            )
        nice = [rest for word, _, rest in (each.partition(" ") for each in words) if word == "nice"]
        identity = seen.facts.identity if seen.facts else None
        if nice and re.fullmatch(r"-?\d{1,2}", nice[0]) and identity is not None:
            own, wanted = int(nice[0]) - identity.nice_of_all, seen.host.nice
            if own != wanted:
                yield Finding(
                    "distcc-nice",
                    WARNING,
                    seen.name,
                    f"compilations for others run at nice {own} there, d1fleet_nice is {wanted}",
                    Mend(
                        "have its unit written again; where somebody has changed it (`systemctl cat`):"
                        f" systemctl revert {SERVER}",
                        play="refresh",
                    ),
                )


CHECKS: tuple[tuple[str, Check], ...] = (
    ("distcc's servers", check_units),
    ("hosts files", check_hosts_files),
    ("", check_client),
    ("distcc's marks of failed peers", check_backoff),
    ("", check_canaries),
    ("the confinement of compilations", check_sandbox),
)
"""Applied where any host of a project has distcc by our roles."""
