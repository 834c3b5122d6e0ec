"""What the packages hold: the same in each kind, and the same bytes from every build."""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.packaging.booted.builds import PROJECT, Build, in_chroot, start_build
from tests.packaging.booted.started_command import StartedCommand
from tests.packaging.booted.trees import unpack

if TYPE_CHECKING:
    from pathlib import Path

    from tests.packaging.booted.builds import Packages

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        os.geteuid() != 0, reason="only root installs into a root of its own, or builds as another user"
    ),
]


def printed(*command: str) -> list[str]:
    """The lines that a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def rpm(tree: Path, *arguments: str) -> list[str]:
    """What rpm answers for a root; its dependencies are the other package manager's there."""
    return printed("rpm", "--root", str(tree), *arguments)


def contents(tree: Path) -> dict[str, str]:
    """Every file, directory and link with type, owner, mode, and target or content; not what belongs to package managers."""
    foreign = ("proc", "var/lib/dpkg", "var/lib/rpm", "var/cache", "var/log", "root", "tmp", "dev")
    pruned = [word for place in foreign for word in ("-path", f"{tree}/{place}", "-o")][:-1]
    lines = printed("find", str(tree), "(", *pruned, ")", "-prune", "-o", "-printf", "%P\t%y %u:%g %m %l\n")
    return dict(line.split("\t") for line in lines)


def age(versions: Path) -> None:
    """As if they had been installed two minutes ago, so that they may be removed."""
    for version in versions.iterdir():
        os.utime(version, (time.time() - 120, time.time() - 120))


def test_the_rpm_installs_the_same_files_as_the_deb(
    clean_tree: Path, installed_tree: Path, made: tuple[Packages, Path], scratch: Path
) -> None:
    """Owners, modes and contents; and when it is removed, the host is as it was."""
    packages, root_tar = made
    tree = unpack(root_tar, scratch / "rpm")
    rpm(tree, "--initdb")
    before = contents(tree)
    rpm(tree, "--install", "--nodeps", str(packages.rpm))
    by_rpm, by_deb = contents(tree), contents(installed_tree)
    # Enabled for the tests that boot it.
    del by_deb["etc/systemd/system/multi-user.target.wants/codedeploy-agent.service"]
    assert by_deb == by_rpm
    new = [name for name in by_rpm if name not in before and by_rpm[name].startswith("f")]
    assert len(new) > 1000
    differing = filecmp.cmpfiles(installed_tree, tree, new, shallow=False)[1:]
    assert ([], []) == differing

    rpm(tree, "--erase", "codedeploy-agent")
    # Directories of manual pages are there on every host with rpm, but not on this one.
    left = {name: told for name, told in contents(tree).items() if not name.startswith("usr/share/man/")}
    assert {name: told for name, told in before.items() if not name.startswith("usr/share/man/")} == left


def test_the_rpm_upgrades_like_the_deb(made: tuple[Packages, Path], scratch: Path) -> None:
    """The same version again: a new directory to run from, commands in their places, and the configuration as it was."""
    packages, root_tar = made
    tree = unpack(root_tar, scratch / "rpm-upgrade")
    rpm(tree, "--initdb")
    rpm(tree, "--install", "--nodeps", str(packages.rpm))
    configuration = tree / "etc/codedeploy-agent/conf/codedeployagent.yml"
    configuration.write_text("max_revisions: 3\n")
    library = tree / "usr/lib/codedeploy-agent"
    age(library / "versions")
    rpm(tree, "--upgrade", "--replacepkgs", "--nodeps", str(packages.rpm))
    (version,) = (library / "versions").iterdir()
    assert f"versions/{version.name}" == os.readlink(library / "current")
    assert version.name.endswith("-2")
    assert "max_revisions: 3\n" == configuration.read_text()
    for name in ("codedeploy-agent", "codedeploy-local"):
        assert f"/usr/bin/{name}" == os.readlink(tree / "opt/codedeploy-agent/bin" / name)


def test_the_rpm_takes_over_from_an_existing_agent_and_gives_back(
    made: tuple[Packages, Path], scratch: Path, tmp_path: Path
) -> None:
    """The scripts of both packages run in another order than dpkg, and removes files between them."""
    packages, root_tar = made
    tree = unpack(root_tar, scratch / "rpm-takeover")
    theirs = existing_rpm(tmp_path)
    rpm(tree, "--initdb")
    rpm(tree, "--install", "--nodeps", str(theirs))
    configuration = tree / "etc/codedeploy-agent/conf/codedeployagent.yml"
    program = tree / "opt/codedeploy-agent/bin/codedeploy-agent"
    configuration.write_text(":max_revisions: 3\n")

    rpm(tree, "--upgrade", "--nodeps", str(packages.rpm))
    assert ":max_revisions: 3\n" == configuration.read_text()
    assert "/usr/bin/codedeploy-agent" == os.readlink(program)
    assert (tree / "usr/lib/codedeploy-agent/current/bin/agentctl").is_file()

    rpm(tree, "--upgrade", "--oldpackage", "--nodeps", str(theirs))
    assert ("their program", ":max_revisions: 3\n") == (program.read_text(), configuration.read_text())
    assert not (tree / "usr/lib/codedeploy-agent").exists()
    assert not (tree / "usr/bin/agentctl").is_symlink()


def existing_rpm(directory: Path) -> Path:
    """The package of an existing agent."""
    contents = []
    for destination, text, kind in (
        ("/opt/codedeploy-agent/bin/codedeploy-agent", "their program", ""),
        ("/etc/codedeploy-agent/conf/codedeployagent.yml", ":max_revisions: 5\n", "config|noreplace"),
    ):
        source = directory / destination.rpartition("/")[2]
        source.write_text(text)
        contents.append({"src": str(source), "dst": destination, "type": kind})
    description = {"name": "codedeploy-agent", "version": "1.8.1", "arch": "amd64", "contents": contents}
    (directory / "existing.json").write_text(
        json.dumps({**description, "maintainer": "nobody", "release": "1"})
    )
    target = directory / "existing.rpm"
    nfpm = [str(PROJECT / "build/packages-tools/bin/nfpm"), "package", "--packager", "rpm"]
    printed(*nfpm, "--config", str(directory / "existing.json"), "--target", str(target))
    return target


@pytest.fixture(scope="module")
def scripted(made: tuple[Packages, Path], scratch: Path) -> Path:
    """A root with the package, and the package's scripts in root/scripts."""
    packages, root_tar = made
    tree = unpack(root_tar, scratch / "scripted")
    packages.install_in(tree)
    printed("dpkg-deb", "--control", str(packages.deb), str(tree / "root/scripts"))
    return tree


def test_what_tidies_up_leaves_an_installation_alone(scripted: Path) -> None:
    """Agents call it when they start, so also beside an upgrade; what it took away would be what starts next."""
    library = scripted / "usr/lib/codedeploy-agent"
    unfinished = library / "versions/9.9.9-1"
    unfinished.mkdir()
    age(library / "versions")
    with_lock = ["flock", str(library), "chroot", str(scripted), "/usr/lib/codedeploy-agent/tidy"]
    subprocess.run(with_lock, check=True)
    assert unfinished.exists()

    in_chroot(scripted, "/usr/lib/codedeploy-agent/tidy")
    assert not unfinished.exists()
    assert (library / "current/bin/agentctl").exists()


def test_a_version_that_was_just_made_stays(scripted: Path) -> None:
    """Whoever is just starting it can't be seen as a process of it yet."""
    library = scripted / "usr/lib/codedeploy-agent"
    age(library / "versions")
    in_chroot(scripted, "/root/scripts/postinst", "configure", "1:0.0.1")
    young = os.readlink(library / "current")
    in_chroot(scripted, "/root/scripts/postinst", "configure", "1:0.0.1")
    in_chroot(scripted, "/usr/lib/codedeploy-agent/tidy")
    assert {young, os.readlink(library / "current")} == {
        f"versions/{name}" for name in os.listdir(library / "versions")
    }
    age(library / "versions")
    in_chroot(scripted, "/usr/lib/codedeploy-agent/tidy")
    assert os.readlink(library / "current") == "versions/" + "".join(os.listdir(library / "versions"))


def test_installations_at_once_work_one_after_the_other(scripted: Path) -> None:
    """A second one takes nothing away that the first one makes."""
    library = scripted / "usr/lib/codedeploy-agent"
    command = ["chroot", str(scripted), "/root/scripts/postinst", "configure", "1:0.0.1"]
    with contextlib.ExitStack() as rest:
        started = [StartedCommand(command, {"PATH": os.environ["PATH"]}) for _ in range(3)]
        for installation in started:
            rest.callback(installation.end)
        for installation in started:
            installation.finish()
    made = os.listdir(library / "versions")
    assert len(made) >= 3
    whole = len(list((library / "program").rglob("*")))
    assert {whole} == {len(list((library / "versions" / name).rglob("*"))) for name in made}
    assert os.readlink(library / "current").removeprefix("versions/") in made
    assert not [name for name in os.listdir(library) if name.startswith(".")]


@pytest.mark.parametrize("interruptions", [0, 1, 2])
def test_taking_over_may_be_cut_off_and_done_again(scripted: Path, interruptions: int) -> None:
    """The configuration is the host's, with its mode, and what others have laid aside is not touched."""
    configuration = scripted / "etc/codedeploy-agent/conf/codedeployagent.yml"
    others = configuration.with_name("old.yml.dpkg-bak")
    shipped = (PROJECT / "conf/codedeployagent.yml").read_text()
    for file in (configuration, others):
        file.write_text(":max_revisions: 3\n")
        file.chmod(0o640)
    for _ in range(1 + interruptions):
        in_chroot(scripted, "/root/scripts/preinst", "install", "1.8.1-1")
        assert shipped == configuration.read_text()
    (aside,) = configuration.parent.glob("codedeployagent.yml?*")
    assert aside.name.endswith(".dpkg-bak")  # logrotate passes over these, in its own directory

    in_chroot(scripted, "/root/scripts/postinst", "configure", "1.8.1-1")
    for file in (configuration, others):
        assert (":max_revisions: 3\n", 0o640) == (file.read_text(), file.stat().st_mode & 0o777)
    assert not aside.exists()


def test_both_depend_on_nothing_but_glibc(packages: Packages) -> None:
    """And on the same one."""
    query = ["rpm", "--query", "--package", str(packages.rpm)]
    required = [line for line in printed(*query, "--requires") if not line.startswith(("rpmlib(", "/bin/sh"))]
    (depends,) = printed("dpkg-deb", "--field", str(packages.deb), "Depends")
    (glibc,) = re.findall(r"libc6 \(>= ([\d.]+)\)", depends)
    assert (f"libc6 (>= {glibc})", [f"glibc >= {glibc}"]) == (depends, required)
    assert printed(*query, "--recommends") == printed("dpkg-deb", "--field", str(packages.deb), "Recommends")


def test_both_say_the_same_of_themselves(packages: Packages) -> None:
    """Name, version, architecture and who is behind it."""
    fields = ("Package", "Version", "Maintainer")
    deb = [printed("dpkg-deb", "--field", str(packages.deb), field)[0] for field in fields]
    wanted = "%{NAME}\n%{EPOCH}:%{VERSION}\n%{PACKAGER}\n"
    assert deb == printed("rpm", "--query", "--package", "--queryformat", wanted, str(packages.rpm))


def test_conffiles_are_the_same_in_both(packages: Packages) -> None:
    """What people have changed there is kept by upgrades."""
    deb = printed("dpkg-deb", "--info", str(packages.deb), "conffiles")
    assert sorted(deb) == sorted(printed("rpm", "--query", "--package", "--configfiles", str(packages.rpm)))


def test_another_build_by_an_ordinary_user_gives_the_same_bytes(packages: Packages) -> None:
    """In another directory, with another home, and from nothing: whoever doubts a release can build it."""
    checkout = packages.checkout
    subprocess.run(["chown", "-R", "nobody:", str(checkout)], check=True)
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    user = (*nobody, "env", f"HOME={checkout}", "PATH=/usr/bin:/bin")
    start_build(Build(version=None, kinds="deb,rpm,tar.gz"), checkout / "out", checkout, user).finish()
    names = [file.name for file in packages.files]
    assert names == sorted(file.name for file in (checkout / "out").iterdir())
    assert (names, [], []) == filecmp.cmpfiles(packages.directory, checkout / "out", names, shallow=False)


def test_every_part_inside_is_listed_with_its_licence(scripted: Path) -> None:
    """Whoever hands the packages on must know what they hold."""
    text = (scripted / "usr/share/doc/codedeploy-agent/copyright").read_text("utf-8")
    overview, *chapters = text.split("=" * 100 + "\n")
    parts = [line.strip() for line in overview.splitlines() if line.startswith("  ")]
    assert parts == [title.strip() for title in chapters[::2]]
    assert all(len(chapter.strip()) > 20 for chapter in chapters[1::2])
    program = scripted / "usr/lib/codedeploy-agent/program"
    installed = {
        path.name.removesuffix(".dist-info").replace("-", " ") for path in program.rglob("*.dist-info")
    }
    libraries = {path.name for path in program.rglob("lib*.so*")}
    assert {"codedeploy-agent", *installed} <= set(parts)
    assert {name for name in libraries if not name.startswith("libpython")} <= set(parts)
    assert len(installed) > 8
