"""Builds the wheel of a checkout, on the controller: build_wheel.py CHECKOUT REQUIREMENTS FOLDER

Leaves FOLDER/HASH/d1fleet-VERSION-py3-none-any.whl and prints {"wheel": PATH, "hash": HASH}: the hash is of
wheel and requirements, equal sources have equal ones. Needs pip, and hatchling where pip cannot fetch it.
"""

import hashlib
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile


def build(checkout, folder):
    """The wheel, in a folder."""
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder]
    # The checkout's own environment has it, as locked; elsewhere pip fetches it.
    argv += ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    argv.append(str(checkout))
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        mend = "run ansible-playbook of the checkout's .venv"
        sys.exit(f"the wheel of {checkout} cannot be built: {said}\n{mend}")
    (wheel,) = pathlib.Path(folder).glob("*.whl")
    return wheel


def main(checkout, requirements, folder):
    cache = pathlib.Path(folder)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".new-") as staging:
        wheel = build(pathlib.Path(checkout), staging)
        data = wheel.read_bytes() + pathlib.Path(requirements).read_bytes()
        name = hashlib.sha256(data).hexdigest()[:32]
        (cache / name).mkdir(exist_ok=True)
        kept = cache / name / wheel.name
        wheel.replace(kept)
    print(json.dumps({"wheel": str(kept), "hash": name}))


if __name__ == "__main__":
    main(*sys.argv[1:])
