"""The grammar of hosts on a command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet.errors import UsageError
from d1fleet.hostspec import parse_hosts
from d1fleet.model import Host


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", [Host("a")]),
        ("localhost", [Host("localhost")]),
        (":", [Host(":", transport="local", nice=0)]),
        (":/4", [Host(":", transport="local", nice=0, slots=4)]),
        ("  a   b,c ,\n d\t", [Host("a"), Host("b"), Host("c"), Host("d")]),
        ("me@a:2222/8", [Host("me@a:2222", "a", 2222, "me", slots=8)]),
        ("a:22 a:23", [Host("a:22", "a", 22), Host("a:23", "a", 23)]),
        ("me@corp.example@a", [Host("me@corp.example@a", "a", user="me@corp.example")]),
        ("[::1] me@[FE80::1%eth0]:22/1", [
            Host("[::1]", "::1"),
            Host("me@[FE80::1%eth0]:22", "fe80::1%eth0", 22, "me", slots=1),
        ]),
        ("my_host-1.example.", [Host("my_host-1.example.")]),
        (["a b", "c"], [Host("a"), Host("b"), Host("c")]),
    ],
)  # fmt: skip
def test_hosts(text: str | list[str], expected: list[Host]) -> None:
    assert parse_hosts(text, "--hosts") == tuple(expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no host"),
        (" , \n", "names no host"),
        ([], "names no host"),
        ("a b a c b", "names a, b twice"),
        ("a A", "names a, A twice"),
        ("a/2 a/4", "names a twice"),
        (": :", "names : twice"),
        ("a:", "digits for a port"),
        ("a:0", "digits for a port"),
        ("a:65536", "digits for a port"),
        ("a:ssh", "digits for a port"),
        ("a:\u0662\u0662", "digits for a port"),
        ("a/", "slots that are no whole number"),
        ("a/0", "slots that are no whole number"),
        ("a/-1", "slots that are no whole number"),
        ("a/four", "slots that are no whole number"),
        ("a/4/4", "slots that are no whole number"),
        (":/0", "slots that are no whole number"),
        ("a/99999999999999999999999", "slots that are no whole number"),
        ("a/" + 5000 * "1", "slots that are no whole number"),
        ("::1", "is no host"),
        ("fe80::1:22", "is no host"),
        ("@a", "is no host"),
        ("me@", "is no host"),
        ("me@:", "is no host"),
        ("/4", "is no host"),
        ("[a]", "no IPv6 address"),
        ("[]", "no IPv6 address"),
        ("[::1", "is no host"),
        ("-oProxyCommand=x", "option of ssh"),
        ("-l@a", "option of ssh"),
        ("a\x1b7", "is no host"),
        ("a/000000000012345", "slots that are no whole number"),
    ],
)
def test_what_is_no_host_is_named_with_its_place(text: str | list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_hosts(text, "D1MAKE_HOSTS")
    assert said in caught.value.message
    assert caught.value.message.startswith("D1MAKE_HOSTS")
    assert caught.value.message.isprintable()
    assert caught.value.mend


@given(st.text(alphabet="ab1:@/[]-, ", max_size=20))
def test_any_text_is_hosts_or_an_error(text: str) -> None:
    try:
        hosts = parse_hosts(text, "here")
    except UsageError:
        return
    assert all(host.name and not host.name.startswith("-") for host in hosts)
    assert len({host.name for host in hosts}) == len(hosts)
