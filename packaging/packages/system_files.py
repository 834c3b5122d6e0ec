"""What the packages put into the host's own directories: units, commands, configuration, manual pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packages.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UNITS = "/usr/lib/systemd/system"
_CONFIGURATION = "/etc/codedeploy-agent/conf"


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFile:
    """A file of the project, and where it goes.

    Attributes:
        source: in the project.
        destination: absolute.
        mode: of the installed file.
        is_configuration: people change it, and an upgrade keeps what they wrote.
    """

    source: Path
    destination: str
    mode: int = 0o644
    is_configuration: bool = False


def system_files(project: Path) -> list[SystemFile]:
    """All files that there are, in a fixed order.

    Raises:
        BuildFailed: one is missing without which the agent can't be started or configured.
    """
    required = _required(project)
    missing = [str(file.source.relative_to(project)) for file in required if not file.source.is_file()]
    if missing:
        raise BuildFailed(
            f"These files are missing, and the packages are no use without: {', '.join(missing)}."
        )
    found = [*required, *_optional(project)]
    return sorted(found, key=lambda file: file.destination)


def _required(project: Path) -> list[SystemFile]:
    units = ("codedeploy-agent.service", "codedeploy-agent-unprivileged.service")
    commands = ("codedeploy-agent", "codedeploy-local")
    configuration = SystemFile(
        source=project / "conf/codedeployagent.yml",
        destination=f"{_CONFIGURATION}/codedeployagent.yml",
        is_configuration=True,
    )
    return [
        *(SystemFile(source=project / "systemd" / name, destination=f"{_UNITS}/{name}") for name in units),
        *(
            SystemFile(
                source=project / "packaging/commands" / name, destination=f"/usr/bin/{name}", mode=0o755
            )
            for name in commands
        ),
        configuration,
    ]


def _optional(project: Path) -> list[SystemFile]:
    return [file for file in _wanted(project) if file.source.is_file()]


def _wanted(project: Path) -> Iterator[SystemFile]:
    for name, destination in (
        ("conf/codedeployagent-unprivileged.yml", f"{_CONFIGURATION}/codedeployagent-unprivileged.yml"),
        ("conf/logrotate", "/etc/logrotate.d/codedeploy-agent"),
    ):
        yield SystemFile(source=project / name, destination=destination, is_configuration=True)
    systemd = project / "systemd"
    # Not yet where systemd looks: see set_restart_delays in packaging/scripts/functions.sh.
    yield SystemFile(
        source=systemd / "restart-delays.conf", destination="/usr/lib/codedeploy-agent/restart-delays.conf"
    )
    for kind in ("sysusers", "tmpfiles"):
        for source in [*systemd.glob(f"{kind}.d/*.conf"), *systemd.glob(f"*.{kind}")]:
            name = source.with_suffix(".conf").name
            yield SystemFile(source=source, destination=f"/usr/lib/{kind}.d/{name}")
    for source in systemd.glob("system-preset/*.preset"):
        # Neither: see link_preset there.
        yield SystemFile(source=source, destination=f"/usr/lib/codedeploy-agent/{source.name}")
    for source in (project / "packaging/man").glob("*.[158]"):
        yield SystemFile(source=source, destination=f"/usr/share/man/man{source.suffix[1:]}/{source.name}")
    for source in (project / "packaging/completions").glob("*"):
        for destination in _places_of_completion(source):
            yield SystemFile(source=source, destination=destination)


def _places_of_completion(source: Path) -> list[str]:
    """`agentctl.bash`, `agentctl.zsh`, `agentctl.fish`."""
    command = source.stem
    if source.suffix == ".fish":
        return [f"/usr/share/fish/vendor_completions.d/{command}.fish"]
    if source.suffix == ".zsh":
        # The zsh of Debian looks into the second one alone.
        return [f"/usr/share/zsh/{place}/_{command}" for place in ("site-functions", "vendor-completions")]
    return [f"/usr/share/bash-completion/completions/{command}"]
