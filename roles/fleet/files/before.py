"""What the host was like before d1fleet changed it, kept so that retiring puts it back: before.py VERB [JSON]

    first       at enrolment: folders that are not there yet, and the unit of the distribution's distcc
    users JSON  {"users": {NAME: [GROUP, ...]}, "groups": [NAME, ...]} that are about to be made or changed
    files JSON  {"files": [PATH, ...]} that are about to be overwritten; replaces what was noted of them
    packages    before a package manager runs
    came        after it: packages and users that came with it, also of a run that was broken off
    show        all of it, for retiring
    wait JSON   {"seconds": NUMBER}: returns when nobody uses the host, or after that time
    purge JSON  {"dry": BOOL}: removes the packages that came, but for those that something else needs by now

`show` prints:

    "folders"        {PATH: was it there}
    "unit"           {"enabled": TEXT, "active": BOOL}, as systemctl says
    "users"          {NAME: {"shell": TEXT, "comment": TEXT, "groups": [...], "added": [...]}, null if made}
    "groups"         {NAME: was it there}
    "files"          {PATH: {"content": base64, "mode": "0644", "owner": UID, "group": GID}, null if none}
    "packages", "package_users"   [NAME, ...]
    "login"          who has used sudo to get here
    "there"          whether anything was noted

`wait` prints {"busy": [TEXT, ...]}: builds' recipes, and processes of users that were made at enrolment.
`purge` prints {"removed": [NAME, ...], "needed": {NAME: [NAME, ...]: by what}}.

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
    for name, wanted in given["users"].items():
        found = noted.setdefault("users", {}).setdefault(name, user(name))
        if found:
            found["added"] = sorted({*found.get("added", ()), *wanted} - set(found["groups"]))
    for name in given["groups"]:
        noted.setdefault("groups", {}).setdefault(name, any(each.gr_name == name for each in grp.getgrall()))
    write(noted)


def user(name):
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = [each.gr_name for each in grp.getgrall() if name in each.gr_mem]
    return {"shell": found.pw_shell, "comment": found.pw_gecos, "groups": groups}


def files(given):
    noted = read()
    for path in given["files"]:
        noted.setdefault("files", {})[path] = content(path)
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
    # Of a run that was broken off: what it has brought counts.
    if "packages_before" not in noted:
        noted["packages_before"] = installed()
        noted["users_before"] = sorted(each.pw_name for each in pwd.getpwall())
        write(noted)


def came():
    noted = read()
    if "packages_before" not in noted:
        return
    new = set(installed()) - set(noted.pop("packages_before"))
    noted["packages"] = sorted(new.union(noted.get("packages", ())))
    new = {each.pw_name for each in pwd.getpwall()} - set(noted.pop("users_before"))
    noted["package_users"] = sorted(new.union(noted.get("package_users", ())))
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
    came_late = {"packages": noted.get("packages", []), "package_users": noted.get("package_users", [])}
    if "packages_before" in noted:
        came_late["packages"] = sorted({*came_late["packages"], *installed()} - set(noted["packages_before"]))
    answer = {"folders": {}, "unit": {}, "users": {}, "groups": {}, "files": {}, **noted, **came_late}
    answer.pop("packages_before", None)
    answer.pop("users_before", None)
    return {**answer, "login": os.environ.get("SUDO_USER", ""), "there": bool(noted)}


def wait(given):
    end = time.monotonic() + given["seconds"]
    while (found := busy()) and time.monotonic() < end:
        time.sleep(1)
    return {"busy": found}


def busy():
    count = running()
    found = [f"{count} {'recipe' if count == 1 else 'recipes'} of builds"] if count else []
    made = [name for name, was in read().get("users", {}).items() if was is None]
    for name, commands in sorted(processes(made).items()):
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


def purge(given):
    ours = [name for name in show()["packages"] if name in installed()]
    needed = {}
    # One round is enough where nothing else has come to need them.
    while ours:
        known = {plain(name) for name in ours}
        if {plain(name) for name in purged(ours)} <= known:
            break
        others = {name: {plain(each) for each in purged([name])} - known for name in ours}
        kept = {name: sorted(them) for name, them in others.items() if them}
        if not kept:
            break  # apt itself will say what is wrong
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
