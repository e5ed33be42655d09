"""What a build makes of settings, before it begins."""

from __future__ import annotations

import pytest

from d1fleet.build import fleet_of
from d1fleet.model import Host
from d1fleet.settings import Settings


@pytest.mark.parametrize(
    ("host", "setting", "expected"),
    [
        ("ssh", None, "ssh"),
        ("ssh", "openssh", "openssh"),
        ("openssh", None, "openssh"),
        ("openssh", "ssh", "openssh"),
        ("local", "openssh", "local"),
    ],
)
def test_a_transport_is_for_hosts_that_say_nothing(host: str, setting: str | None, expected: str) -> None:
    settings = Settings(hosts=(Host("h", transport=host),), transport=setting)
    assert [each.transport for each in fleet_of(settings).hosts] == [expected]
