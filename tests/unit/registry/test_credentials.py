"""Secrets, and what is kept of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet.errors import RuntimeFolderError
from d1fleet.registry.credentials import (
    KEY,
    TOKEN,
    BadCredentialError,
    Credentials,
    digest,
    hash_password,
    is_password,
    load_secret,
    new_secret_text,
    same,
    secret_id,
)
from d1fleet.registry.model import Host

HOST = Host("a" * 32, "alder.example", ("engine", "tools"), generation=3)
OURS = Credentials(b"s" * 32)


def test_a_credential_says_whose_it_is() -> None:
    claim = OURS.read(OURS.issue(HOST, 1234.9))
    assert (claim.id, claim.name, claim.projects) == (HOST.id, HOST.name, HOST.projects)
    assert (claim.generation, claim.issued_at) == (3, 1234)
    assert claim.fits(HOST)


@given(st.data())
def test_no_credential_can_be_changed(data: st.DataObject) -> None:
    text = OURS.issue(HOST, 1234)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda each: each != text[at]))
    changed = text[:at] + other + text[at + 1 :]
    try:
        claim = OURS.read(changed)
    except BadCredentialError:
        return
    # The last character of base64 has bits that mean nothing.
    assert claim == OURS.read(text)


@given(st.one_of(st.text(), st.text(alphabet="abc.-_=")))
def test_no_text_is_a_credential_by_chance(text: str) -> None:
    with pytest.raises(BadCredentialError):
        OURS.read(text)


def test_another_secret_makes_other_credentials() -> None:
    with pytest.raises(BadCredentialError):
        Credentials(b"t" * 32).read(OURS.issue(HOST, 0))


def test_tokens_and_keys_are_told_apart_and_known_by_their_digest() -> None:
    text, identity, stored = new_secret_text(TOKEN)
    assert text.startswith(f"d1j_{identity}_")
    assert secret_id(text, TOKEN) == identity
    assert secret_id(text, KEY) == ""
    assert same(text, stored) and not same(text[:-1], stored)
    assert text not in stored and stored == digest(text)
    assert new_secret_text(TOKEN)[0] != text
    for other in ("", text + "\n", text.upper(), f" {text}"):
        assert secret_id(other, TOKEN) == ""


def test_passwords() -> None:
    stored = hash_password("correct horse battery")
    assert "correct" not in stored
    assert is_password("correct horse battery", stored)
    assert not is_password("wrong", stored)
    assert not is_password("correct horse battery", None)
    assert not is_password("", "no hash at all")


def test_the_secret_is_made_once_for_nobody_else_to_read(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    secret = load_secret(path)
    assert len(secret) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_secret(path) == secret
    assert os.listdir(tmp_path) == ["secret"]


def test_a_secret_that_others_may_read_or_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    load_secret(path)
    path.chmod(0o640)
    with pytest.raises(RuntimeFolderError, match="others may read"):
        load_secret(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(RuntimeFolderError, match="5 bytes"):
        load_secret(path)
    with pytest.raises(RuntimeFolderError, match="cannot be used"):
        load_secret(tmp_path / "nowhere" / "secret")
