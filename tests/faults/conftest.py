"""Fleets of two hosts, as in `tests/kill/`."""

from tests.kill.conftest import kill_sshd, new_fleet

__all__ = ["kill_sshd", "new_fleet"]
