"""Stays as long as the firewall table stands that keeps strangers from distcc: distcc_guard.py FAMILY TABLE

The unit of the compile server is bound to this one: when this ends, so does that. nft(8) tells of every
change of the rules; after each the table is looked for. Needs Python 3.9 and nft.
"""

import subprocess
import sys

NFT = "/usr/sbin/nft"


def stands(family, table):
    """Whether the table is there, with its rules."""
    done = subprocess.run(
        [NFT, "list", "table", family, table], capture_output=True, text=True, check=False, timeout=30
    )
    return done.returncode == 0 and " reject" in done.stdout and " drop" in done.stdout


def main(family, table):
    # It listens before the first look, so that nothing happens in between unseen.
    with subprocess.Popen([NFT, "monitor"], stdout=subprocess.PIPE, text=True) as monitor:
        try:
            while stands(family, table):
                if not monitor.stdout.readline():
                    return "nft monitor has ended"
            return f"the table {family} {table} is gone: distcc is stopped, or everybody could reach it"
        finally:
            monitor.kill()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
