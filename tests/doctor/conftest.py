"""Three enrolled hosts, for all tests of this folder that make faults there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.doctor.ward import Ward
from tests.roles.site import bare_site


@pytest.fixture(scope="package")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    def builders(public: str) -> list[dict[str, Any]]:
        return [{"name": "root", "uid": 0, "authorized_keys": [public]}]

    tree = tmp_path_factory.mktemp("tree")
    with bare_site("ward", tmp_path_factory.mktemp("d"), builders, volumes=[tree]) as site:
        done = site.play()
        assert done.code == 0, done.text
        yield Ward(site, tree)
