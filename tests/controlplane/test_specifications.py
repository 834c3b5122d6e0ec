"""Deployment specifications: what they say, and that their signature holds."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.errors import OperatorError
from controlplane.signing.authority import SIGNER_LIFETIME, SIGNER_RENEWAL, Authority
from controlplane.signing.specifications import SpecificationSigner
from tests.controlplane.scripted_host import REVISION, HostRefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.controlplane.endpoint_process import Shop
    from tests.controlplane.scripted_host import ScriptedHost

NOW = datetime(2026, 11, 23, tzinfo=timezone.utc)


def openssl_verify(text: str, ca: Path, *, at: datetime | None = None) -> subprocess.CompletedProcess[str]:
    """What OpenSSL, which knows nothing of us, makes of a signed text."""
    moment = ["-attime", str(int(at.timestamp()))] if at else []
    return subprocess.run(
        ["openssl", "cms", "-verify", "-inform", "PEM", "-CAfile", ca, "-purpose", "any", "-binary", *moment],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def fetch(host: ScriptedHost) -> Any:
    """The specification of the host's next command."""
    return host.specification(host.expect("ApplicationStop"))


@pytest.mark.server
class TestServed:
    """Specifications as a host gets them."""

    def test_a_specification_verifies_against_the_ca_and_says_what_to_deploy(
        self, shop: Shop, tmp_path: Path
    ) -> None:
        """A host accepts a deployment because this signature holds, and for no other reason."""
        host = shop.host("web-1")
        revision = {
            "revisionType": "S3",
            "s3Location": {
                "bucket": "bundles",
                "key": "a/app.tgz",
                "bundleType": "tgz",
                "version": "v7",
                "eTag": "abc",
            },
        }
        deployment = shop.deploy(revision=revision, fileExistsBehavior="OVERWRITE")
        answer = fetch(host)
        assert answer["DeploymentSystem"] == "CodeDeploy"
        envelope = answer["DeploymentSpecification"]["GenericEnvelope"]
        assert envelope["Format"] == "PKCS7/JSON"
        ca = tmp_path / "ca.pem"
        ca.write_text(shop.endpoint.control("ca"))
        verified = openssl_verify(envelope["Payload"], ca)
        assert verified.returncode == 0, verified.stderr
        group = shop.client.get_deployment_group(applicationName=shop.application, deploymentGroupName="web")[
            "deploymentGroupInfo"
        ]
        assert json.loads(verified.stdout) == {
            "DeploymentId": f"arn:aws:codedeploy:us-east-1:000000000000:deployment/{deployment}",
            "DeploymentGroupId": group["deploymentGroupId"],
            "DeploymentGroupName": "web",
            "ApplicationName": shop.application,
            "DeploymentCreator": "user",
            "DeploymentType": "IN_PLACE",
            "AgentActionOverrides": {"AgentOverrides": {"FileExistsBehavior": "OVERWRITE"}},
            "Revision": {
                "RevisionType": "S3",
                "S3Revision": {
                    "Bucket": "bundles",
                    "Key": "a/app.tgz",
                    "BundleType": "tgz",
                    "Version": "v7",
                    "ETag": "abc",
                },
            },
        }

    def test_a_github_revision_names_account_repository_and_commit(self, shop: Shop, tmp_path: Path) -> None:
        """Hosts fetch the archive of exactly this commit."""
        host = shop.host("web-1")
        place = {"repository": "acme/shop", "commitId": "0" * 40}
        shop.deploy(revision={"revisionType": "GitHub", "gitHubLocation": place})
        ca = tmp_path / "ca.pem"
        ca.write_text(shop.endpoint.control("ca"))
        text = fetch(host)["DeploymentSpecification"]["GenericEnvelope"]["Payload"]
        assert json.loads(openssl_verify(text, ca).stdout)["Revision"] == {
            "RevisionType": "GitHub",
            "GitHubRevision": {"Account": "acme", "Repository": "shop", "CommitId": "0" * 40},
        }

    def test_only_targets_of_a_deployment_get_its_specification(self, shop: Shop) -> None:
        """Bucket and key of a revision are nobody else's business."""
        host, stranger = shop.host("web-1"), shop.host("db-1", "Role=db")
        shop.deploy(revision=REVISION)
        command = host.expect("ApplicationStop")
        with pytest.raises(HostRefusedError, match="ClientException"):
            stranger.specification(command)
        for execution in ("x", "a/b/d-UNKNOWN00/1", command["DeploymentExecutionId"].split("/")[2]):
            with pytest.raises(HostRefusedError, match="ClientException"):
                host.specification({"DeploymentExecutionId": execution})


def test_a_changed_specification_does_not_verify(tmp_path: Path) -> None:
    """The text lies in the open inside the envelope: changing it must break the signature."""
    signer = SpecificationSigner(Authority(tmp_path), NOW.timestamp)
    ca = tmp_path / "ca-certificate.pem"
    ca.write_text(Authority(tmp_path).ca(NOW).certificate_pem)
    genuine = signer.sign({"Key": "genuine"})
    assert openssl_verify(genuine, ca, at=NOW).returncode == 0
    lines = genuine.splitlines()
    middle = len(lines) // 2
    lines[middle] = lines[middle][::-1]
    assert openssl_verify("\n".join(lines), ca, at=NOW).returncode != 0


def test_private_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """Who has the signer's key deploys to every host."""
    previous = os.umask(0)
    try:
        Authority(tmp_path).signer(NOW)
    finally:
        os.umask(previous)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {".signing.lock": 0o600, "ca.pem": 0o600, "signer.pem": 0o600}


def test_the_signer_is_renewed_before_it_expires_and_the_ca_stays(tmp_path: Path) -> None:
    """Deployments go on after a year without anyone touching a host."""
    authority = Authority(tmp_path)
    first, ca = authority.signer(NOW), authority.ca(NOW)
    fine = NOW + SIGNER_LIFETIME - SIGNER_RENEWAL - timedelta(days=1)
    assert authority.signer(fine).certificate == first.certificate
    later = fine + timedelta(days=2)
    assert authority.signer(later).certificate != first.certificate
    assert authority.ca(later).certificate == ca.certificate


def test_a_running_signer_takes_the_renewed_certificate(tmp_path: Path) -> None:
    """An endpoint that runs for a year must not sign with an expired certificate."""
    moments = [NOW, NOW + SIGNER_LIFETIME]
    ca = tmp_path / "ca-certificate.pem"
    ca.write_text(Authority(tmp_path).ca(NOW).certificate_pem)

    def clock() -> float:
        return moments[0].timestamp()

    signer = SpecificationSigner(Authority(tmp_path), clock)
    signer.prepare()
    moments.pop(0)
    assert openssl_verify(signer.sign({}), ca, at=moments[0]).returncode == 0


def test_a_ca_asked_for_twice_at_the_same_time_is_made_once(tmp_path: Path) -> None:
    """`serve` and `ca` are often started together at the first installation."""
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: Authority(tmp_path).ca(NOW).certificate_pem, range(2)))
    assert made[0] == made[1]


def test_a_damaged_key_file_is_not_replaced(tmp_path: Path) -> None:
    """A new CA would be distrusted by every host: a person has to decide."""
    Authority(tmp_path).ca(NOW)
    (tmp_path / "ca.pem").write_text("damaged")
    with pytest.raises(OperatorError, match=r"ca\.pem"):
        Authority(tmp_path).ca(NOW)
    assert (tmp_path / "ca.pem").read_text() == "damaged"
