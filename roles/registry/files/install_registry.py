"""Makes an environment of its own for one version of the service: install_registry.py JSON

    {"folder": where it will be, "python": PATH, "wheel": PATH, "requirements": PATH, "pip": [ARGUMENT, ...]}

What pip fetches is checked by the hashes in the requirements. The file `.whole` in the folder says that all
is there; a folder without is of a run that was broken off, and is made anew. Needs Python 3.11 and nothing
else.
"""

import json
import os
import shutil
import subprocess
import sys

WHOLE = ".whole"


def run(what, *argv):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environ
    )
    if done.returncode:
        sys.exit(f"{what}: {(done.stderr.strip() or done.stdout.strip())[-3000:]}")


def main(given):
    os.umask(0o022)
    folder = given["folder"]
    shutil.rmtree(folder, ignore_errors=True)
    # Environments name their folder within: it cannot be moved afterwards.
    run("no environment can be made", given["python"], "-I", "-m", "venv", folder)
    pip = [f"{folder}/bin/python", "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    pip += ["--quiet", "--no-cache-dir"]
    wanted = ["--require-hashes", "--requirement", given["requirements"], *given["pip"]]
    run("what the service imports cannot be installed", *pip, *wanted)
    run("it cannot be installed", *pip, "--no-index", "--no-deps", given["wheel"])
    run("it does not start", f"{folder}/bin/d1fleet", "registry", "--help")
    os.sync()
    with open(os.path.join(folder, WHOLE), "w") as file:
        file.write("written by Ansible, role d1.fleet.registry\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
