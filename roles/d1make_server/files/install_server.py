"""Unpacks an archive of ours for all users of this host: install_server.py ARCHIVE FOLDER [MAIN]

FOLDER appears at once with everything in it, compiled, so that users need not write there; the archive goes.
A damaged FOLDER is replaced: for a moment there is none, and launchers take the server that they are sent.
MAIN is the file in it that is started, that of the d1make server if none is named. Needs Python 3.9 and
nothing else.
"""

import compileall
import glob
import hashlib
import os
import shutil
import sys
import tempfile
import zipfile

archive, folder = sys.argv[1:3]
main = sys.argv[3] if sys.argv[3:] else os.path.join("d1fleet", "server", "__main__.py")


def usable():
    """As in d1fleet/transport/bootstrap.py, which decides."""
    try:
        status = os.stat(folder)
    except FileNotFoundError:
        return False
    return (
        status.st_uid == os.geteuid()
        and not status.st_mode & 0o022
        and os.path.isfile(os.path.join(folder, main))
    )


with open(archive, "rb") as file:
    if hashlib.sha256(file.read()).hexdigest()[:32] != os.path.basename(folder):
        sys.exit(f"{archive} is not what its name says: run the play again")
# Names in messages are the final ones; nobody imports from here before it is moved.
staging = tempfile.mkdtemp(prefix=".new-", dir=os.path.dirname(folder))
try:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(staging)
    if not compileall.compile_dir(staging, quiet=1, stripdir=staging, prependdir=folder):
        sys.exit("it does not compile with this Python: 3.9 or newer is needed")
    for top, _, names in os.walk(staging):
        os.chmod(top, 0o755)
        for name in names:
            path = os.path.join(top, name)
            os.chmod(path, 0o644)
            with open(path, "rb") as written:
                os.fsync(written.fileno())
    # Another run may have been faster.
    if not usable():
        if os.path.lexists(folder):
            aside = tempfile.mkdtemp(prefix=".old-", dir=os.path.dirname(folder))
            os.rename(folder, os.path.join(aside, "server"))
        try:
            os.rename(staging, folder)
        except OSError:
            if not usable():
                raise
finally:
    for left in [staging, *glob.glob(os.path.join(glob.escape(os.path.dirname(folder)), ".old-*"))]:
        shutil.rmtree(left, ignore_errors=True)
os.unlink(archive)
