"""What a Debian host has and can get of the packages that it compiles with: host_packages.py VERB JSON

    installed   {"names": [NAME, ...], "versions": {NAME: VERSION}}: what it shall have, at which versions
                prints {"lacking": [NAME, ...]: not there, or at another version,
                "packages": {SOURCE: {PACKAGE: VERSION}}: what is there of them, and of what they depend on}
    obtainable  {"names": [NAME, ...], "also": [PACKAGE, ...]}: what apt would install, and what it could
                prints {"would": [PACKAGE, ...], "there": {PACKAGE: VERSION}: of all of these what it has,
                "candidates": {PACKAGE: VERSION}, "versions": {PACKAGE: [VERSION, ...]}: newest first}
    fits        {"names": [NAME, ...], "pins": {PACKAGE: VERSION}}: whether apt can install them so
                prints {"fault": TEXT}

Names that are none are left out: some of them come from other hosts, and apt takes options that run programs.
Dependencies are followed to all that is there. Of these, a source package counts where one of its packages
is to develop with: `gcc-12` and all that was built with it, but not zlib. Needs Python 3.9 and nothing else.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time

SECTIONS = {"devel", "libdevel", "interpreters"}
"""Of packages to develop with: compilers, headers, preprocessors."""

LISTS = "/var/lib/apt/lists"
PREFERENCES = "/etc/apt/preferences"
STALE_S = 3600
LOCK_S = 300
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._:-]*")
"""Of a package, also with an architecture."""
WANTED = re.compile(NAME.pattern + r"(=[A-Za-z0-9.+:~_-]+)?")

PRIORITY = 990
"""Before what is newer, and never a downgrade: apt_preferences(5)."""

FIELDS = (
    "binary:Package",
    "db:Status-Abbrev",
    "Version",
    "source:Package",
    "Section",
    "Provides",
    "Pre-Depends",
    "Depends",
)


def run(*argv):
    environ = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environ)


def plain(name):
    """Some packages of the machine's own architecture have it behind their names."""
    return name.partition(":")[0]


def there():
    """{package: {field: text}} of all that is installed."""
    text = run("dpkg-query", "-W", "-f", "\\t".join(f"${{{field}}}" for field in FIELDS) + "\\n").stdout
    own = run("dpkg", "--print-architecture").stdout.strip()
    found = {}
    for line in text.splitlines():
        fields = {FIELDS[at]: text for at, text in enumerate(line.split("\t", len(FIELDS) - 1))}
        name, _, architecture = fields["binary:Package"].partition(":")
        if fields["db:Status-Abbrev"][1:2] == "i" and architecture in ("", own):
            found[name] = fields
    return found


def depends(fields):
    """Names of packages that one asks for, all of several alternatives."""
    text = ",".join(fields[name] for name in ("Pre-Depends", "Depends"))
    return {plain(each.strip().split(" ")[0]) for each in re.split(r"[,|]", text) if each.strip()}


def closure(names, found):
    """Names of all that is there and that these depend on, themselves too."""
    provided = {}
    for name, fields in found.items():
        for each in filter(None, fields["Provides"].split(",")):
            provided.setdefault(each.strip().split(" ")[0], []).append(name)
    known, waiting = set(), [name for name in names if name in found]
    while waiting:
        name = waiting.pop()
        if name not in known:
            known.add(name)
            for each in depends(found[name]):
                waiting += [each] if each in found else provided.get(each, [])
    return known


def installed(given):
    found = there()
    names = {name: plain(name) for name in given["names"]}
    lacking = [
        name
        for name, package in names.items()
        if package not in found or given["versions"].get(name) not in (None, found[package]["Version"])
    ]
    known = closure(names.values(), found)
    sources = {
        found[name]["source:Package"]
        for name in known
        if name in names.values() or found[name]["Section"].rpartition("/")[2] in SECTIONS
    }
    packages = {}
    for name in sorted(known):
        source = found[name]["source:Package"]
        if source in sources:
            packages.setdefault(source, {})[name] = found[name]["Version"]
    return {"lacking": lacking, "packages": packages}


def obtainable(given):
    refresh()
    simulated = simulate(given["names"]).stdout
    would = sorted({plain(name) for name in re.findall(r"(?m)^Inst (\S+) ", simulated)})
    wanted = sorted(filter(NAME.fullmatch, {*would, *given["also"]}))
    has = {name: fields["Version"] for name, fields in there().items() if name in wanted}
    return {"would": would, "there": has, **policy(wanted)}


def refresh():
    try:
        age_s = time.time() - os.stat(LISTS).st_mtime
    except FileNotFoundError:
        age_s = STALE_S
    if age_s >= STALE_S or not any(name.endswith("_Packages") for name in os.listdir(LISTS)):
        # Whoever else runs apt is waited for, as the installation does.
        end = time.monotonic() + LOCK_S
        while (done := run("apt-get", "--quiet", "update")).returncode and time.monotonic() < end:
            if "lock" not in done.stderr:
                break
            time.sleep(2)


def policy(wanted):
    """What apt says of packages: versions newest first, `***` in front of the one that is there."""
    candidates, versions, name = {}, {}, ""
    for line in run("apt-cache", "policy", "--", *wanted).stdout.splitlines() if wanted else ():
        candidate = re.match(r"  Candidate: (\S+)$", line)
        version = re.match(r" (?:   |\*\*\*) (\S+) -?\d+$", line)
        if candidate and candidate[1] != "(none)":
            candidates[name] = candidate[1]
        elif version:
            versions.setdefault(name, []).append(version[1])
        elif re.match(r"\S+:$", line):
            name = plain(line[:-1])
    return {"candidates": candidates, "versions": versions}


def fits(given):
    with tempfile.NamedTemporaryFile("w", prefix="d1fleet-") as file:
        os.chmod(file.name, 0o644)
        # It stands in place of that file; what lies in the folder beside it counts as ever.
        with contextlib.suppress(FileNotFoundError), open(PREFERENCES, errors="replace") as other:
            file.write(other.read().rstrip("\n") + "\n\n")
        for name, version in given["pins"].items():
            if not WANTED.fullmatch(f"{name}={version}"):
                continue
            file.write(f"Package: {name}\nPin: version {version}\nPin-Priority: {PRIORITY}\n\n")
        file.flush()
        done = simulate(given["names"], "-o", f"Dir::Etc::Preferences={file.name}")
    if not done.returncode:
        return {"fault": ""}
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    told = [line for line in lines if "Depends:" in line or line.startswith("E:")]
    return {"fault": " / ".join(told[:3]) or f"apt-get ended with {done.returncode}"}


def simulate(names, *options):
    asked = ("apt-get", "--simulate", "--no-install-recommends", "--no-remove", "--allow-downgrades")
    return run(*asked, *options, "install", "--", *filter(WANTED.fullmatch, names))


if __name__ == "__main__":
    verbs = {"installed": installed, "obtainable": obtainable, "fits": fits}
    json.dump(verbs[sys.argv[1]](json.loads(sys.argv[2])), sys.stdout)
