"""`codedeploy-control`: what operators type."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sqlite3
import ssl
import stat
import subprocess
from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import yaml
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controlplane.cli import codedeploy_control
from controlplane.store.database import DATABASE_NAME
from tests.controlplane.endpoint_process import CONTROL, ControlEndpoint
from tests.controlplane.scripted_host import HostRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click import Command

    from tests.controlplane.endpoint_process import Shop


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The real console script."""
    return subprocess.run([CONTROL, *arguments], capture_output=True, text=True, check=False)


def commands(group: Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every subcommand as its words."""
    children = getattr(group, "commands", None)
    if children is None:
        return [path]
    return [found for name, child in children.items() for found in commands(child, (*path, name))]


@pytest.mark.parametrize("words", commands(codedeploy_control), ids=" ".join)
def test_every_help_shows_examples_and_exit_codes(words: tuple[str, ...]) -> None:
    """Help is read at night by somebody who has never used the command."""
    result = CliRunner().invoke(codedeploy_control, [*words, "--help"])
    assert result.exit_code == 0
    assert f"codedeploy-control {' '.join(words)}" in result.output
    assert "Exit codes:" in result.output


def test_registering_prints_the_file_a_host_needs(tmp_path: Path) -> None:
    """One command, one file, no editing; and it works before the endpoint was ever started."""
    result = run(
        "host", "register", "web-1", "--tag", "Role=web", "--region", "eu-west-1", "--data", tmp_path
    )
    assert result.returncode == 0, result.stderr
    document = yaml.safe_load(result.stdout)
    assert document["region"] == "eu-west-1"
    assert document["iam_user_arn"] == "arn:aws:iam::000000000000:user/host/web-1"
    assert set(document) == {"region", "iam_user_arn", "aws_access_key_id", "aws_secret_access_key"}
    assert "web-1  registered  -  -  Role=web" in run("host", "list", "--data", tmp_path).stdout


def test_registering_twice_is_refused_with_a_way_out(tmp_path: Path) -> None:
    """A second key under the same name would be a surprise."""
    run("host", "register", "web-1", "--data", tmp_path)
    result = run("host", "register", "web-1", "--data", tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert "registered already" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("tag", ["Role", "=web", "K" * 129 + "=v"])
def test_a_malformed_tag_is_wrong_usage(tmp_path: Path, tag: str) -> None:
    """Nothing is registered without the tags it was meant to have."""
    result = CliRunner().invoke(
        codedeploy_control, ["host", "register", "web-1", "--tag", tag, "--data", str(tmp_path)]
    )
    assert result.exit_code == 2
    assert "is no tag" in result.output


def test_users_are_listed_without_secrets(tmp_path: Path) -> None:
    """A list can be shown to anybody."""
    key = json.loads(run("user", "add", "ci", "--json", "--data", tmp_path).stdout)
    listed = run("user", "list", "--data", tmp_path).stdout
    assert key["accessKeyId"] in listed
    assert key["secretAccessKey"] not in listed


def test_the_data_directory_is_private(tmp_path: Path) -> None:
    """It holds the secrets of all hosts and the signing keys."""
    data = tmp_path / "control"
    previous = os.umask(0)
    try:
        run("host", "register", "web-1", "--data", data)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in data.iterdir()} == {0o600}


def test_an_unusable_data_directory_is_explained(tmp_path: Path) -> None:
    """No traceback for a typing mistake."""
    (tmp_path / "file").write_text("")
    result = run("user", "add", "ci", "--data", tmp_path / "file" / "control")
    assert result.returncode == 1
    assert "can't be used" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "words", [("user", "list"), ("host", "list"), ("key", "revoke", "AKIAX")], ids=" ".join
)
def test_looking_into_a_mistyped_data_directory_says_so_and_makes_nothing(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    """An empty list would mean: no host is registered. That is not what happened."""
    result = run(*words, "--data", tmp_path / "contol")
    assert result.returncode == 1
    assert "no endpoint's database" in result.stderr
    assert not (tmp_path / "contol").exists()


def test_a_database_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    """After a downgrade: better no endpoint than a damaged one."""
    run("user", "add", "ci", "--data", tmp_path)
    connection = sqlite3.connect(tmp_path / DATABASE_NAME)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    result = run("user", "list", "--data", tmp_path)
    assert result.returncode == 1
    assert "newer version" in result.stderr


def test_a_file_that_is_no_database_is_explained(tmp_path: Path) -> None:
    """A restored backup that is something else."""
    (tmp_path / DATABASE_NAME).write_text("this is not a database at all" * 100)
    result = run("user", "list", "--data", tmp_path)
    assert result.returncode == 1
    assert "can't be opened" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.server
class TestServing:
    """`serve` as a process."""

    def test_a_revoked_key_is_refused_at_once(self, shop: Shop) -> None:
        """A stolen key must stop working without a restart."""
        host = shop.host("web-1")
        host.poll()
        shop.endpoint.control("key", "revoke", host.credentials[0])
        with pytest.raises(HostRefusedError, match="UnrecognizedClientException"):
            host.poll()

    def test_an_occupied_port_is_explained(self, endpoint: ControlEndpoint, tmp_path: Path) -> None:
        """The most frequent mistake at a first start."""
        result = run("serve", "--data", tmp_path, "--listen", endpoint.url.removeprefix("http://"))
        assert result.returncode == 1
        assert "Choose another with --listen" in result.stderr

    def test_a_data_directory_is_served_once(self, endpoint: ControlEndpoint) -> None:
        """A second server would hold polls that the first one never wakes."""
        result = run("serve", "--data", endpoint.data, "--listen", "127.0.0.1:0")
        assert result.returncode == 1
        assert "Another endpoint serves" in result.stderr

    def test_region_and_account_are_part_of_every_arn(
        self, start_endpoint: Callable[..., ControlEndpoint]
    ) -> None:
        """They can't change afterwards, because hosts hold ARNs."""
        endpoint = start_endpoint("--region", "eu-west-1", "--account", "123456789012")
        host = endpoint.host("web-1")
        assert host.arn == "arn:aws:iam::123456789012:user/host/web-1"
        found = endpoint.client().get_on_premises_instance(instanceName="web-1")["instanceInfo"]
        assert found["instanceArn"].startswith("arn:aws:codedeploy:eu-west-1:123456789012:instance/web-1_")
        endpoint.end(signal.SIGTERM)
        result = run("serve", "--data", endpoint.data, "--listen", "127.0.0.1:0", "--region", "us-east-1")
        assert result.returncode == 1
        assert "belongs to region eu-west-1" in result.stderr

    def test_https_with_a_given_certificate(
        self, start_endpoint: Callable[..., ControlEndpoint], tmp_path: Path
    ) -> None:
        """Outside a trusted network hosts and users speak TLS with the endpoint itself."""
        certificate, key = write_certificate(tmp_path)
        endpoint = start_endpoint("--tls-certificate", str(certificate), "--tls-key", str(key))
        assert endpoint.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(certificate))
        place = urlsplit(endpoint.url)
        connection = http.client.HTTPSConnection(
            place.hostname or "", place.port, context=context, timeout=10
        )
        connection.request("GET", "/health")
        assert json.loads(connection.getresponse().read()) == {"status": "ok"}
        connection.close()

    def test_a_certificate_without_its_key_is_explained(self, tmp_path: Path) -> None:
        """After a renewal only one of the two files was copied."""
        (tmp_path / "other").mkdir()
        certificate, _ = write_certificate(tmp_path)
        _, key = write_certificate(tmp_path / "other")
        result = run(
            "serve",
            "--data",
            tmp_path / "control",
            "--listen",
            "127.0.0.1:0",
            "--tls-certificate",
            certificate,
            "--tls-key",
            key,
        )
        assert result.returncode == 1
        assert "belong together" in result.stderr


def write_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    paths = directory / "tls.crt", directory / "tls.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths
