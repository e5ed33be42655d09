"""What the host was like before d1fleet changed it, kept so that retiring puts it back: before.py VERB [JSON]

    first       at enrolment: folders that are not there yet, and the unit of the distribution's distcc
    users JSON  {"users": [{"name": TEXT, "uid": NUMBER, "group": TEXT, "gid": NUMBER, "groups": [TEXT, ...],
                "shell": TEXT, "comment": TEXT}, ...]} that are about to be made, or changed to that
    files JSON  {"files": [PATH, ...]} that are about to be overwritten
    packages    before a package manager runs
    came JSON   {"names": [NAME, ...]} after it: these, what they brought along, and users that came with them
    show        all of it, for retiring
    wait JSON   {"seconds": NUMBER}: returns when nobody uses the host, or after that time
    purge JSON  {"dry": BOOL}: removes the packages that came, but for those that something else needs by now

`show` prints:

    "folders"        {PATH: was it there}
    "unit"           {"enabled": TEXT, "active": BOOL}, as systemctl says
    "gone"           [NAME, ...]: users that were made, and are still those
    "changed"        [{"name": TEXT, "shell": TEXT or null, "comment": TEXT or null}, ...]: how users were,
                     where that was changed and is still as it was changed to
    "added"          [[NAME, GROUP], ...]: users that were put into a group, and are in it
    "gone_groups"    [{"name": TEXT, "gid": NUMBER}, ...]: groups that were made
    "kept_groups"    the same: users' own groups that were there before
    "files"          {PATH: {"content": base64, "mode": "0644", "owner": UID, "group": GID}, null if none}
    "packages", "package_users"   [NAME, ...]
    "login"          who has used sudo to get here
    "there"          whether anything was noted

`wait` prints {"busy": [TEXT, ...]}: builds' recipes, and processes of users that were made at enrolment.
`purge` prints {"removed": [NAME, ...], "needed": {NAME: [NAME or PATH, ...]: by what}}.

Needs Python 3.9 and nothing else; packages are Debian's alone.
"""

import base64
import contextlib
import glob
import grp
import json
import os
import pwd
import re
import subprocess
import sys
import time

NOTED = "/etc/d1fleet/before.json"
FOLDERS = ("/etc/ansible", "/etc/ansible/facts.d", "/etc/distcc")
UNIT = "distcc.service"
SLOTS = "/run/d1fleet/slots/slot.*"
FIRST_PERSON = 1000
"""Debian's: users below that are of packages."""

LONGEST_FILE = 1 << 20

os.environ.update(LC_ALL="C", DEBIAN_FRONTEND="noninteractive")


def read():
    try:
        with open(NOTED) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def write(noted):
    os.makedirs(os.path.dirname(NOTED), exist_ok=True)
    new = NOTED + ".new"
    with open(new, "w") as file:
        os.fchmod(file.fileno(), 0o600)  # a file that was overwritten may have been somebody's secret
        json.dump(noted, file, indent=2, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, NOTED)


def said(*argv):
    """What a program prints; nothing where there is no such program."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


def first():
    noted = read()
    if "folders" not in noted:
        noted["folders"] = {path: os.path.isdir(path) for path in FOLDERS}
        enabled = said("systemctl", "is-enabled", UNIT).strip()
        active = said("systemctl", "is-active", UNIT).strip() == "active"
        noted["unit"] = {"enabled": enabled, "active": active}
        write(noted)


def users(given):
    noted = read()
    for wanted in given["users"]:
        name = wanted["name"]
        there = user(name)
        # Who is gone, or somebody else by now, is not the one that was noted.
        old = noted.setdefault("users", {}).get(name)
        if old is None or there is None or there["uid"] != old["uid"]:
            old = {"made": there is None, "uid": wanted["uid"], "before": there, "set": {}, "added": []}
        for key in ("shell", "comment"):
            if wanted.get(key):
                old["set"][key] = wanted[key]
        new = set(wanted.get("groups") or ()) - set(there["groups"] if there else ())
        old["added"] = sorted(new.union(old["added"]))
        noted["users"][name] = old
        group = {"gid": wanted["gid"], "made": gid(wanted["group"]) is None}
        noted.setdefault("groups", {}).setdefault(wanted["group"], group)
    write(noted)


def user(name):
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = [each.gr_name for each in grp.getgrall() if name in each.gr_mem]
    return {"uid": found.pw_uid, "shell": found.pw_shell, "comment": found.pw_gecos, "groups": groups}


def gid(group):
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def people(noted):
    """What has become of users and groups, and what of it is ours to take back."""
    found = {"gone": [], "changed": [], "added": [], "gone_groups": [], "kept_groups": []}
    for name, old in noted.get("users", {}).items():
        now = user(name)
        if now is None or now["uid"] != old["uid"]:
            continue
        if old["made"]:
            found["gone"].append(name)
            continue
        back = {
            key: old["before"][key]
            for key, value in old["set"].items()
            if now[key] == value != old["before"][key]
        }
        if back:
            found["changed"].append({"name": name, "shell": None, "comment": None, **back})
        found["added"] += [[name, group] for group in old["added"] if group in now["groups"]]
    for name, old in noted.get("groups", {}).items():
        if gid(name) == old["gid"]:
            found["gone_groups" if old["made"] else "kept_groups"].append({"name": name, "gid": old["gid"]})
    return found


def files(given):
    noted = read()
    known = noted.setdefault("files", {})
    for path in given["files"]:
        # What was removed since, because another file of ours took its place, is still what was there.
        known[path] = content(path) or known.get(path)
    write(noted)


def content(path):
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        text = base64.b64encode(file.read(LONGEST_FILE)).decode()
    return {
        "content": text,
        "mode": f"{found.st_mode & 0o7777:04o}",
        "owner": found.st_uid,
        "group": found.st_gid,
    }


def installed():
    lines = said("dpkg-query", "-W", "-f", "${binary:Package} ${db:Status-Abbrev}\\n").splitlines()
    return sorted(line.split()[0] for line in lines if line.split()[1][1:2] == "i")


def packages():
    noted = read()
    # In place of what a run has left that was broken off: whatever came since may be somebody else's.
    noted["packages_before"] = installed()
    noted["users_before"] = [each.pw_name for each in pwd.getpwall()]
    write(noted)


def came(given):
    noted = read()
    if "packages_before" not in noted:
        return
    new = set(installed()) - set(noted.pop("packages_before"))
    # Somebody else may have run apt at the same time: what was asked for by name, and not by us, is theirs.
    ours = {each.partition("=")[0] for each in given["names"]} | {"python3-apt"}
    automatic = set(said("apt-mark", "showauto").split())
    new = {name for name in new if plain(name) in ours or {name, plain(name)} & automatic}
    noted["packages"] = sorted(new.union(noted.get("packages", ())))
    before = {*noted.pop("users_before"), *noted.get("users", ())}
    if new:
        people = {each.pw_name for each in pwd.getpwall() if each.pw_uid < FIRST_PERSON} - before
        noted["package_users"] = sorted(people.union(noted.get("package_users", ())))
    write(noted)


def running():
    """How many slots are taken: each by a recipe, or about to be."""
    files = {}
    for path in glob.glob(SLOTS):
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(path)
            files[f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"] = path
    with open("/proc/locks") as file:
        locked = re.findall(r"FLOCK +ADVISORY +WRITE +-?\d+ (\S+)", file.read())
    return len(files.keys() & set(locked))


def show():
    noted = read()
    shown = {key: noted.get(key, {}) for key in ("folders", "unit", "files")}
    shown.update({key: noted.get(key, []) for key in ("packages", "package_users")})
    login = os.environ.get("SUDO_USER", "")
    return {**shown, **people(noted), "login": login, "there": bool(noted)}


def wait(given):
    end = time.monotonic() + given["seconds"]
    while (found := busy()) and time.monotonic() < end:
        time.sleep(1)
    return {"busy": found}


def busy():
    count = running()
    found = [f"{count} {'recipe' if count == 1 else 'recipes'} of builds"] if count else []
    for name, commands in sorted(processes(people(read())["gone"]).items()):
        found.append(f"{', '.join(sorted(commands))} of {name}")
    return found


def processes(names):
    """Commands of those users; one with a process cannot be removed."""
    uids = {each.pw_uid: each.pw_name for each in pwd.getpwall() if each.pw_name in names}
    found = {}
    for folder in glob.glob("/proc/[0-9]*"):
        with contextlib.suppress(OSError):
            uid = os.stat(folder).st_uid
            if uid in uids:
                with open(folder + "/comm") as file:
                    found.setdefault(uids[uid], []).append(file.read().strip())
    return found


def purged(names):
    """What apt would remove along with packages, themselves too."""
    lines = said("apt-get", "--simulate", "purge", *names)
    return set(re.findall(r"(?m)^(?:Purg|Remv) (\S+)", lines))


def plain(name):
    """apt leaves out the machine's own architecture, dpkg does not always."""
    return name.partition(":")[0]


def changed_files(package):
    """Its configuration that somebody has changed: purging would remove it."""
    lines = said("dpkg", "--verify", package)
    return re.findall(r"(?m)^..5\S* c (/.+)$", lines)


def purge(given):
    ours = [name for name in show()["packages"] if name in installed()]
    needed = {name: files for name in ours if (files := changed_files(name))}
    ours = [name for name in ours if name not in needed]
    # One round is enough where nothing else has come to need them.
    while ours:
        known = {plain(name) for name in ours}
        if {plain(name) for name in purged(ours)} <= known:
            break
        others = {name: {plain(each) for each in purged([name])} - known for name in ours}
        kept = {name: sorted(them) for name, them in others.items() if them}
        if not kept:  # any of several would do for somebody, who needs them together
            others = sorted({plain(name) for name in purged(ours)} - known)
            kept = dict.fromkeys(ours, others)
        needed.update(kept)
        ours = [name for name in ours if name not in kept]
    if ours and not given["dry"]:
        done = subprocess.run(
            ["apt-get", "--quiet", "--yes", "-o", "DPkg::Lock::Timeout=300", "purge", *ours],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"apt-get purge: {done.stderr.strip() or done.stdout.strip()[-2000:]}")
    return {"removed": ours, "needed": needed}


if __name__ == "__main__":
    os.umask(0o022)
    known = ("first", "users", "files", "packages", "came", "show", "wait", "purge")
    verbs = {name: globals()[name] for name in known}
    json.dump(verbs[sys.argv[1]](*map(json.loads, sys.argv[2:])) or {}, sys.stdout)
