"""Build dependencies as debian/control has them."""

from __future__ import annotations

from tests.packages.libraries import build_dependencies

CONTROL = """\
Source: e2fsprogs
Build-Depends: debhelper-compat (= 12), libblkid-dev [!hurd-any], gettext,
 dietlibc-dev (>= 0.33) [amd64] | libfoo-dev, m4 <cross>
Build-Depends-Indep: texinfo
Standards-Version: 4.6.1

Package: libmagic
Depends: not-this-one
"""


def test_names_alone() -> None:
    assert build_dependencies(CONTROL) == {
        *("debhelper-compat", "libblkid-dev", "gettext", "dietlibc-dev", "libfoo-dev", "m4", "texinfo")
    }
