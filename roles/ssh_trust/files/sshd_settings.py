"""What sshd makes of its configuration with our drop-in, and what the running one has: VERB JSON

VERBs take an object and print one:
  base     files of keys that sshd reads without us, and our drop-in as it is
  check    problems with `content` as our drop-in (null: as it is on disk), and whether the daemon is stale
  arm      have this host put back `former` by itself, unless `settle` comes in time
  settle   the new settings are good: disarm, and note what the daemon has read
  undo     put back `former` at once

No file of sshd's is touched to find out: all of its configuration is copied, with our drop-in left out or
replaced, and sshd is asked about the copy. Needs Python 3.9 and nothing else.
"""

import base64
import glob
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatchcase

MAIN = "/etc/ssh/sshd_config"
OURS = "/etc/ssh/sshd_config.d/10-d1fleet.conf"
STAMP = "/run/d1fleet_sshd.json"
GUARD = "/run/d1fleet_sshd_guard"
KEYWORDS = ("authorizedkeysfile", "maxstartups", "maxsessions")
DEEPEST_INCLUDE = 16  # sshd's own limit.
CLOCK_SLACK_S = 1.0  # Times of files are as coarse as the kernel's tick.

os.environ.update(LC_ALL="C", PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin")
SSHD = shutil.which("sshd")


class Line:
    """A setting: where it stands, its keyword in small letters, its values, and its Match or None."""

    def __init__(self, path, number, text, match):
        self.path, self.number, self.text, self.match = path, number, text.strip(), match
        found = re.match(r"([A-Za-z0-9]+)(?:\s*=\s*|\s+|$)(.*)", self.text)
        self.keyword = found[1].lower() if found else ""
        try:
            self.values = shlex.split(found[2], comments=True) if found else []
        except ValueError:
            self.values = found[2].split()

    def __str__(self):
        text = self.text.encode("utf-8", "backslashreplace").decode()
        return f"{self.path}:{self.number} ({text})"


def read(path):
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


class Configuration:
    """All of sshd's files, as they are with `content` in place of our drop-in; None leaves it out."""

    def __init__(self, content):
        self.content = content
        self.said = {}  # {user: effective settings}.
        self.lines = []  # In sshd's order.
        self.files = {}  # What sshd reads: {path: Lines}.
        self._read(MAIN, None, 0)

    def _read(self, path, match, depth):
        text = self.content if path == OURS else read(path)
        self.files[path] = []
        for number, each in enumerate((text or "").split("\n"), 1):
            line = Line(path, number, each, match)
            if line.keyword == "match":
                match = line.match = line
            self.files[path].append(line)
            self.lines.append(line)
            for name in self.included(line):
                if depth < DEEPEST_INCLUDE and (name == OURS or os.path.isfile(name)):
                    self._read(name, match, depth + 1)

    def included(self, line):
        found = []
        for value in line.values if line.keyword == "include" else []:
            pattern = value if value.startswith(("/", "~")) else "/etc/ssh/" + value
            names = set(glob.glob(pattern)) - {OURS}
            fits = os.path.dirname(pattern) == os.path.dirname(OURS) and fnmatchcase(OURS, pattern)
            found += sorted(names | ({OURS} if fits and self.content is not None else set()))
        return found

    def ask(self, *arguments, match=True):
        """Run sshd on a copy, without its Match blocks if that is wanted."""
        folder = tempfile.mkdtemp(prefix="d1fleet-sshd-")
        # sshd wants it even for a question; systemd makes it with the daemon.
        made = not os.path.isdir("/run/sshd")
        if made:
            os.mkdir("/run/sshd", 0o755)
        try:
            copies = {name: os.path.join(folder, str(at)) for at, name in enumerate(self.files)}
            for name, lines in self.files.items():
                with open(copies[name], "w", encoding="utf-8", errors="surrogateescape") as file:
                    file.write("\n".join(self._copied(line, copies, match) for line in lines))
            argv = [SSHD, *arguments, "-f", copies[MAIN]]
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
            said = done.stderr
            for name in sorted(copies, key=lambda name: -len(copies[name])):
                said = said.replace(copies[name], name)
            return done.returncode, done.stdout, " ".join(said.split())
        finally:
            shutil.rmtree(folder)
            if made:
                os.rmdir("/run/sshd")

    def _copied(self, line, copies, match):
        if line.match and not match:
            return "#"
        if line.keyword == "include":
            names = [copies.get(name, name) for name in self.included(line)]
            return "Include " + " ".join(f'"{name}"' for name in names) if names else "#"
        return line.text

    def effective(self, user=None):
        """Our three settings, for `user` or outside of Match blocks. A text if sshd does not say."""
        if not any(line.match for line in self.lines):
            user = None
        if user not in self.said:
            self.said[user] = self._effective(user)
        return self.said[user]

    def _effective(self, user):
        spec = f"user={user},host=x,addr=127.0.0.1,laddr=127.0.0.1,lport=22,rdomain=x"
        code, out, said = self.ask("-T", *(["-C", spec] if user else []), match=bool(user))
        if code:
            return said
        found = dict(line.partition(" ")[::2] for line in out.splitlines())
        return {key: found.get(key, "") for key in KEYWORDS}

    def setters(self, keyword):
        """Lines that are stronger than ours: in front of it, or else in Match blocks."""
        if keyword == "maxstartups":
            # Of this one, sshd 9.2 takes the last.
            return ", ".join(
                str(line) for line in self.lines if line.keyword == keyword and line.path != OURS
            )
        at = next((i for i, line in enumerate(self.lines) if line.path == OURS), len(self.lines))
        found = [line for line in self.lines[:at] if line.keyword == keyword and not line.match]
        found = found or [line for line in self.lines if line.keyword == keyword and line.match]
        return ", ".join(map(str, found)) or "a place that could not be found"

    def digest(self, builders):
        found = {json.dumps(self.effective(name), sort_keys=True) for name in [None, *builders]}
        return hashlib.sha256(repr(sorted(found)).encode()).hexdigest()


def content_of(path):
    """Bytes, or None if there is no such file."""
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def base(dry):
    if not dry:
        # Of a run that was broken off: this one tries a new login itself.
        settle_guard()
    if SSHD is None or not os.path.isfile(MAIN):
        return {"included": False}
    there = content_of(OURS)
    former = None if there is None else base64.b64encode(there).decode()
    if OURS not in Configuration("").files:
        return {"included": False}
    bare = Configuration(None)
    code, _, said = bare.ask("-t")
    found = bare.effective()
    broken = f"sshd refuses its configuration even without our settings: {said}" if code else ""
    spaced = [
        line
        for line in bare.lines
        if line.keyword == "authorizedkeysfile"
        and not line.match
        and any(" " in each for each in line.values)
    ]
    answer = {"included": True, "former": former, "broken": broken, "spaced": ", ".join(map(str, spaced))}
    answer["files"] = [] if isinstance(found, str) else found["authorizedkeysfile"].split()
    # With ours in place it would not start again: a reboot would be the end of all logins.
    answer["breaks"] = bool(there is not None and not code and Configuration(read(OURS)).ask("-t")[0])
    return answer


def refused(problem):
    return {"problems": [problem], "stale": False, "pid": 0, "unit": False}


def check(content, keys_file, max_startups, max_sessions, builders, service):
    """builders: {name: whether the file of keys has to be read for them}."""
    if content is None:
        content = read(OURS) if os.path.isfile(OURS) else None
    now = Configuration(content)
    code, _, said = now.ask("-t")
    ours = [line for line in now.files.get(OURS, []) if line.match]
    if code and ours:
        return refused(
            f"{ours[0].match} stands in front of the Include of {os.path.dirname(OURS)}, so that ours "
            f"would count in that block alone: {said}. Put the Include in front of all Match lines, into the "
            f"first line of {MAIN}"
        )
    if code:
        return refused(f"sshd refuses the settings: {said}. Correct the value that it names")
    numbers = max_startups.split(":")
    wanted = max_startups if len(numbers) == 3 else f"{max_startups}:100:{max_startups}"
    problems = []
    for user, has_keys in [*builders.items()] or [(None, False)]:
        found = now.effective(user)
        whom = user or "everybody"
        if isinstance(found, str):
            problems.append(f"sshd does not say what it would do for {whom}: {found}. Try sshd -T there")
            continue
        if has_keys and keys_file not in found["authorizedkeysfile"].split():
            problems.append(
                f"sshd would not read {keys_file} for {whom}, but {found['authorizedkeysfile']}, since "
                f"AuthorizedKeysFile is set in {now.setters('authorizedkeysfile')}. Add {keys_file} to that "
                f"line, or move it behind the Include of {OURS}"
            )
        if found["maxstartups"] != wanted:
            problems.append(
                f"MaxStartups stays {found['maxstartups']}, since it is set in {now.setters('maxstartups')}. "
                f"Remove that line, or set d1fleet_sshd_max_startups: '{found['maxstartups']}'"
            )
        if found["maxsessions"] != str(max_sessions):
            problems.append(
                f"MaxSessions stays {found['maxsessions']} for {whom}, since it is set in "
                f"{now.setters('maxsessions')}. Remove that line, or set d1fleet_sshd_max_sessions: "
                f"{found['maxsessions']}"
            )
    answer = daemon(service)
    answer["problems"] = list(dict.fromkeys(problems))
    answer["stale"] = bool(answer["pid"]) and stale(now, answer["pid"], builders)
    return answer


def daemon(service):
    """The sshd that listens. None where a socket starts one for each login, which reads anew."""
    pid, unit = 0, False
    if os.path.isdir("/run/systemd/system"):
        argv = ["systemctl", "show", "-p", "MainPID", "--value", service]
        pid = int(subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout.strip() or 0)
        unit = pid > 0
    if not pid:
        found = re.search(r"(?m)^pidfile (.+)$", Configuration(None).ask("-T", match=False)[1])
        try:
            pid = int(read(found[1])) if found else 0
            pid = pid if read(f"/proc/{pid}/comm").startswith("sshd") else 0
        except (OSError, ValueError):
            pid = 0
    return {"pid": pid, "unit": unit}


def started(pid):
    """Ticks since boot. A reload changes neither this nor the pid."""
    return int(read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19])


def stale(configuration, pid, builders):
    try:
        stamp = json.loads(read(STAMP))
    except (OSError, ValueError):
        stamp = {}
    if [stamp.get("pid"), stamp.get("started")] == [pid, started(pid)]:
        return stamp.get("digest") != configuration.digest(builders)
    # Another process than we knew, of a restart or a boot: it has read what was there when it started.
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started(pid) / os.sysconf("SC_CLK_TCK")
    places = {*configuration.files, *map(os.path.dirname, configuration.files)}
    newest = max(os.stat(place).st_ctime for place in places if os.path.exists(place))
    return newest > time.time() - age - CLOCK_SLACK_S


def undo(former, service):
    """What was there before; where that is what is there now, nothing is the last resort."""
    settle_guard()
    new = content_of(OURS)
    old = base64.b64decode(former) if former is not None else None
    if old is None or old == new:
        if new is not None:
            os.unlink(OURS)
    else:
        with open(OURS + ".former", "wb") as file:
            file.write(old)
        os.chmod(OURS + ".former", 0o644)
        os.rename(OURS + ".former", OURS)
    forget()
    running = daemon(service)
    if subprocess.run([SSHD, "-t"], capture_output=True).returncode == 0:
        if running["pid"]:
            os.kill(running["pid"], signal.SIGHUP)
        elif os.path.isdir("/run/systemd/system"):
            argv = ["systemctl", "is-enabled", "--quiet", service]
            if subprocess.run(argv).returncode == 0:
                subprocess.run(["systemctl", "start", service])
    return {}


def forget():
    if os.path.exists(STAMP):
        os.unlink(STAMP)


def arm(seconds, former, service):
    settle_guard()
    forget()
    folder = tempfile.mkdtemp(prefix=os.path.basename(GUARD) + ".", dir=os.path.dirname(GUARD))
    shutil.copy(__file__, os.path.join(folder, "guard.py"))
    with open(os.path.join(folder, "given.json"), "w") as file:
        json.dump({"former": former, "service": service, "seconds": seconds}, file)
    argv = [sys.executable, "-ISE", os.path.join(folder, "guard.py"), "guard"]
    if os.path.isdir("/run/systemd/system"):
        # Outside of this login, which may be ended with all that it started.
        subprocess.run(["systemd-run", "--quiet", "--collect", *argv], check=True, capture_output=True)
    else:
        null = subprocess.DEVNULL
        subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/")
    return {}


def guard():
    """Waits until its folder goes, or for too long."""
    folder = os.path.dirname(os.path.abspath(sys.argv[0]))
    given = json.loads(read(os.path.join(folder, "given.json")))
    end = time.monotonic() + given["seconds"]
    while time.monotonic() < end:
        if not os.path.isdir(folder):
            return
        time.sleep(0.5)
    # Whoever moves the folder away has the word: this, or a settle at the same moment.
    if settle_guard(folder):
        undo(given["former"], given["service"])


def settle_guard(*folders):
    """Remove guards' folders. True if there was one."""
    found = False
    for folder in folders or glob.glob(GUARD + ".*"):
        try:
            os.rename(folder, folder.replace(GUARD, GUARD + "_gone"))
        except OSError:
            continue
        shutil.rmtree(folder.replace(GUARD, GUARD + "_gone"))
        found = True
    return found


def settle(builders, service):
    if not settle_guard():
        return {
            "problems": ["The former settings were put back before a new login was tried. Run the play again"]
        }
    now = Configuration(read(OURS) if os.path.isfile(OURS) else None)
    pid = daemon(service)["pid"]
    if pid:
        with open(STAMP + ".new", "w") as file:
            json.dump({"pid": pid, "started": started(pid), "digest": now.digest(builders)}, file)
        os.rename(STAMP + ".new", STAMP)
    return {"problems": []}


if __name__ == "__main__":
    os.umask(0o022)
    if sys.argv[1] == "guard":
        guard()
    else:
        verbs = {"base": base, "check": check, "arm": arm, "settle": settle, "undo": undo}
        print(json.dumps(verbs[sys.argv[1]](**json.loads(sys.argv[2]))))
