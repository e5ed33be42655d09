"""A whole build over each transport, and what its record says of how hosts were reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sshd import LoopbackSshd

pytestmark = pytest.mark.sshd


@pytest.mark.parametrize(
    ("transport", "configuration", "expected"),
    [
        pytest.param("ssh", "", ("paramiko", ""), id="ssh"),
        pytest.param("openssh", "", ("openssh", "as it is set"), id="openssh"),
        pytest.param(
            "ssh",
            "CertificateFile {key}.pub\n",
            ("openssh", "CertificateFile {key}.pub"),
            id="ssh-where-openssh-is-needed",
        ),
    ],
)
def test_the_record_says_how_a_host_was_reached(
    sshd: LoopbackSshd, tmp_path: Path, transport: str, configuration: str, expected: tuple[str, str]
) -> None:
    key = str(sshd.key)
    config, record = tmp_path / "config", tmp_path / "record"
    config.write_text(configuration.format(key=key) + sshd.ssh_config.read_text())
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "Makefile").write_text("all: ; $(MAKE) -C sub\n")
    (tree / "sub" / "Makefile").write_text("made: ; echo made >$@\n")
    (tmp_path / "run").mkdir(mode=0o700)
    argv = [sys.executable, "-m", "d1fleet.cli", "build", "--hosts", "a", "--ssh-config", str(config)]
    done = subprocess.run(
        [*argv, "--transport", transport, "--record", str(record), "--strict", "-s"],
        cwd=tree,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (tree / "sub" / "made").read_text() == "made\n"
    told = [json.loads(line) for line in record.read_text().splitlines()]
    (up,) = [each for each in told if each["event"] == "host-up"]
    assert (up["transport"], up["transport_reason"]) == tuple(word.format(key=key) for word in expected)
    assert [each["host"] for each in told if each["event"] == "job"] == ["a"]
