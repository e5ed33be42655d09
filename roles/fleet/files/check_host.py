"""What root sees on one host: is what our roles have written in effect, whole, and root's alone?

Changes nothing. Prints JSON:

    {"checked": [WHAT, ...], "not_checked": {WHAT: WHY},
     "findings": [{"id": ID, "severity": "fault" | "warning" | "note", "what": TEXT, "mend": TEXT,
                   "root": SHELL, "play": "site" | "refresh" | ""}, ...]}

where `root` is a shell's line for root on this host, `play` a playbook to be run for it; one of them at most.
What the inventory says is not known here: `site.yml --check` tells whether that would be written otherwise.
Needs Python 3.9 and nothing else.
"""

import glob
import json
import os
import re
import shlex
import socket
import stat
import subprocess
import sys

MARK = "/etc/ansible/facts.d/d1fleet_inventory.fact"
PINS = "/etc/apt/preferences.d/d1fleet"
OF_ONE_RUN = "for the time of one run"
"""What role toolchain writes above pins that go when it has installed."""

SSHD_OURS = "/etc/ssh/sshd_config.d/10-d1fleet.conf"
KEYS = "/etc/ssh/d1fleet_authorized_keys"
TABLE_FILE = "/etc/d1fleet/distcc.nft"
HOSTS = "/etc/d1fleet/hosts"
CHECK_HOSTS = "/usr/local/lib/d1fleet/distcc/check_hosts.py"
CHECK_IN, WAY_IN = "d1fleet-checkin.service", "d1fleet-checkin-apply.socket"
"""The check-in at a registry, where the host has one, and the way to its root helper."""

SERVER, GUARD, VENDORS = "d1fleet-distcc.service", "d1fleet-distcc-guard.service", "distcc.service"
UNITS = "/etc/systemd/system"
BOTH = f"{GUARD} {SERVER}"
LIMIT_S = 20

OURS = ("/usr/local/lib/d1fleet", "/etc/d1fleet", KEYS)
"""With all that is below."""

OUR_FILES = (
    "/etc/ansible/facts.d/d1fleet*.fact",
    PINS,
    "/etc/ssh/d1fleet_known_hosts",
    "/etc/ssh/ssh_config.d/d1fleet.conf",
    SSHD_OURS,
    "/etc/tmpfiles.d/d1fleet.conf",
    f"{UNITS}/d1fleet-*.service",
)
READ_BY_ALL = (
    "/etc/ansible/facts.d/d1fleet.fact",
    "/etc/d1fleet/toolchain.json",
    f"{HOSTS}/*",
    "/usr/local/lib/d1fleet/launcher",
)
"""Builders' processes and distcc go by these."""

FOLDERS = {"/run/d1fleet": 0o755, "/run/d1fleet/slots": 0o1777, "/run/d1fleet/drain": None}
"""Modes; None where root may have let others in."""

IN_EFFECT = {"NoNewPrivs": "1", "CapEff": "0" * 16, "Seccomp": "2"}
"""Of the compile server's process: proc(5)."""

SAID = (
    "NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectSystem", "ProtectHome", "ProtectProc",
    "ProtectClock", "ProtectControlGroups", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules",
    "ProtectKernelTunables", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality",
    "OOMScoreAdjust", "Restart", "User",
)  # fmt: skip
"""Settings whose words in a unit are those that systemd shows."""

_REVERT = f"systemctl revert {BOTH}; systemctl daemon-reload; systemctl restart {BOTH}"

found, checked, not_checked = [], [], {}


def finding(id_, severity, what, mend, root="", play=""):
    found.append(
        {"id": id_, "severity": severity, "what": what[:1000], "mend": mend, "root": root, "play": play}
    )


def run(*argv):
    """(status, what it prints); 127 where it cannot be run, 124 where it does not end."""
    environ = {
        **os.environ,
        "LC_ALL": "C",
        "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin",
    }
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            check=False,
            env=environ,
        )
    except subprocess.TimeoutExpired:
        return 124, "it did not end"
    except OSError as error:
        return 127, f"{argv[0]}: {error.strerror}"
    return done.returncode, done.stdout


def read(path):
    try:
        with open(path, errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


# -- files ---------------------------------------------------------------------------------------------


def check_files():
    """All of it belongs to root, and nobody else may write it."""
    wrong = []
    for path in sorted({*_below(OURS), *(path for pattern in OUR_FILES for path in glob.glob(pattern))}):
        fault = _file_fault(path)
        if fault:
            wrong.append((path, fault))
    if wrong:
        paths = " ".join(shlex.quote(path) for path, _ in wrong[:20])
        some = "; ".join(f"{path} {fault}" for path, fault in wrong[:3])
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        finding(
            "files",
            "fault",
            f"others can change what root or builders run: {some}{more}",
            "find out who did it; then make it root's again",
            root=f"chown -h root:root {paths} && chmod go-w {paths}",
        )
    hidden = [
        path
        for path in sorted(path for pattern in READ_BY_ALL for path in glob.glob(pattern))
        if not os.lstat(path).st_mode & 0o004
    ]
    if hidden:
        paths = " ".join(map(shlex.quote, hidden[:20]))
        what = f"builders cannot read what their builds go by: {', '.join(hidden[:3])}"
        finding("files-hidden", "fault", what, "let them", root=f"chmod a+r {paths}")
    for path, mode in FOLDERS.items():
        fault = _folder_fault(path, mode)
        if fault and os.path.exists("/etc/tmpfiles.d/d1fleet.conf"):
            finding(
                "run-folders",
                "fault",
                f"{path} {fault}",
                "have it made anew",
                root="systemd-tmpfiles --create /etc/tmpfiles.d/d1fleet.conf",
            )
            break


def _below(folders):
    for top in folders:
        if os.path.lexists(top):
            yield top
        for folder, folders_below, files in os.walk(top):
            yield from (os.path.join(folder, name) for name in (*folders_below, *files))


def _file_fault(path):
    status = os.lstat(path)
    if status.st_uid:
        return f"belongs to uid {status.st_uid}"
    if not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o022:
        return f"has mode {stat.S_IMODE(status.st_mode):04o}"
    return ""


def _folder_fault(path, mode):
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return "is not there"
    if not stat.S_ISDIR(status.st_mode) or status.st_uid:
        return "is no folder of root's"
    is_so = stat.S_IMODE(status.st_mode)
    if mode is not None and is_so != mode:
        return f"has mode {is_so:04o}, not {mode:04o}"
    return "can be written by everybody" if mode is None and is_so & 0o002 else ""


# -- packages ------------------------------------------------------------------------------------------


def check_pins():
    """What a run of site.yml that was killed may leave: apt would go on to prefer these versions."""
    if OF_ONE_RUN in read(PINS):
        finding(
            "toolchain-pins",
            "warning",
            f"{PINS} holds versions for one run of site.yml: one is under way, or was broken off",
            "where none is, run it again",
            play="site",
        )


# -- sshd ------------------------------------------------------------------------------------------------


def check_sshd():
    """What sshd says that it does, against our drop-in."""
    wanted = dict(
        line.split(None, 1)
        for line in read(SSHD_OURS).splitlines()
        if line and line[0] != "#" and " " in line
    )
    if not wanted:
        finding("sshd-settings", "fault", f"{SSHD_OURS} is not there", "enrol the host again", play="site")
        return
    made = not os.path.isdir("/run/sshd")
    if made:
        not_checked["sshd's settings"] = "sshd has not been started since boot"
        return
    status, said = run("sshd", "-t")
    if status:
        text = " ".join(said.split())
        finding("sshd-broken", "fault", f"sshd refuses its configuration: {text}", "correct what it names")
        return
    status, said = run("sshd", "-T", "-C", "user=root,host=x,addr=127.0.0.1,laddr=127.0.0.1,lport=22")
    effective = dict(line.split(None, 1) for line in said.splitlines() if " " in line)
    for keyword, value in wanted.items():
        is_so = effective.get(keyword.lower(), "")
        start = value.split(":")
        same = is_so == (value if len(start) != 1 or keyword != "MaxStartups" else f"{value}:100:{value}")
        if keyword == "AuthorizedKeysFile":
            same = set(value.split()) <= set(is_so.split())
        if not same:
            where = _setters(keyword.lower())
            finding(
                "sshd-limits",
                "warning",
                f"sshd has {keyword} {is_so}, our drop-in says {value}{where}",
                "take the line out that is stronger than ours, and reload sshd",
            )


def _setters(keyword):
    lines = []
    for path in ["/etc/ssh/sshd_config", *sorted(glob.glob("/etc/ssh/sshd_config.d/*.conf"))]:
        for number, line in enumerate(read(path).splitlines(), 1):
            if (
                path != SSHD_OURS
                and line.replace("=", " ").split()[:1]
                and line.split()[0].lower() == keyword
            ):
                lines.append(f"{path} line {number}")
    return f" ({', '.join(lines[:3])})" if lines else ""


# -- distcc ------------------------------------------------------------------------------------------------


def check_distcc():
    """Units, processes, the packet filter, hosts files, and the journal."""
    vendors = show(VENDORS)
    if vendors.get("LoadState") not in ("masked", "not-found"):
        active = vendors.get("ActiveState") == "active"
        finding(
            "distcc-vendor",
            "fault" if active else "warning",
            f"the distribution's own {VENDORS} "
            + ("runs, without our confinement" if active else "is not masked"),
            "mask it",
            root=f"systemctl mask --now {VENDORS}",
        )
    if os.path.exists(f"{UNITS}/{SERVER}"):
        check_units()
        check_table()
        check_journal()
    for path in sorted(glob.glob(f"{HOSTS}/*")):
        status, said = run("/usr/bin/python3", "-ISE", CHECK_HOSTS, path)
        if status:
            what = f"{path}: {said.strip()}"
            anew = {"root": f"systemctl restart {CHECK_IN}"} if checks_in() else {"play": "refresh"}
            finding("hosts-file", "fault", what, "have it written again", **anew)


def show(unit):
    """systemd's properties of a unit."""
    names = ",".join(
        (
            "LoadState",
            "ActiveState",
            "Result",
            "UnitFileState",
            "NeedDaemonReload",
            "DropInPaths",
            "MainPID",
            *SAID,
        )
    )
    _, said = run("systemctl", "show", "--no-pager", "-p", names, "--", unit)
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def check_units():
    for unit in (GUARD, SERVER):
        state = show(unit)
        if state.get("ActiveState") != "active":
            finding(
                "distcc-down",
                "fault",
                f"{unit} is {state.get('ActiveState')} ({state.get('Result')})",
                f"start it; its log: journalctl -u {unit} -n 30",
                root=f"systemctl unmask {BOTH}; systemctl enable --now {BOTH}",
            )
            continue
        if state.get("UnitFileState") != "enabled":
            finding(
                "distcc-boot",
                "warning",
                f"{unit} is {state.get('UnitFileState')}: it does not start at boot",
                "enable it",
                root=f"systemctl enable {BOTH}",
            )
        changed = state.get("DropInPaths", "")
        if changed or state.get("NeedDaemonReload") == "yes":
            why = f"is changed by {changed}" if changed else "was written anew, and systemd has not read that"
            finding(
                "distcc-unit", "warning", f"{unit} {why}", "take changes away, start it anew", root=_REVERT
            )
        wanted = dict(
            line.split("=", 1)
            for line in read(f"{UNITS}/{unit}").splitlines()
            if "=" in line and line[0] != "#"
        )
        differs = [
            f"{name}={state[name]}, not {wanted[name]}"
            for name in SAID
            if name in wanted and name in state and state[name] != wanted[name]
        ]
        if differs:
            finding(
                "distcc-hardening",
                "fault",
                f"{unit} has {', '.join(differs)}",
                "take changes away (`systemctl cat` shows them), start it anew",
                root=_REVERT,
            )
        if unit == SERVER:
            check_process(state.get("MainPID", "0"), wanted)


def check_process(pid, wanted):
    """What the kernel says of the process that listens."""
    status = dict(line.split(":", 1) for line in read(f"/proc/{pid}/status").splitlines() if ":" in line)
    if not status:
        finding(
            "distcc-process",
            "fault",
            f"{SERVER} has no process",
            "start it anew",
            root=f"systemctl restart {BOTH}",
        )
        return
    wrong = [
        f"{name} is {status.get(name, '?').strip()}, not {value}"
        for name, value in IN_EFFECT.items()
        if status.get(name, "").strip() != value
    ]
    try:
        if os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/1/ns/mnt"):
            wrong.append("it sees all mounts of this host (no namespace of its own)")
    except PermissionError:  # root of a container
        not_checked["the compile server's mount namespace"] = "root may not look at it here"
    if status.get("Uid", "0").split()[0] == "0":
        wrong.append("it runs as root")
    if wrong:
        finding(
            "distcc-confinement",
            "fault",
            f"its compile server: {'; '.join(wrong)}",
            "start it anew",
            root=_REVERT,
        )
    words = wanted.get("ExecStart", "").split()
    running = read(f"/proc/{pid}/cmdline").split("\0")[:-1]
    if words and running != words:
        finding(
            "distcc-old",
            "warning",
            "its compile server was started with other arguments than its unit has now",
            "start it anew",
            root=f"systemctl daemon-reload; systemctl restart {BOTH}",
        )
    elif "--nice" in words:
        nice = int(words[words.index("--nice") + 1]) + os.getpriority(os.PRIO_PROCESS, 1)
        is_so = os.getpriority(os.PRIO_PROCESS, int(pid))
        if is_so != min(nice, 19):
            what = f"its compile server runs at nice {is_so}, not {nice}"
            finding("distcc-nice", "warning", what, "start it anew", root=_REVERT)
    port = words[words.index("--port") + 1] if "--port" in words else "3632"
    try:
        socket.create_connection(("127.0.0.1", int(port)), 3).close()
    except OSError as error:
        what = f"its compile server does not answer at port {port}: {error}"
        finding("distcc-silent", "fault", what, "start it anew", root=f"systemctl restart {BOTH}")


def check_table():
    """The kernel's table, against what is written: that is loaded in a network namespace of its own."""
    name = ("list", "table", "inet", "d1fleet_distcc")
    status, kernel = run("nft", *name)
    again = f"systemctl restart {BOTH}"
    if status:
        finding("nft", "fault", "the kernel has no table inet d1fleet_distcc", "load it", root=again)
        return
    script = f"nft -f {TABLE_FILE} && exec nft {' '.join(name)}"
    status, written = run("unshare", "--net", "sh", "-c", script)
    if status:
        not_checked["the packet filter against its file"] = " ".join(written.split())[:200]
    elif _lines(kernel) != _lines(written):
        more = sorted(_lines(kernel) - _lines(written)) + sorted(_lines(written) - _lines(kernel))
        finding(
            "nft",
            "fault",
            f"the packet filter is not as {TABLE_FILE} says: {' / '.join(more)[:400] or 'the order differs'}",
            "load it anew; where the file is old, run playbooks/refresh.yml",
            root=f"nft -f {TABLE_FILE}",
        )


def _lines(text):
    """Rules and sets, with what stands on several lines as one."""
    joined = re.sub(r",\s+", ", ", text)
    return {" ".join(line.split()) for line in joined.splitlines()}


def checks_in():
    """Does a registry tell this host who its peers are?"""
    return os.path.exists(f"{UNITS}/{CHECK_IN}")


def check_check_in():
    """Without it, the host keeps the peers that it was told of last."""
    for unit in (WAY_IN, CHECK_IN) if checks_in() else ():
        state = show(unit)
        if state.get("ActiveState") != "active":
            finding(
                "checkin-down",
                "fault",
                f"{unit} is {state.get('ActiveState')} ({state.get('Result')}): no news of peers comes in",
                f"start it; its log: journalctl -u {CHECK_IN} -n 30",
                root=f"systemctl enable --now {WAY_IN} {CHECK_IN}",
            )
            return
        if state.get("UnitFileState") != "enabled":
            finding(
                "checkin-boot",
                "warning",
                f"{unit} is {state.get('UnitFileState')}: it does not start at boot",
                "enable it",
                root=f"systemctl enable {WAY_IN} {CHECK_IN}",
            )


def check_journal():
    """What has gone wrong lately."""
    argv = ("journalctl", "--unit", SERVER, "--since", "-1day", "--no-pager", "-q", "-o", "cat")
    status, said = run(*argv)
    if status:
        not_checked["distcc's journal"] = " ".join(said.split())[:200]
        return
    lines = [re.sub(r"^distccd\[\d+\] ", "", line) for line in said.splitlines()]
    refused = [line for line in lines if re.search(r"CRITICAL|not allowed|denied", line)]
    for line in list(dict.fromkeys(refused))[-3:]:
        count = refused.count(line)
        what = f"distcc's journal of the last day, {count} times: {line[:300]}"
        mend = "where it names a client, that is no member, or members have changed: playbooks/refresh.yml"
        finding("distcc-journal", "note", what, mend)


def attempt(what, check):
    """One check; that it breaks is no reason not to tell of the others."""
    try:
        check()
    except (OSError, ValueError, IndexError, KeyError, subprocess.SubprocessError) as error:
        not_checked[what] = f"{type(error).__name__}: {error}"
    else:
        checked.append(what)


def main():
    if not os.path.exists(MARK):
        finding("not-enrolled", "fault", "it is not enrolled", "enrol it", play="site")
    else:
        attempt("owners and modes", check_files)
        attempt("apt's pins", check_pins)
        attempt("sshd's settings", check_sshd)
        attempt("distcc", check_distcc)
        attempt("the check-in", check_check_in)
    json.dump({"checked": checked, "not_checked": not_checked, "findings": found}, sys.stdout)


if __name__ == "__main__":
    main()
