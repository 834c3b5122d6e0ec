"""docs/install.md and docs/service.md: what people copy out of them is right."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from agent.identity.on_premises_file import parse_on_premises
from agent.settings_file import load_settings
from tests.packaging.booted.root import AGENT

if TYPE_CHECKING:
    from tests.packaging.booted.builds import Packages
    from tests.packaging.booted.site import Site

_DOCUMENTS = Path(__file__).parents[2] / "docs"


def snippets(language: str) -> list[Any]:
    """All blocks of this language, of both documents."""
    found = []
    for name in ("install.md", "service.md"):
        text = (_DOCUMENTS / name).read_text("utf-8")
        for indent, block in re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
            unindented = re.sub(rf"^{indent}", "", block, flags=re.MULTILINE)
            found.append(pytest.param(unindented, id=f"{name}-{unindented.splitlines()[0]}"))
    assert found
    return found


@pytest.mark.parametrize("text", snippets("yaml"))
def test_what_goes_into_a_configuration_is_understood(text: str, tmp_path: Path) -> None:
    """A key with a slip of the pen would be passed on to every host of a fleet."""
    if "iam_user_arn" in text:
        assert () == parse_on_premises(text.encode(), "file").warnings
        return
    document = yaml.safe_load(text)
    if isinstance(document, list):  # a playbook
        contents = [task["ansible.builtin.copy"].get("content") for task in copies(document)]
    elif "write_files" in document:  # cloud-init
        contents = [file["content"] for file in document["write_files"]]
    else:
        contents = [text]
    for content in filter(None, contents):
        (tmp_path / "agent.yml").write_text(content)
        assert () == tuple(load_settings(tmp_path / "agent.yml").warnings)


def copies(playbook: list[Any]) -> list[Any]:
    """The tasks that write a file."""
    return [task for play in playbook for task in play["tasks"] if "ansible.builtin.copy" in task]


@pytest.mark.parametrize("text", snippets("sh"))
def test_scripts_are_well_formed(text: str) -> None:
    """A line that is lost in an edit is found here, and not at three in the morning."""
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("text", snippets("ini"))
def test_drop_ins_do_not_take_away_what_the_unit_must_have(text: str) -> None:
    """A drop-in that replaces a command replaces the one that lets a hook stop the agent, too."""
    assert text.startswith("[Service]\n")
    assert text.count("ExecStart=\n") == text.count("ExecStop=\n")


@pytest.mark.root
@pytest.mark.booted
@pytest.mark.server
@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces and control groups")
def test_the_user_data_sets_up_a_host(site: Site, clean_tree: Path, packages: Packages) -> None:
    """What cloud-init would do with it, in its order; only the package comes from the host's disk."""
    text = (_DOCUMENTS / "install.md").read_text("utf-8")
    (user_data,) = re.findall(r"^```yaml\n(#cloud-config\n.*?)^```", text, re.DOTALL | re.MULTILINE)
    document = yaml.safe_load(user_data)
    host = site.boot(clean_tree)
    package = host.put(packages.deb)
    (file,) = document["write_files"]
    servers = site.settings().replace("wait_between_runs: 1\n", "")
    host.write(file["path"], file["content"] + servers)
    (script,) = document["runcmd"]
    local, fetched = re.subn(r"curl -fsSO https://\S+/(\S+)", rf"cp {package} \1", script)
    assert 1 == fetched
    host.run("sh", "-c", local)
    host.wait_for_status("waiting: start_when_file /run/cloud-init/result.json does not exist")
    assert "enabled" == host.run("systemctl", "is-enabled", AGENT)
    assert file["content"] + servers == host.path(file["path"]).read_text()
    host.write("/run/cloud-init/result.json", "{}")
    host.wait_for_status("polling")
