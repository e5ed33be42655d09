"""What the host was like before d1fleet changed it, kept so that retiring puts it back: before.py VERB [JSON]

    first       at enrolment: folders that are not there yet, and the unit of the distribution's distcc
    users JSON  {"users": [{"name": TEXT, "uid": NUMBER, "group": TEXT, "gid": NUMBER, "groups": [TEXT, ...],
                "shell": TEXT, "comment": TEXT}, ...]} that are about to be made, or changed to that
    files JSON  {"files": [PATH, ...]} that are about to be overwritten
    packages JSON   {"names": [NAME, ...]} that a package manager is about to be asked for
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
    "perhaps"        [TEXT, ...]: packages and users that came in the time of a run that was broken off, and
                     of which nothing says whose they are
    "login"          who has used sudo to get here
    "there"          whether anything was noted

`wait` prints {"busy": [TEXT, ...]}: builds' recipes, and processes of users that were made at enrolment.
`purge` prints {"removed": [NAME, ...], "needed": {NAME: [NAME, PATH or who, ...]: by what}}.

Several may run at once. `packages` opens a note, and `came` closes it. One that is open later is of a run
that was broken off: the next `packages` goes on with it, and `show` and `purge` count what has come since.

Needs Python 3.9 and nothing else; packages are Debian's alone.
"""

import base64
import contextlib
import fcntl
import glob
import grp
import json
import os
import pwd
import re
import subprocess
import sys
import tempfile
import time

NOTED = os.environ.get("D1FLEET_NOTED", "/etc/d1fleet/before.json")
"""Role registry keeps notes of its own: a host may serve a fleet that it is not in."""

FOLDERS = ("/etc/ansible", "/etc/ansible/facts.d", "/etc/distcc")
UNIT = "distcc.service"
SLOTS = "/run/d1fleet/slots/slot.*"
FIRST_PERSON = 1000
"""Debian's: users below that are of packages."""

LONGEST_FILE = 1 << 20
LONGEST_INSTALL_S = 3600
"""A guess: what was asked for longer ago, and has not come, was broken off."""
SCRIPTS = "/var/lib/dpkg/info"
SOMEBODY = "somebody who has asked for it since"

os.environ.update(LC_ALL="C", DEBIAN_FRONTEND="noninteractive")


def read():
    try:
        with open(NOTED) as file:
            noted = json.load(file)
        if not isinstance(noted, dict):
            raise ValueError("no object")
        return noted
    except FileNotFoundError:
        return {}
    except ValueError as exc:
        sys.exit(
            f"{NOTED} cannot be read: it is not the JSON that enrolment has written ({exc}). Put a copy of "
            "it back; or move it away: retiring then leaves all that it cannot know to have come with us."
        )


@contextlib.contextmanager
def changing():
    """The notes, which nobody else changes meanwhile, and which are written if that went well."""
    os.makedirs(os.path.dirname(NOTED), exist_ok=True)
    # Root's alone: anybody could lock the folder itself, and keep us waiting.
    lock = os.open(NOTED + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        noted = read()
        yield noted
        if noted != read():
            write(noted)
    finally:
        os.close(lock)


def write(noted):
    os.makedirs(os.path.dirname(NOTED), exist_ok=True)
    for path in glob.glob(NOTED + ".*.new"):  # of one that was killed: whoever writes has the lock
        os.unlink(path)
    # Readable by us alone: a file that was overwritten may have been somebody's secret.
    new, name = tempfile.mkstemp(".new", os.path.basename(NOTED) + ".", os.path.dirname(NOTED))
    with open(new, "w") as file:
        json.dump(noted, file, indent=2, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    os.replace(name, NOTED)


def said(*argv):
    """What a program prints; nothing where there is no such program."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


def first():
    with changing() as noted:
        if "folders" not in noted:
            noted["folders"] = {path: os.path.isdir(path) for path in FOLDERS}
            enabled = said("systemctl", "is-enabled", UNIT).strip()
            active = said("systemctl", "is-active", UNIT).strip() == "active"
            noted["unit"] = {"enabled": enabled, "active": active}


def users(given):
    with changing() as noted:
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
    with changing() as noted:
        known = noted.setdefault("files", {})
        for path in given["files"]:
            # What was removed since, because another file of ours took its place, is still what was there.
            known[path] = content(path) or known.get(path)


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
    """Also what is unpacked and no more: a run that was broken off leaves that."""
    lines = said("dpkg-query", "-W", "-f", "${binary:Package} ${db:Status-Abbrev}\\n").splitlines()
    return sorted(line.split()[0] for line in lines if line.split()[1][1:2] not in "nc")


def plain(name):
    """apt leaves out the machine's own architecture, dpkg does not always."""
    return name.partition(":")[0]


def bare(names):
    """Without versions and architectures."""
    return {plain(each.partition("=")[0]) for each in names}


def automatic(names):
    """Those that nobody has asked for by name, says apt."""
    marked = set(said("apt-mark", "showauto").split())
    return {name for name in names if {name, plain(name)} & marked}


def packages(given):
    with changing() as noted:
        if "packages_before" in noted:
            noted["packages_broken"] = True  # or another run is at it now
        else:
            noted["packages_before"] = installed()
            noted["users_before"] = [each.pw_name for each in pwd.getpwall()]
        run = {"names": given["names"], "at": time.time()}
        noted["packages_open"] = [*noted.get("packages_open", ()), run]
        # We are about to ask for these by name. Who was before us with that is somebody else.
        old, names = noted.get("packages_automatic", ()), bare(given["names"])
        ours = automatic(name for name in old if plain(name) in names)
        noted["packages_automatic"] = sorted(set(old) - ours)


def came(given):
    with changing() as noted:
        if "packages_before" not in noted:
            return
        there = bare(settle(noted, given["names"], noted.get("packages_broken", False)))
        runs = noted.get("packages_open", [])
        own = next((run for run in runs if run["names"] == given["names"]), None)
        since = time.time() - LONGEST_INSTALL_S
        runs = [
            run for run in runs if run is not own and run["at"] > since and not bare(run["names"]) <= there
        ]
        if runs:  # another run may be at it, and `came` is yet to be said for it
            noted["packages_open"] = runs
            return
        for key in ("packages_before", "users_before", "packages_open", "packages_broken"):
            noted.pop(key, None)


def settle(noted, names, broken):
    """Counts as ours what has come since the note was opened, and returns all that is installed.

    Somebody else may have run apt in that time: what was asked for by name, and not by us, is theirs.
    """
    there = installed()
    new = set(there).difference(noted["packages_before"])
    asked = bare(names).union(
        {"python3-apt"}, *(bare(run["names"]) for run in noted.get("packages_open", ()))
    )
    ours = {name for name in new if plain(name) in asked} | automatic(new)
    noted["packages"] = sorted(ours.union(noted.get("packages", ())))
    marked = automatic(noted["packages"])
    noted["packages_automatic"] = sorted(marked.union(noted.get("packages_automatic", ())))
    people = {each.pw_name for each in pwd.getpwall() if each.pw_uid < FIRST_PERSON}
    people -= {*noted["users_before"], *noted.get("users", ())}
    theirs = people
    if ours:
        # After a run that was broken off much time may have passed.
        theirs = people - named_by(ours) if broken else set()
        noted["package_users"] = sorted((people - theirs).union(noted.get("package_users", ())))
    if broken:
        noted["packages_perhaps"] = sorted((new - ours).union(noted.get("packages_perhaps", ())))
        noted["users_perhaps"] = sorted(theirs.union(noted.get("users_perhaps", ())))
    return there


def named_by(names):
    """Words of what these packages do when they are installed, users that they make among them."""
    paths = [
        f"{SCRIPTS}/{each}.{when}"
        for name in names
        for each in {name, plain(name)}
        for when in ("preinst", "postinst")
    ]
    paths += re.findall(r"(?m)^/.+/sysusers\.d/.+$", said("dpkg-query", "--listfiles", *sorted(names)))
    words = set()
    for path in paths:
        with contextlib.suppress(FileNotFoundError), open(path, errors="replace") as file:
            words.update(re.findall(r"[\w-]+", file.read()))
    return words


def settled():
    """The notes, with what has come since one was opened; on the host it stays open for `came`."""
    noted = read()
    if "packages_before" in noted:
        settle(noted, (), True)
    return noted


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
    noted = settled()
    shown = {key: noted.get(key, {}) for key in ("folders", "unit", "files")}
    shown.update({key: noted.get(key, []) for key in ("packages", "package_users")})
    perhaps = set(noted.get("packages_perhaps", ())).intersection(installed()).difference(shown["packages"])
    strangers = set(noted.get("users_perhaps", ())).difference(shown["package_users"])
    shown["perhaps"] = [*sorted(perhaps), *(f"user {name}" for name in sorted(strangers) if user(name))]
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


def changed_files(package):
    """Its configuration that somebody has changed: purging would remove it."""
    lines = said("dpkg", "--verify", package)
    return re.findall(r"(?m)^..5\S* c (/.+)$", lines)


def purge(given):
    noted, there = settled(), set(installed())
    ours = [name for name in noted.get("packages", ()) if name in there]
    came_along = set(noted.get("packages_automatic", ())).intersection(ours)
    needed = {name: [SOMEBODY] for name in sorted(came_along - automatic(came_along))}
    needed.update({name: files for name in ours if (files := changed_files(name))})
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
