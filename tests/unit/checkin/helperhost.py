"""A host for the root helper: folders of its own, an nft that only remembers, and the real distcc."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

MAIN = Path(__file__).resolve().parents[3] / "d1fleet" / "checkin" / "__main__.py"

_NFT = """#!/usr/bin/python3 -ISE
import json, os, re, sys
folder = os.path.dirname(sys.argv[0])
state = os.path.join(folder, "nft.json")
sets = json.load(open(state)) if os.path.exists(state) else {"members4": [], "members6": []}
words = sys.argv[1:]
if os.path.exists(os.path.join(folder, "no-table")):
    sys.exit("Error: No such file or directory\\nlist set inet d1fleet_distcc members4")
if words[:3] == ["-j", "list", "set"] and words[3:5] == ["inet", "d1fleet_distcc"]:
    found = {"family": "inet", "name": words[5], "table": "d1fleet_distcc", "type": "x", "handle": 1}
    if sets[words[5]]:
        found["elem"] = sets[words[5]]
    print(json.dumps({"nftables": [{"metainfo": {"json_schema_version": 1}}, {"set": found}]}))
elif words == ["-f", "-"]:
    text = sys.stdin.read()
    with open(os.path.join(folder, "nft.log"), "a") as log:
        log.write(text + "--\\n")
    for line in text.splitlines():
        flush = re.fullmatch(r"flush set inet d1fleet_distcc (members[46])", line)
        add = re.fullmatch(r"add element inet d1fleet_distcc (members[46]) { ([0-9a-f.:, ]+) }", line)
        if flush:
            sets[flush[1]] = []
        elif add:
            sets[add[1]] += add[2].split(", ")
        else:
            sys.exit(f"Error: syntax error, {line}")
    json.dump(sets, open(state, "w"))
else:
    sys.exit(f"Error: unexpected {words}")
"""


class HelperHost:
    """Folders below one, as a host has them, and the helper that writes there."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.hosts = folder / "d1fleet" / "hosts"
        self.default = folder / "distcc" / "hosts"
        self.rules = folder / "d1fleet" / "distcc.d" / "members.nft"
        self.ssh = folder / "lib"
        self.config = folder / "checkin.json"
        self.nft = folder / "bin" / "nft"
        self.distcc = Path(shutil.which("distcc", path="/usr/bin") or "/usr/bin/distcc")
        for each in (self.hosts, self.default.parent, self.rules.parent, self.ssh, self.nft.parent):
            each.mkdir(mode=0o755, parents=True)
        self.nft.write_text(_NFT)
        self.nft.chmod(0o755)
        self.configure(**settings)

    def configure(self, **settings: Any) -> None:
        """Write the configuration."""
        known = {
            "registry": "https://192.0.2.1",
            "certificate": "",
            "networks": ["192.0.2.0/24", "2001:db8::/32"],
        }
        self.config.write_text(json.dumps({**known, **settings}))
        self.config.chmod(0o644)

    def argv(self, python: str = sys.executable) -> list[str]:
        """The helper's command."""
        places = ("config", "hosts", "default", "rules", "ssh", "nft", "distcc")
        return [python, "-ISE", str(MAIN), "apply", *(f"--{name}={getattr(self, name)}" for name in places)]

    def ask(self, request: Any) -> dict[str, list[str]]:
        """One request, by a socket, as systemd hands it over."""
        data = request if isinstance(request, bytes) else json.dumps(request).encode()
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                helper = subprocess.Popen(
                    self.argv(),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    cwd="/",
                )
            with helper:
                ours.settimeout(60)
                try:
                    ours.sendall(data)
                    ours.shutdown(socket.SHUT_WR)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it has read enough
                answer = b""
                while piece := ours.recv(1 << 16):
                    answer += piece
                _, said = helper.communicate(timeout=60)
        assert helper.returncode == 0, said
        self.said = said.decode()
        found: dict[str, list[str]] = json.loads(answer)
        return found

    def members(self) -> dict[str, list[str]]:
        """Who is let in, by nft."""
        state = self.nft.with_name("nft.json")
        found: dict[str, list[str]] = (
            json.loads(state.read_text()) if state.exists() else {"members4": [], "members6": []}
        )
        return found

    @property
    def transactions(self) -> int:
        """How often nft was asked for a change."""
        log = self.nft.with_name("nft.log")
        return log.read_text().count("--\n") if log.exists() else 0

    def files(self) -> dict[str, bytes]:
        """All that lies there, but nft's own."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.parent != self.nft.parent
        }
