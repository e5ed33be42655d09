"""A host with an agent: a process of its own, which finds a pretended registry and a root helper."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d1fleet.checkin import apply
from d1fleet.checkin.places import HelperPlaces
from tests.unit.checkin.documents import answer as make
from tests.unit.checkin.helperhost import MAIN, HelperHost
from tests.unit.checkin.pretended import LIMIT_S, Answering, Handler, Pretended

CREDENTIAL = "c" * 40


class Script:
    """Answers as a registry does, with what a test has put there.

    Attributes:
        answer: to each check-in; without the projects that the host knows.
        news: answers for who waits; without any, they wait.
        refusal: in place of an answer: (status, code).
    """

    def __init__(self, **first: Any) -> None:
        self.answer: dict[str, Any] = make(**first)
        self.news: queue.Queue[dict[str, Any]] = queue.Queue()
        self.refusal: tuple[int, str] | None = None

    def __call__(self, handler: Handler, asked: dict[str, Any]) -> None:
        if asked["path"] == "/api/v1/leave":
            handler.send_response(204)
            handler.end_headers()
        elif self.refusal is not None:
            status, code = self.refusal
            handler.send({"error": {"code": code, "message": "no", "mend": "ask"}}, status)
        elif asked["path"] == "/api/v1/wait":
            while not handler.server.pretended.ending.is_set():
                with contextlib.suppress(queue.Empty):
                    handler.send(self.news.get(timeout=0.05))
                    return
            handler.close_connection = True
        else:
            known = asked["body"]["known"]
            news = {
                name: each
                for name, each in self.answer["projects"].items()
                if known.get(name) != each["revision"]
            }
            handler.send({**self.answer, "projects": news})


class AgentHost(HelperHost):
    """Attributes:
    script: what the registry answers.
    requests: what the root helper was asked for.
    """

    def __init__(self, folder: Path, script: Answering, tls: tuple[Path, Path] | None = None) -> None:
        super().__init__(folder)
        self._answering, self._tls = script, tls
        self.registry = Pretended(script, tls)
        self.state = folder / "state"
        self.state.mkdir(mode=0o700)
        self.credential = self.state / "credential"
        self.credential.write_text(f"{CREDENTIAL}\n")
        self.settings: dict[str, Any] = {
            "registry": str(self.registry.registry),
            "certificate": str(tls[0]) if tls else "",
            "host_keys": str(folder / "ssh_host_*_key.pub"),
            "slots": 4,
            "owner": "ada",
        }
        self.configure(**self.settings)
        self.requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self._way = socket.socket(socket.AF_UNIX)
        self._way.bind(str(folder / "apply.sock"))
        self._way.listen()
        self._helper = threading.Thread(target=self._help, name="helper")
        self._helper.start()
        self._heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._heard.bind(str(folder / "notify"))
        self._heard.settimeout(LIMIT_S)
        self.log = folder / "log"
        self.agent: subprocess.Popen[bytes] | None = None

    def _help(self) -> None:
        places = HelperPlaces(
            *(
                str(getattr(self, name))
                for name in ("config", "hosts", "default", "rules", "ssh", "nft", "distcc")
            )
        )
        while True:
            connection, _ = self._way.accept()
            with connection:
                data = b""
                while piece := connection.recv(1 << 16):
                    data += piece
                if not data:
                    return
                found = apply.answer(places, data)
                with contextlib.suppress(OSError):
                    connection.sendall(json.dumps(found).encode())
                self.requests.put(json.loads(data))

    def start(self, python: str = sys.executable, **environ: str) -> None:
        """Start the agent."""
        argv = [python, "-ISE", str(MAIN), "agent", f"--config={self.config}", f"--state={self.state}"]
        argv.append(f"--helper={self.folder}/apply.sock")
        words = {**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify"), **environ}
        with self.log.open("ab") as log:
            self.agent = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log, env=words, cwd="/")

    def stop(self) -> int:
        """SIGTERM; returns its exit status."""
        assert self.agent is not None
        self.agent.send_signal(signal.SIGTERM)
        status = self.agent.wait(LIMIT_S)
        self.agent = None
        return status

    def beat(self) -> dict[str, Any]:
        """The next check-in."""
        found: dict[str, Any] = self.registry.next("/checkin")["body"]
        return found

    def restart_registry(self) -> None:
        """On the same port."""
        port = self.registry.port
        self.registry = Pretended(self._answering, self._tls, port)

    def heard(self, word: str) -> str:
        """Wait until systemd is told something that holds this word."""
        while True:
            said = self._heard.recv(4000).decode()
            if word in said:
                return said

    def until(self, is_so: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
        """Look again and again until something is so."""
        end = time.monotonic() + limit_s
        while not is_so():
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def peers(self, project: str = "engine") -> list[str]:
        """Whom the hosts file names; of one that is not there, nobody."""
        path = self.hosts / project
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.partition("# ")[2] for line in lines if line[:1] in "123456789[@"]

    def status(self) -> dict[str, Any]:
        """What the agent has noted; {} before it has."""
        path = self.state / "status.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def close(self) -> None:
        """End everything."""
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait()
        self.registry.close()
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(self.folder / "apply.sock"))
        self._helper.join()
        self._way.close()
        self._heard.close()
