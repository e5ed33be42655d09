"""Has distcc know compilers that its package does not: masquerade.py JSON, with
{"compilers": [NAME or PATH, ...], "hidden": [FOLDER, ...]: that the server cannot see, "dry": BOOL}

Debian's package keeps links for what is in /usr/bin. For others, a file in its folder stands for the
compiler: on clients it is what PATH finds, on servers its name is what distccd allows. It is a file, not a
link: whenever gcc changes, dpkg removes links whose compiler is not in /usr/bin.

Prints {"changed": [PATH, ...], "folders": [FOLDER, ...], "faults": [TEXT, ...]}; folders are where the
compilers are. Needs Python 3.9 and nothing else.
"""

import json
import os
import re
import shlex
import shutil
import sys

FOLDER = "/usr/lib/distcc"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMPILER = re.compile(r"(?:.*[-/])?(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+)(?:-[0-9.]+)?")
PLAIN = re.compile(r"[A-Za-z0-9_.+/-]+")
"""What stands in a unit's settings as it is."""

MARK = (
    "# Stands for a compiler that distcc does not know by itself; written by Ansible, role d1.fleet.distcc."
)


def text(compiler):
    # The folder of the real one goes first: else distcc would find this file again.
    folder, name = os.path.split(compiler)
    words = f"PATH={shlex.quote(folder)}:$PATH exec /usr/bin/distcc {shlex.quote(name)}"
    return f'#!/bin/sh\n{MARK}\n{words} "$@"\n'


def read(path):
    try:
        with open(path, errors="replace") as file:
            return file.read(4096)
    except OSError:
        return ""


def is_ours(path):
    return not os.path.islink(path) and MARK in read(path)


def wanted(compilers, hidden, faults):
    """{path: text} of all files that there shall be."""
    found, real_of = {}, {}
    for each in compilers:
        if not COMPILER.fullmatch(each):
            continue
        if not PLAIN.fullmatch(each):
            faults.append(f"{each!r} has signs that a path of a compiler may not have here")
            continue
        real = each if os.path.isabs(each) else shutil.which(each, path=PATH)
        if real is None or not os.access(real, os.X_OK):
            continue  # role toolchain says that it is not there
        path = os.path.join(FOLDER, os.path.basename(real))
        other = real_of.setdefault(path, real)
        if os.path.realpath(other) != os.path.realpath(real):
            faults.append(f"{other} and {real} have one name, and distcc knows compilers by name alone")
        for folder in hidden:
            if os.path.realpath(real).startswith(os.path.join(os.path.realpath(folder), "")):
                faults.append(
                    f"{real} is below {folder}, which distcc's server cannot see: install it elsewhere"
                )
        if os.path.lexists(path) and not is_ours(path):
            if os.path.dirname(real) not in ("/usr/bin", "/bin"):
                faults.append(
                    f"{real} has the name of a compiler of the system, and distcc knows compilers by name"
                    " alone: give it another name by a link beside it"
                )
            continue
        found[path] = text(real)
    return found


def bring_about(files, dry):
    changed = []
    there = [os.path.join(FOLDER, name) for name in os.listdir(FOLDER)] if os.path.isdir(FOLDER) else []
    for path in there:
        if path not in files and is_ours(path):
            changed.append(path)
            if not dry:
                os.unlink(path)
    for path, content in files.items():
        if read(path) == content and os.access(path, os.X_OK):
            continue
        changed.append(path)
        if dry:
            continue
        os.makedirs(FOLDER, exist_ok=True)
        new = os.path.join(FOLDER, f".{os.path.basename(path)}.new")
        with open(new, "w") as file:
            file.write(content)
        os.chmod(new, 0o755)
        os.replace(new, path)
    return changed


def main(given):
    faults = []
    files = wanted(given["compilers"], given["hidden"], faults)
    changed = [] if faults else bring_about(files, given["dry"])
    folders = [re.search("^PATH=(.*):", content, re.M)[1] for content in files.values()]
    return {"changed": changed, "folders": list(dict.fromkeys(folders)), "faults": faults}


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
