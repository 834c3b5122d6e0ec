"""Which CAs are trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.certificates import TrustedCAs, trusted_cas


def put(root: Path, name: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    "bundle",
    [
        "etc/ssl/certs/ca-certificates.crt",
        "etc/pki/tls/certs/ca-bundle.crt",
        "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "etc/ssl/ca-bundle.pem",
        "etc/ssl/cert.pem",
    ],
)
def test_the_bundle_of_every_distribution_is_found(tmp_path: Path, bundle: str) -> None:
    """A CA that somebody has added to the host counts, for the endpoint and for bundles."""
    path = put(tmp_path, bundle)
    assert TrustedCAs(path) == trusted_cas({}, tmp_path)


def test_a_directory_with_hashed_names_comes_first(tmp_path: Path) -> None:
    """It costs a megabyte less than the bundle beside it."""
    put(tmp_path, "etc/ssl/certs/ca-certificates.crt")
    directory = put(tmp_path, "etc/ssl/certs/0a775a30.0").parent
    assert TrustedCAs(directory) == trusted_cas({}, tmp_path)


@pytest.mark.parametrize(
    "variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE", "AWS_SSL_CA_DIRECTORY", "SSL_CERT_DIR"]
)
def test_what_the_environment_names_wins_even_when_it_is_not_there(tmp_path: Path, variable: str) -> None:
    """Trusting something else than what was asked for would be worse than failing."""
    put(tmp_path, "etc/ssl/certs/ca-certificates.crt")
    environment = {variable: str(tmp_path / "own")}
    assert TrustedCAs(tmp_path / "own", variable) == trusted_cas(environment, tmp_path)


def test_aws_ca_bundle_wins(tmp_path: Path) -> None:
    """As with the usual clients."""
    environment = {"SSL_CERT_FILE": "/a", "AWS_CA_BUNDLE": "/b", "AWS_SSL_CA_DIRECTORY": "/c"}
    assert TrustedCAs(Path("/b"), "AWS_CA_BUNDLE") == trusted_cas(environment, tmp_path)


def test_a_host_without_any_has_none(tmp_path: Path) -> None:
    """A minimal container."""
    (tmp_path / "etc/ssl/certs").mkdir(parents=True)
    assert trusted_cas({}, tmp_path) is None
