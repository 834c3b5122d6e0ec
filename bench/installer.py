"""Install as a checkout has it, in a process of its own, so that those of two checkouts can be measured in one run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.taken import Taken, forked

if TYPE_CHECKING:
    from typing import TextIO

GROUP = "bench"


class Installer:
    """Unpacks bundles, and installs them. Close it in the end.

    Args:
        checkout: whose agent does that; with the packages of the Python that runs this.
        directory: where it keeps what it needs, and where it installs to.
        appspec: the AppSpec in the bundles that says so.
    """

    def __init__(self, checkout: Path, directory: Path, appspec: str) -> None:
        self.destination = directory / "destination"
        self._root = directory / "root"
        self._appspec = appspec
        command = [sys.executable, str(Path(__file__).resolve()), str(checkout.resolve())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )

    def close(self) -> None:
        """Afterwards the process is gone."""
        self._process.communicate()

    def unpack(self, bundle: Path, deployment_id: str) -> Path:
        """The deployment archive of a new deployment, as DownloadBundle leaves it; all older ones are removed."""
        return Path(self._answer("unpack", bundle=str(bundle), deployment_id=deployment_id)["archive"])

    def install(self, archive: Path, *, durable: bool = True) -> Taken:
        """What Install takes in a forked process, with the options of a worker."""
        return Taken(**self._answer("install", archive=str(archive), durable=durable))

    def _answer(self, work: str, **arguments: object) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("it was started with both")
        command = {"work": work, "root": str(self._root), "appspec": self._appspec, **arguments}
        print(json.dumps(command), file=stdin, flush=True)
        answer = stdout.readline()
        if not answer:
            sys.exit(f"{work} failed, and says why above")
        found: dict[str, Any] = json.loads(answer)
        return found


def _serve(commands: TextIO) -> None:
    for line in commands:
        command = json.loads(line)
        answer = _install(**command) if command.pop("work") == "install" else _unpack(**command)
        print(json.dumps(answer), flush=True)


# The agent is that of another checkout, once its path is known.
# ruff: noqa: PLC0415


def _unpack(root: str, appspec: str, bundle: str, deployment_id: str) -> dict[str, str]:  # noqa: ARG001
    from agent.bundle import ArchiveLimits
    from agent.bundle.unpack import unpack_bundle
    from agent.deployments.layout import DeploymentRoot
    from agent.protocol import BundleType

    deployments = DeploymentRoot(path=Path(root))
    directory = deployments.deployment(GROUP, deployment_id)
    directory.path.mkdir(parents=True)
    unpack_bundle(Path(bundle), BundleType.TAR, directory.archive, ArchiveLimits(), ())
    others = [path for path in deployments.group(GROUP).iterdir() if path != directory.path]
    subprocess.run(["rm", "-rf", "--", *others], check=True)
    return {"archive": str(directory.archive)}


def _install(root: str, appspec: str, archive: str, *, durable: bool) -> dict[str, Any]:
    import os

    from agent.appspec import read_appspec
    from agent.deployments.layout import DeploymentRoot
    from agent.install import InstallOptions, InstallRequest, install

    instructions = DeploymentRoot(path=Path(root)).instructions
    instructions.mkdir(exist_ok=True)
    request = InstallRequest(
        appspec=read_appspec(Path(archive), appspec),
        archive=Path(archive),
        instructions_directory=instructions,
        group_id=GROUP,
        deployment_id=Path(archive).parent.name,
        options=InstallOptions(processes=len(os.sched_getaffinity(0)), durable=durable),
    )
    return asdict(forked(lambda: install(request)))


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    _serve(sys.stdin)
