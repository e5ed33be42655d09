"""Stays as long as the firewall table stands that keeps strangers from distcc: distcc_guard.py FAMILY TABLE

The unit of the compile server is bound to this one: when this ends, so does that. nft(8) tells of changes of
the rules, and then, and every few seconds, the table is looked for. Needs Python 3.9 and nft.
"""

import os
import select
import subprocess
import sys

NFT = "/usr/sbin/nft"
EACH_S = 5.0
"""What is missed, for instance before nft listens, is found so late at most."""


def stands(family, table):
    """Whether the table is there, with its rules."""
    done = subprocess.run(
        [NFT, "list", "table", family, table], capture_output=True, text=True, check=False, timeout=30
    )
    return done.returncode == 0 and " reject" in done.stdout and " drop" in done.stdout


def main(family, table):
    with subprocess.Popen([NFT, "monitor"], stdout=subprocess.PIPE) as monitor:
        try:
            while stands(family, table):
                # All that has been said is one reason to look: a reload of a large set of rules says much.
                told, _, _ = select.select([monitor.stdout], [], [], EACH_S)
                if told and not os.read(monitor.stdout.fileno(), 1 << 20):
                    return "nft monitor has ended"
            return f"the table {family} {table} is gone: distcc is stopped, or everybody could reach it"
        finally:
            monitor.kill()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
