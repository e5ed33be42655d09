"""A stand-in for d1fleet that is plain make but for one thing that it does wrong: what the table must notice.

fake.py FAULT RECORD [make's arguments]
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def main() -> int:
    fault, record, *arguments = sys.argv[1:]
    there = {"event": "job", "argv": ["make"], "host": "a", "local_reason": None, "infrastructure": ""}
    here = {**there, "host": None, "local_reason": "for the test"}
    entries = {
        "nothing dispatched": [],
        "stayed here": [there, here],
        "lost": [there, {**there, "infrastructure": "lost"}],
    }.get(fault, [there])
    Path(record).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    ran = subprocess.run(["make", *arguments], capture_output=True, check=False)
    out, err, code = ran.stdout, ran.stderr, ran.returncode
    if fault == "streams swapped":
        out, err = err, out
    elif fault == "a blank more":
        out = out.replace(b"\n", b" \n", 1)
    elif fault == "a line missing":
        out = b"".join(out.splitlines(keepends=True)[:-1])
    elif fault == "lines in another order":
        out = b"".join(reversed(out.splitlines(keepends=True)))
    elif fault == "a line of its own":
        err += b"d1fleet: hello\n"
    elif fault == "another exit status":
        code = 1
    elif fault == "a file more":
        Path("left").touch()
    elif fault == "a file less":
        Path("made").unlink()
    elif fault == "other contents":
        Path("made").write_text("else\n")
    elif fault == "another mode":
        Path("made").chmod(0o600)
    elif fault == "a file in place of a link":
        Path("link").unlink()
        Path("link").write_text("made\n")
    sys.stdout.buffer.write(out)
    sys.stderr.buffer.write(err)
    sys.stdout.flush()
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGTERM)
    return code


if __name__ == "__main__":
    sys.exit(main())
