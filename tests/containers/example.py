"""What `make fleet` does: three bare hosts, enrolled by site.yml, build examples/ over SSH; then they go."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.containers.errors import ContainerError
from tests.containers.fleet import ContainerHosts
from tests.containers.missing import missing_reason

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def main() -> int:
    """Show it all; returns the exit status."""
    reason = missing_reason()
    if reason:
        print(f"make fleet: {reason}", file=sys.stderr)
        return 1
    try:
        with ContainerHosts("example", variant="bare", project="demo", volumes=[EXAMPLES]) as hosts:
            for words in commands(str(hosts.inventory)):
                _run(words)
    except ContainerError as error:
        print(f"make fleet: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"make fleet: {error.cmd[0]} ended with {error.returncode}", file=sys.stderr)
        return error.returncode if error.returncode > 0 else 1
    except KeyboardInterrupt:
        return 130
    return 0


def commands(inventory: str) -> list[list[str]]:
    """What a user would type, in the checkout."""
    return [
        ["ansible-playbook", "--inventory", inventory, "site.yml"],
        ["make", "-s", "--no-print-directory", "-C", "examples", "clean"],
        ["d1fleet", "build", "--inventory", inventory, "--strict", "--summary", "-j6", "-C", "examples"],
    ]


def _run(words: Sequence[str]) -> None:
    print("$", *words, flush=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(words, cwd=ROOT, env={**os.environ, "PATH": path}, check=True)


if __name__ == "__main__":
    sys.exit(main())
