"""Revisions in a bucket on loopback, and scripts that leave a trace and wait for a gate."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.bundle.servers import Answer, Request, Server, s3_error
from tests.daemon.control_server import Deployment
from tests.e2e.bundles import pack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_numbers = itertools.count(1)


class Bucket:
    """S3 with one bucket; what it has for each key can be anything."""

    def __init__(self) -> None:
        self.objects: dict[str, Answer] = {}
        self.server = Server(self._answer)

    def _answer(self, request: Request) -> Answer:
        key = request.path.partition("?")[0].removeprefix("/bundles/")
        return self.objects.get(key) or s3_error(404, "NoSuchKey", "The specified key does not exist.")

    def put(self, content: bytes, kind: str = "tar") -> dict[str, Any]:
        """Keep a bundle; the members of its revision."""
        key = f"bundle-{next(_numbers)}.{kind}"
        self.objects[key] = Answer(200, content, {"ETag": '"an-etag"'})
        return s3_revision(key, kind)


def s3_revision(key: str, kind: str = "tar", **members: str) -> dict[str, Any]:
    """Members of a revision in the bucket."""
    revision = {"Bucket": "bundles", "Key": key, "BundleType": kind, **members}
    return {"RevisionType": "S3", "S3Revision": revision}


@dataclass
class Application:
    """One deployment group, its revisions, and the files that its scripts write.

    Each script writes a line `<event> of <label>` into the trace.
    """

    bucket: Bucket
    directory: Path
    group_id: str = field(default_factory=lambda: f"group-{next(_numbers)}")

    def in_another_group(self) -> Application:
        """Another application on the same host."""
        return Application(self.bucket, self.directory)

    @property
    def destination(self) -> Path:
        """Where its files go."""
        return self.directory / f"{self.group_id}-files"

    @property
    def trace(self) -> list[str]:
        """What its scripts have written so far."""
        path = self._trace_file
        return path.read_text().splitlines() if path.exists() else []

    @property
    def _trace_file(self) -> Path:
        return self.directory / f"{self.group_id}-trace"

    def revise(
        self,
        label: str = "one",
        events: Sequence[str] = (),
        *,
        script: str = "",
        appspec: str = "appspec.yml",
        timeout_s: int = 60,
        others: Mapping[str, Any] | None = None,
    ) -> Deployment:
        """A deployment of a new revision with a script for each of these events.

        Args:
            label: what the scripts of this revision call themselves.
            events: that have a script.
            script: what it does after its line in the trace.
            appspec: name of the AppSpec file.
            timeout_s: of each script.
            others: further members of the deployment specification.
        """
        lines = f'#!/bin/sh\necho "$LIFECYCLE_EVENT of {label}" >> {self._trace_file}\n{script}\n'
        files = {"file.txt": label, "hook.sh": lines, appspec: self.appspec(events, timeout_s)}
        return self.deploy(
            self.bucket.put(pack("tar", files)),
            appspec_filename=None if appspec == "appspec.yml" else appspec,
            others=dict(others or {}),
        )

    def appspec(self, events: Sequence[str] = (), timeout_s: int = 60) -> str:
        """Installs one file; runs one script at these events."""
        lines = [
            "version: 0.0",
            "os: linux",
            "files:",
            "  - source: file.txt",
            f"    destination: {self.destination}",
            "file_exists_behavior: OVERWRITE",
        ]
        if events:
            lines.append("hooks:")
        for event in events:
            lines += [f"  {event}:", "    - location: hook.sh", f"      timeout: {timeout_s}"]
        return "\n".join(lines) + "\n"

    def deploy(self, revision: dict[str, Any], **members: Any) -> Deployment:
        """A new deployment of this revision."""
        return Deployment(
            deployment_id=f"d-{next(_numbers):09d}", group_id=self.group_id, revision=revision, **members
        )


@dataclass(frozen=True)
class Gate:
    """What a script waits for. It gives up when the gate's directory is gone."""

    path: Path

    @property
    def script(self) -> str:
        """Lines that say that they wait, and do so."""
        return f"echo $$ > {self.path}.reached; while [ -d {self.path.parent} ] && [ ! -e {self.path} ]; do sleep 0.02; done"

    def open(self) -> None:
        """Let the scripts go on."""
        self.path.touch()

    @property
    def is_reached(self) -> bool:
        """Whether a script waits here, or has done so."""
        return bool(self._reached_by)

    @property
    def pid(self) -> int:
        """Of the script that came here last."""
        return int(self._reached_by)

    @property
    def _reached_by(self) -> str:
        path = self.path.with_name(f"{self.path.name}.reached")
        return path.read_text() if path.exists() else ""
