"""Refuses a hosts file that distcc does not understand: check_hosts.py FILE

One word that it does not know turns distribution off, with exit code 0; so distcc is asked what it reads,
and that has to be every word. Needs Python 3.9 and distcc.
"""

import os
import subprocess
import sys
import tempfile


def main(path):
    with open(path) as file:
        words = [word for line in file for word in line.partition("#")[0].split()]
    hosts = [word for word in words if not word.startswith("--")]
    if not hosts:
        return f"{path} names no host"
    # It leaves files where it runs.
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "DISTCC_HOSTS": " ".join(words), "DISTCC_DIR": folder}
        asked = subprocess.run(
            ["/usr/bin/distcc", "--show-hosts"], env=environment, capture_output=True, text=True, check=False
        )
    shown = asked.stdout.split()
    if asked.returncode or asked.stderr.strip() or len(shown) != len(hosts):
        return f"distcc reads {len(shown)} of {len(hosts)} hosts: {' / '.join(asked.stderr.split(chr(10)))}"
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
