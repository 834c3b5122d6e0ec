"""The three files: deb, rpm and tarball."""

from __future__ import annotations

import gzip
import json
import subprocess
import tarfile
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from packages.system_files import SystemFile

LIBRARY = "/usr/lib/codedeploy-agent"
_NAME = "codedeploy-agent"
_CONFIGURATION = "/etc/codedeploy-agent/conf"
# What Debian calls a machine; nfpm translates it for rpm.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

# Old version, new version: a word for deb, a number for rpm. Texts in packaging/scripts.
_SCRIPTS = {
    "deb": {
        "preinstall": "deb-preinst",
        "postinstall": "deb-postinst",
        "preremove": "deb-prerm",
        "postremove": "deb-postrm",
    },
    "rpm": {
        "postinstall": "rpm-post",
        "preremove": "rpm-preun",
        "postremove": "rpm-postun",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What is packed.

    Attributes:
        version: of the agent.
        architecture: as Debian calls it.
        time: of the commit, in seconds since the epoch; every file in the packages has it.
        glibc: the oldest that will do.
        program: directory with interpreter, dependencies and agent.
        system_files: what goes elsewhere.
        copyright: file with all licences.
    """

    version: str
    architecture: str
    time: int
    glibc: str
    program: Path
    system_files: Sequence[SystemFile]
    copyright: Path

    def file_name(self, suffix: str) -> str:
        """Such as codedeploy-agent_1.0.0_amd64.deb."""
        return f"{_NAME}_{self.version}_{self.architecture}.{suffix}"


def write_package(release: Release, kind: str, packaging: Path, work: Path, nfpm: Path) -> Path:
    """The deb or rpm is there; the same input gives the same bytes."""
    scripts = work / f"{kind}-scripts"
    scripts.mkdir()
    functions = (packaging / "scripts/functions.sh").read_text("utf-8")
    for name in [*_SCRIPTS[kind].values(), "rpm-posttrans", "tidy"]:
        body = (packaging / "scripts" / name).read_text("utf-8")
        if name in _SCRIPTS["deb"].values():
            body = f"{_names_of_configuration(release)}\n{body}"
        if name == "deb-preinst":
            body = f"{_shipped_configuration(release)}\n{body}"
        (scripts / name).write_text(f"#!/bin/sh\nset -e\n\n{functions}\n{body}", "utf-8")
    description = work / f"nfpm-{kind}.json"  # JSON is YAML
    description.write_text(json.dumps(_description(release, kind, scripts, packaging), indent=1), "utf-8")
    target = work.parent / release.file_name(kind)
    command = [
        str(nfpm),
        "package",
        "--config",
        str(description),
        "--packager",
        kind,
        "--target",
        str(target),
    ]
    environment = {"SOURCE_DATE_EPOCH": str(release.time), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return target


def write_tarball(release: Release, work: Path, packaging: Path) -> Path:
    """Make the archive for install.sh, with the files of the packages: one directory, laid out as the project is, with the program in `program`."""
    target = work.parent / release.file_name("tar.gz")
    project = packaging.parent
    members = {f"program/{path.relative_to(release.program)}": path for path in release.program.rglob("*")}
    members["copyright"] = release.copyright
    for file in release.system_files:
        members[str(file.source.relative_to(project)).removeprefix("packaging/")] = file.source
    installer = packaging / "install.sh"
    if installer.is_file():
        members["install.sh"] = installer
    with (
        target.open("wb") as stream,
        gzip.GzipFile("", "wb", compresslevel=9, fileobj=stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path in sorted(members.items()):
            member = archive.gettarinfo(path, f"{_NAME}-{release.version}/{name}")
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            member.mtime = release.time
            member.mode = 0o755 if path.is_dir() or member.mode & 0o100 else 0o644
            if member.isreg():
                with path.open("rb") as content:
                    archive.addfile(member, content)
            else:
                archive.addfile(member)
    return target


def _names_of_configuration(release: Release) -> str:
    """A shell variable, as some scripts run where there is none of the package's files."""
    names = " ".join(file.destination for file in release.system_files if file.is_configuration)
    return f"configuration='{names}'\n"


def _shipped_configuration(release: Release) -> str:
    """A shell function that prints a configuration file as it is shipped, for preinst, which runs before it is there."""
    files = [file for file in release.system_files if file.is_configuration]
    cases = [
        f"{file.destination})\n    cat <<'END OF FILE'\n{file.source.read_text('utf-8')}END OF FILE\n    ;;\n"
        for file in files
    ]
    return f"shipped() {{\ncase $1 in\n{''.join(cases)}esac\n}}\n"


def _description(release: Release, kind: str, scripts: Path, packaging: Path) -> dict[str, Any]:
    glibc = {"deb": f"libc6 (>= {release.glibc})", "rpm": f"glibc >= {release.glibc}"}
    description: dict[str, Any] = {
        "name": _NAME,
        "epoch": "1",  # see docs/packages.md: newer than every version of the existing agents
        "version": release.version,
        "version_schema": "none",
        "arch": release.architecture,
        "platform": "linux",
        "section": "admin",
        "priority": "optional",
        "maintainer": "The codedeploy-host-agent project <maintainers@codedeploy-host-agent.invalid>",
        "license": "Apache-2.0",
        "description": (
            "On-host deployment agent\n"
            "Runs deployments on this host: fetches revisions, installs their files and runs their hooks,\n"
            "as a control endpoint of the CodeDeploy host command protocol asks. It brings its own Python."
        ),
        "depends": [glibc[kind]],
        # Without CAs, no connection is trusted. A host with its own (AWS_CA_BUNDLE) needs none.
        "recommends": ["ca-certificates"],
        "mtime": _timestamp(release.time),
        "contents": _contents(release, scripts, packaging),
        "scripts": {when: str(scripts / name) for when, name in _SCRIPTS[kind].items()},
    }
    if kind == "deb":
        description["deb"] = {"compression": "xz"}
    else:
        description["release"] = "1"
        description["rpm"] = {
            "group": "System Environment/Daemons",
            "summary": "On-host deployment agent",
            "compression": "xz",
            "buildhost": "localhost",
            "scripts": {"posttrans": str(scripts / "rpm-posttrans")},
        }
    return description


def _contents(release: Release, scripts: Path, packaging: Path) -> list[dict[str, Any]]:
    program = release.program
    contents: list[dict[str, Any]] = [
        {"src": f"{program}/", "dst": f"{LIBRARY}/program", "type": "tree"},
        _file(scripts / "tidy", f"{LIBRARY}/tidy", 0o755),
        _file(release.copyright, f"/usr/share/doc/{_NAME}/copyright"),
        _link(f"{LIBRARY}/current/bin/agentctl", "/usr/bin/agentctl"),
    ]
    # Parents of files; rpm would leave those behind that no package names.
    owned = (
        LIBRARY,
        "/etc/codedeploy-agent",
        _CONFIGURATION,
        f"/usr/share/doc/{_NAME}",
        # Nobody's, where that shell is not installed.
        "/usr/share/fish",
        "/usr/share/fish/vendor_completions.d",
        "/usr/share/zsh",
        "/usr/share/zsh/site-functions",
        "/usr/share/zsh/vendor-completions",
    )
    contents += [_directory(name) for name in owned]
    for unit in ("codedeploy-agent", "codedeploy-agent-unprivileged"):
        directory = f"/usr/lib/systemd/system/{unit}.service.d"
        contents.append(_directory(directory))
        drop_in = f"{directory}/tidy.conf"
        contents.append(_file(packaging / "scripts/tidy.conf", drop_in))
    for file in release.system_files:
        entry = _file(file.source, file.destination, file.mode)
        if file.is_configuration:
            entry["type"] = "config|noreplace"
        contents.append(entry)
    return contents


def _file(source: Path, destination: str, mode: int = 0o644) -> dict[str, Any]:
    return {"src": str(source), "dst": destination, "file_info": {"mode": mode}}


def _directory(name: str) -> dict[str, Any]:
    return {"dst": name, "type": "dir", "file_info": {"mode": 0o755}}


def _link(target: str, destination: str) -> dict[str, Any]:
    return {"src": target, "dst": destination, "type": "symlink"}


def _timestamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z")
