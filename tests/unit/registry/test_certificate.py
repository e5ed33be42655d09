"""A certificate of the registry's own."""

from __future__ import annotations

import datetime
import hashlib
import os
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from d1fleet.errors import RegistryError, UsageError
from d1fleet.registry.certificate import make_certificate, pin


def test_what_is_made(tmp_path: Path) -> None:
    file, key = make_certificate(["Registry.example", "192.0.2.1", "2001:db8::1"], tmp_path)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == [file.name, key.name]
    found = x509.load_pem_x509_certificate(file.read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    assert found.not_valid_before_utc < now - datetime.timedelta(hours=23)
    assert (
        now + datetime.timedelta(days=3651) < found.not_valid_after_utc < now + datetime.timedelta(days=3654)
    )
    assert isinstance(found.public_key(), ec.EllipticCurvePublicKey)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["registry.example"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1", "2001:db8::1"]
    assert found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    digest = hashlib.sha256(found.public_bytes(Encoding.DER)).hexdigest()
    assert pin(file.read_text()) == f"sha256:{digest}"
    assert pin("some text\n" + file.read_text() + key.read_text()) == f"sha256:{digest}"
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file, key)


def test_two_are_never_alike(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    first, _ = make_certificate(["a"], tmp_path)
    second, _ = make_certificate(["a"], tmp_path / "b")
    assert pin(first.read_text()) != pin(second.read_text())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    file, key = make_certificate(["registry.example"], tmp_path)
    before = file.read_bytes(), key.read_bytes()
    with pytest.raises(RegistryError, match="is there already"):
        make_certificate(["registry.example"], tmp_path)
    file.unlink()
    with pytest.raises(RegistryError, match="is there already"):
        make_certificate(["registry.example"], tmp_path)
    assert key.read_bytes() == before[1] and not file.exists()


def test_names_that_are_none(tmp_path: Path) -> None:
    for name in ("", "a b", "*.example", "a\nb", "-a", "a_b", "ü.example", "x" * 64, "1.2.3.4/24"):
        with pytest.raises(UsageError) as caught:
            make_certificate(["registry.example", name], tmp_path)
        assert "\n" not in caught.value.message and caught.value.mend
        assert os.listdir(tmp_path) == []


def test_how_many_names(tmp_path: Path) -> None:
    for names in ([], [f"a{number}.example" for number in range(65)]):
        with pytest.raises(UsageError):
            make_certificate(names, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_long_name(tmp_path: Path) -> None:
    name = ".".join(["a" * 60] * 4)
    file, _ = make_certificate([name], tmp_path)
    found = x509.load_pem_x509_certificate(file.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="No such file"):
        make_certificate(["a"], tmp_path / "nothing")


def test_texts_without_a_certificate() -> None:
    for text in (
        "",
        "x",
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
    ):
        with pytest.raises(RegistryError, match="no certificate"):
            pin(text)
