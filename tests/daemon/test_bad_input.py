"""Whatever is wrong with a command, its report says what, where, why and what to do, and the agent goes on."""

from __future__ import annotations

import base64
import json
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.bundle.packing import file, symlink, tar_bytes, zip_bytes
from tests.bundle.servers import Answer, s3_error
from tests.daemon.agent_process import Agent
from tests.daemon.control_server import (
    SIGNER,
    STRANGER,
    Completion,
    ControlServer,
    Deployment,
    sealed,
    specification_answer,
)
from tests.daemon.revisions import Application, Bucket, s3_revision
from tests.e2e.bundles import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.server

SCRIPT = "#!/bin/sh\necho last words >&2\n"


@dataclass
class Bench:
    """One agent for all cases: that it goes on after each of them is half of what is tested."""

    agent: Agent
    server: ControlServer
    bucket: Bucket
    directory: Path

    def application(self) -> Application:
        return Application(self.bucket, self.directory)

    def download(self, revision: dict[str, Any]) -> Completion:
        return self.server.run("DownloadBundle", self.application().deploy(revision))

    def download_answered(self, answer: Answer, **members: str) -> Completion:
        """DownloadBundle from a bucket that answers this."""
        self.bucket.objects["odd"] = answer
        return self.download(s3_revision("odd", **members))

    def sealed_as(self, answer: Callable[[bytes], dict[str, Any]]) -> Completion:
        """DownloadBundle whose specification is answered with what is made of its content."""
        deployment = self.application().revise()
        content = json.dumps(deployment.members).encode()
        self.server.specify(deployment.execution_id, answer(content))
        return self.server.run("DownloadBundle", deployment)

    def without(self, *names: str) -> Completion:
        """DownloadBundle whose specification lacks these members."""

        def answer(content: bytes) -> dict[str, Any]:
            members = {name: value for name, value in json.loads(content).items() if name not in names}
            return specification_answer(sealed(json.dumps(members).encode()))

        return self.sealed_as(answer)

    def event(self, files: dict[str, str | bytes], event: str = "BeforeInstall") -> Completion:
        """What becomes of an event of a bundle of these files, downloaded without complaint."""
        deployment = self.application().deploy(self.bucket.put(pack("tar", files)))
        self.server.carry(deployment, "DownloadBundle")
        return self.server.run(event, deployment)

    def hook(self, script: str | None, *lines: str) -> Completion:
        """BeforeInstall with one script; without text it is not in the bundle."""
        appspec = ["version: 0.0", "os: linux", "hooks:", "  BeforeInstall:", "    - location: bin/check.sh"]
        files: dict[str, str | bytes] = {
            "appspec.yml": "\n".join([*appspec, *(f"      {line}" for line in lines)])
        }
        if script is not None:
            files["bin/check.sh"] = script
        return self.event(files)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, bucket: Bucket) -> Iterator[Bench]:
    directory = tmp_path_factory.mktemp("bad-input")
    server = ControlServer().start()
    settings = {"deploy_control_endpoint": server.url, "s3_endpoint_override": bucket.server.url}
    agent = Agent(directory / "agent", settings).start()
    yield Bench(agent, server, bucket, directory)
    agent.clear_away()
    server.stop()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A bad command, and what its report must tell.

    Attributes:
        error_id: the stable id at the end of the message.
        says: what the message must have in it, in this order: what, where, why, what to do.
        code: `error_code` of the report.
    """

    arrange: Callable[[Bench], Completion]
    error_id: str
    says: tuple[str, ...]
    code: int = 5
    script_name: str = ""


def tampered(content: bytes) -> dict[str, Any]:
    """An honest signature under a text that was changed afterwards."""
    payload = sealed(content)
    der = base64.b64decode("".join(payload.splitlines()[1:-1]))
    return specification_answer(base64.b64encode(der.replace(b'"shop"', b'"chop"')).decode())


def sabotaged_signature(content: bytes) -> dict[str, Any]:
    """A signature with one bit changed."""
    der = bytearray(base64.b64decode("".join(sealed(content).splitlines()[1:-1])))
    der[-1] ^= 1
    return specification_answer(base64.b64encode(bytes(der)).decode())


def stopped_short(payload: bytes) -> bytes:
    return payload[: len(payload) // 2]


def hostile_zip() -> bytes:
    return zip_bytes(file("appspec.yml", b"version: 0.0\nos: linux\n"), file("../../escaped", b"!"))


GOOD_ZIP = zip_bytes(file("appspec.yml", b"version: 0.0\nos: linux\n"), method=zipfile.ZIP_STORED)

CASES = {
    # The specification
    "signature broken": Case(
        arrange=lambda bench: bench.sealed_as(sabotaged_signature),
        error_id="specification-signature-invalid",
        says=("signature",),
    ),
    "text changed after signing": Case(
        arrange=lambda bench: bench.sealed_as(tampered),
        error_id="specification-signature-invalid",
        says=("signature",),
    ),
    "unsigned": Case(
        arrange=lambda bench: bench.sealed_as(
            lambda content: specification_answer(content.decode(), "TEXT/JSON")
        ),
        error_id="specification-unsigned",
        says=("plain text without a signature", "Make the control endpoint sign"),
    ),
    "unknown envelope": Case(
        arrange=lambda bench: bench.sealed_as(lambda content: specification_answer("...", "PKCS12/XML")),
        error_id="specification-format-unknown",
        says=("PKCS12/XML", "signed PKCS7 only", "Update the agent"),
    ),
    "no envelope at all": Case(
        arrange=lambda bench: bench.sealed_as(lambda content: specification_answer("", "")),
        error_id="specification-missing",
        says=("without a deployment specification", "Create the deployment again", "ask who runs it"),
    ),
    "nothing at all": Case(
        arrange=lambda bench: bench.sealed_as(lambda content: {"DeploymentSpecification": {}}),
        error_id="specification-missing",
        says=("without a deployment specification", "Create the deployment again", "ask who runs it"),
    ),
    "no PKCS7 at all": Case(
        arrange=lambda bench: bench.sealed_as(lambda content: specification_answer("Not Found")),
        error_id="specification-envelope-unreadable",
        says=("envelope",),
    ),
    "another system": Case(
        arrange=lambda bench: bench.sealed_as(
            lambda content: specification_answer(sealed(content), system="Puppet")
        ),
        error_id="deployment-system-unknown",
        says=("Puppet", "CodeDeploy", "Check which endpoint"),
    ),
    "no JSON inside": Case(
        arrange=lambda bench: bench.sealed_as(lambda content: specification_answer(sealed(b"<xml/>"))),
        error_id="specification-invalid",
        says=("deployment specification can't be used", "not JSON"),
    ),
    "one required member is missing": Case(
        arrange=lambda bench: bench.without("DeploymentGroupName"),
        error_id="specification-invalid",
        says=("DeploymentGroupName is missing in DeploymentSpecification", "Create the deployment again"),
    ),
    "all required members are missing": Case(
        arrange=lambda bench: bench.without(
            "DeploymentId", "DeploymentGroupId", "DeploymentGroupName", "ApplicationName", "Revision"
        ),
        error_id="specification-invalid",
        says=(
            "DeploymentId, DeploymentGroupId, DeploymentGroupName, ApplicationName and Revision are missing",
            "Create the deployment again",
        ),
    ),
    "revision without a key": Case(
        arrange=lambda bench: bench.download(
            {"RevisionType": "S3", "S3Revision": {"Bucket": "bundles", "BundleType": "tar"}}
        ),
        error_id="specification-invalid",
        says=(
            "Key is missing in S3Revision",
            "Create the deployment again with a revision that has all of this",
        ),
    ),
    "a directory of this host, from the network": Case(
        arrange=lambda bench: bench.download(
            {
                "RevisionType": "Local Directory",
                "LocalRevision": {"Location": "/etc", "BundleType": "directory"},
            }
        ),
        error_id="specification-local-revision",
        says=("Local Directory", "Put the revision into S3"),
    ),
    "a group id that leaves the root": Case(
        arrange=lambda bench: bench.server.run(
            "DownloadBundle",
            Deployment(deployment_id="d-1", group_id="../outside", revision=s3_revision("key")),
        ),
        error_id="specification-invalid",
        says=("DeploymentGroupId", "../outside"),
    ),
    "a group called like a directory of the agent": Case(
        arrange=lambda bench: bench.server.run(
            "DownloadBundle",
            Deployment(deployment_id="d-1", group_id="deployment-instructions", revision=s3_revision("key")),
        ),
        error_id="group-id-reserved",
        says=("deployment-instructions", "another id"),
    ),
    # The command
    "unknown command": Case(
        arrange=lambda bench: bench.server.run("MakeCoffee", bench.application().revise()),
        error_id="command-unknown",
        says=("MakeCoffee", "Check the name"),
    ),
    "command in lower case": Case(
        arrange=lambda bench: bench.server.run("downloadBundle", bench.application().revise()),
        error_id="command-unknown",
        says=("does not know the command downloadBundle; did you mean 'DownloadBundle'?",),
    ),
    # The bundle
    "bundle missing": Case(
        arrange=lambda bench: bench.download(s3_revision("nowhere.zip", "zip")),
        error_id="bundle-not-found",
        says=("s3://bundles/nowhere.zip", "404"),
    ),
    "bundle forbidden": Case(
        arrange=lambda bench: bench.download_answered(s3_error(403, "AccessDenied", "Access Denied")),
        error_id="bundle-access-denied",
        says=("s3://bundles/odd", "AccessDenied"),
    ),
    "wrong ETag": Case(
        arrange=lambda bench: bench.download_answered(Answer(200, GOOD_ZIP, {"ETag": '"this"'}), ETag="that"),
        error_id="bundle-etag-mismatch",
        says=("s3://bundles/odd", "that"),
    ),
    "archive cut off": Case(
        arrange=lambda bench: bench.download(
            bench.bucket.put(stopped_short(pack("tgz", {"appspec.yml": "x" * 5000})), "tgz")
        ),
        error_id="bundle-corrupt",
        says=("bundle.tar can't be unpacked", "cut off", "Build and upload the revision again"),
    ),
    "no archive but a page": Case(
        arrange=lambda bench: bench.download(bench.bucket.put(b"<html>Sign in</html>" * 100, "zip")),
        error_id="bundle-type-wrong",
        says=("zip",),
    ),
    "archive that leaves its root": Case(
        arrange=lambda bench: bench.download(bench.bucket.put(hostile_zip(), "zip")),
        error_id="archive-entry-outside",
        says=("../../escaped",),
    ),
    "archive that writes through a link": Case(
        arrange=lambda bench: bench.download(
            bench.bucket.put(tar_bytes(symlink("out", "/tmp"), file("out/escaped")), "tar")
        ),
        error_id="archive-entry-outside",
        says=("out/", "leads through a symbolic link", "Build the bundle without it"),
    ),
    # The AppSpec
    "no AppSpec": Case(
        arrange=lambda bench: bench.event({"readme.txt": "hello"}),
        error_id="appspec-missing",
        says=("appspec.yml",),
    ),
    "AppSpec invalid, at an event": Case(
        arrange=lambda bench: bench.event(
            {"appspec.yml": "version: 0.0\nos: windows\nhooks:\n  BeforeInstall:\n    - timeout: 5\n"}
        ),
        error_id="appspec-invalid",
        says=("appspec.yml", "2 problems", "line 2", "windows", "line 5", "location"),
    ),
    "AppSpec invalid, at Install": Case(
        arrange=lambda bench: bench.event({"appspec.yml": "version: 1.0\nos: linux\n"}, "Install"),
        error_id="appspec-invalid",
        says=("appspec.yml", "line 1", "version"),
    ),
    "AppSpec is no YAML": Case(
        arrange=lambda bench: bench.event({"appspec.yml": "version: 0.0\nos: [linux\n"}, "Install"),
        error_id="appspec-invalid",
        says=("appspec.yml", "line"),
    ),
    # Scripts
    "script missing": Case(
        arrange=lambda bench: bench.hook(None),
        error_id="hook-script-missing",
        says=("bin/check.sh",),
        code=1,
        script_name="bin/check.sh",
    ),
    "script fails": Case(
        arrange=lambda bench: bench.hook(f"{SCRIPT}exit 3\n"),
        error_id="hook-failed",
        says=("Script at specified location: bin/check.sh", "failed with exit code 3"),
        code=4,
        script_name="bin/check.sh",
    ),
    "script is killed": Case(
        arrange=lambda bench: bench.hook(f"{SCRIPT}kill -9 $$\n"),
        error_id="hook-killed",
        says=("bin/check.sh", "SIGKILL"),
        code=4,
        script_name="bin/check.sh",
    ),
    "script too slow": Case(
        arrange=lambda bench: bench.hook(f"{SCRIPT}sleep 30\n", "timeout: 1"),
        error_id="hook-timed-out",
        says=("bin/check.sh", "failed to complete in 1 second"),
        code=3,
        script_name="bin/check.sh",
    ),
    "script without interpreter": Case(
        arrange=lambda bench: bench.hook("#!/opt/nowhere/python9\n"),
        error_id="hook-interpreter-missing",
        says=("bin/check.sh", "/opt/nowhere/python9"),
        code=4,
        script_name="bin/check.sh",
    ),
    "script from Windows": Case(
        arrange=lambda bench: bench.hook("#!/bin/sh\r\necho hello\r\n"),
        error_id="hook-windows-line-ends",
        says=("bin/check.sh", "Windows"),
        code=4,
        script_name="bin/check.sh",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_fails_its_command_with_everything_that_one_needs_to_know(bench: Bench, name: str) -> None:
    """3 a.m., and this report is all there is: what, where, why, what to do, and an id to look up."""
    case = CASES[name]
    completion = case.arrange(bench)
    assert ("Failed", case.code, case.script_name) == (
        completion.status,
        completion.code,
        completion.script_name,
    ), completion
    assert completion.message.endswith(f" [{case.error_id}]"), completion.message
    place = 0
    for part in case.says:
        assert part in completion.message[place:], completion.message
        place = completion.message.index(part, place)
    message = completion.message.removesuffix(f" [{case.error_id}]")
    if case.error_id in ("hook-failed", "hook-killed", "hook-timed-out"):
        assert "[stderr]last words" in completion.log
        message = message.removesuffix(" Last of its standard error: last words")
    assert message.endswith("."), completion.message


def test_after_all_of_that_a_good_deployment_succeeds(bench: Bench) -> None:
    """One bad deployment must never be the end of the agent."""
    bench.hook(None)
    application = bench.application()
    bench.server.carry(
        application.revise("one", ["AfterInstall"]), "DownloadBundle", "Install", "AfterInstall"
    )
    assert (["file.txt"], "one") == (
        [path.name for path in application.destination.iterdir()],
        (application.destination / "file.txt").read_text(),
    )
    bench.agent.wait_until_idle()
    assert [] == bench.agent.logged("worker_died") + bench.agent.logged("command_crashed")


@pytest.mark.parametrize("signer", ["a stranger", "our own CA"])
def test_with_a_ca_file_only_its_signers_count(
    tmp_path: Path, server: ControlServer, bucket: Bucket, signer: str
) -> None:
    """An intact signature proves nothing when anybody may have made it."""
    ca_file = tmp_path / "signers.pem"
    ca_file.write_bytes(SIGNER.pem)
    settings = {"deploy_control_endpoint": server.url, "s3_endpoint_override": bucket.server.url}
    agent = Agent(tmp_path / "agent", {**settings, "deployment_signer_ca_file": ca_file}).start()
    try:
        deployment = Application(bucket, tmp_path).revise()
        content = json.dumps(deployment.members).encode()
        chosen = STRANGER if signer == "a stranger" else SIGNER
        server.specify(deployment.execution_id, specification_answer(sealed(content, chosen)))
        completion = server.run("DownloadBundle", deployment)
    finally:
        agent.clear_away()
    if chosen is SIGNER:
        assert "Succeeded" == completion.status
    else:
        assert completion.message.endswith("[specification-signer-untrusted]")
        assert str(ca_file) in completion.message
        assert "Somebody else" in completion.message


def test_without_a_ca_file_a_new_signer_is_accepted_and_said_in_the_log(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The service may change its certificate; nobody else should without being noticed."""
    server.carry(application.revise(), "DownloadBundle")
    deployment = application.revise()
    content = json.dumps(deployment.members).encode()
    server.specify(deployment.execution_id, specification_answer(sealed(content, STRANGER)))
    server.carry(deployment, "DownloadBundle")
    (line,) = agent.logged("signer_changed")
    assert STRANGER.fingerprint in line
    assert SIGNER.fingerprint in line


def test_where_it_is_not_known_any_more_who_signed_before_that_is_said(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """A damaged file would let somebody else sign from now on, as on a host that has never been deployed to."""
    (agent.state / "signer.json").write_bytes(b"\0" * 20)
    server.carry(application.revise(), "DownloadBundle")
    (line,) = agent.logged("signer_changed")
    assert "signer.json can't be read" in line
    assert SIGNER.fingerprint in line
    assert SIGNER.fingerprint in (agent.state / "signer.json").read_text()
