"""Unpacks an archive of the server for all users of this host: install_server.py ARCHIVE FOLDER

FOLDER appears at once with everything in it, compiled, so that users need not write there; the archive goes.
Needs Python 3.9 and nothing else.
"""

import compileall
import hashlib
import os
import shutil
import sys
import tempfile
import zipfile

archive, folder = sys.argv[1:]
with open(archive, "rb") as file:
    if hashlib.sha256(file.read()).hexdigest()[:32] != os.path.basename(folder):
        sys.exit(f"{archive} is not what its name says: run the play again")
# Names in messages are the final ones; nobody imports from here before it is moved.
staging = tempfile.mkdtemp(prefix=".new-", dir=os.path.dirname(folder))
try:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(staging)
    if not compileall.compile_dir(staging, quiet=1, stripdir=staging, prependdir=folder):
        sys.exit("the server does not compile with this Python: 3.9 or newer is needed")
    for top, _, names in os.walk(staging):
        os.chmod(top, 0o755)
        for name in names:
            path = os.path.join(top, name)
            os.chmod(path, 0o644)
            with open(path, "rb") as written:
                os.fsync(written.fileno())
    try:
        os.rename(staging, folder)
    except OSError:
        # Another run was faster; anything else is an error.
        if not os.path.isfile(os.path.join(folder, "d1fleet", "server", "__main__.py")):
            raise
finally:
    shutil.rmtree(staging, ignore_errors=True)
os.unlink(archive)
