"""`install.sh` of the tarball: into images, into a Debian root without Python, and under a real systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.stack import wait_for
from tests.packaging.booted.root import AGENT
from tests.packaging.booted.site import Gate, revision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.packaging.booted.builds import Packages
    from tests.packaging.booted.site import Site

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="install.sh is for root"),
]
_CONFIGURATION = "etc/codedeploy-agent/conf/codedeployagent.yml"
_PROGRAM = "opt/codedeploy-agent/program"
# Runs in namespaces of its own, so that nothing outlives a test. $1: the lower layers, $2: the script.
_IN_OVERLAY = """\
mount --make-rprivate / && mount -t tmpfs none "$3" && cd "$3" && mkdir upper work root &&
mount -t overlay none -o "lowerdir=$1,upperdir=upper,workdir=work" root &&
mount -t proc proc root/proc && mount --rbind /dev root/dev &&
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot root sh -euc "$2"
"""


@pytest.fixture(scope="module")
def tarball(packages: Packages, scratch: Path) -> Path:
    """The tarball as somebody has unpacked it."""
    directory = scratch / "unpacked"
    directory.mkdir()
    (packed,) = packages.directory.glob("*.tar.gz")
    subprocess.run(["tar", "xzf", str(packed), "-C", str(directory)], check=True)
    (unpacked,) = directory.iterdir()
    return unpacked


@pytest.fixture
def image() -> Iterator[Path]:
    """An empty directory in memory."""
    with tempfile.TemporaryDirectory(prefix="image-", dir="/dev/shm") as name:
        yield Path(name)


def install(tarball: Path, *options: str, shell: tuple[str, ...] = ("sh",)) -> str:
    """What install.sh prints when all goes well."""
    command = [*shell, str(tarball / "install.sh"), *options]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stderr == ""
    return answer.stdout


def refusal(tarball: Path, *options: str) -> str:
    """What install.sh says when it does nothing."""
    command = ["sh", str(tarball / "install.sh"), *options]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 1, answer.stdout
    return answer.stderr


def files(image: Path) -> set[str]:
    """Everything in the image that is no directory, without what is in the program."""
    found = (path for path in image.rglob("*") if path.is_symlink() or not path.is_dir())
    names = {str(path.relative_to(image)) for path in found}
    return {name for name in names if not name.startswith(f"{_PROGRAM}/versions")}


def in_debian(clean_tree: Path, tarball: Path, image: Path, script: str) -> str:
    """What a script prints in a Debian root with the tarball in /tarball; it is thrown away."""
    layer = image / "layer"
    layer.mkdir()
    shutil.copytree(tarball, layer / "tarball", symlinks=True)
    work = image / "work"
    work.mkdir()
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _IN_OVERLAY, "sh"]
    command += [f"{layer}:{clean_tree}", script, str(work)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.mark.parametrize("shell", [("dash",), ("bash", "--posix")], ids=lambda shell: shell[0])
def test_an_image_gets_what_the_packages_bring(tarball: Path, image: Path, shell: tuple[str, ...]) -> None:
    """Whoever reads about the packages finds everything in the same places."""
    install(tarball, "--root", str(image), shell=shell)
    expected = {
        "usr/bin/agentctl",
        "usr/bin/codedeploy-agent",
        "usr/bin/codedeploy-local",
        "opt/codedeploy-agent/bin/codedeploy-agent",
        "opt/codedeploy-agent/bin/codedeploy-local",
        "usr/lib/systemd/system/codedeploy-agent.service",
        "usr/lib/systemd/system/codedeploy-agent.service.d/tidy.conf",
        "usr/lib/systemd/system/codedeploy-agent-unprivileged.service",
        "usr/lib/sysusers.d/codedeploy-agent.conf",
        _CONFIGURATION,
        f"{_PROGRAM}/current",
    }
    assert set() == expected - files(image)


def test_everything_belongs_to_root_and_can_be_read_whoever_unpacked_it(tarball: Path, image: Path) -> None:
    """A user who unpacks a tarball and calls sudo must not be able to change what root runs later."""
    unpacked = image / "unpacked"
    shutil.copytree(tarball, unpacked, symlinks=True)
    subprocess.run(["chown", "-R", "nobody", str(unpacked)], check=True)
    subprocess.run(["chmod", "-R", "u+rwX,g+w,o-rwx", str(unpacked)], check=True)
    (image / "root").mkdir()
    install(unpacked, "--root", str(image / "root"))
    wrong = [
        str(path)
        for path in (image / "root").rglob("*")
        if not path.is_symlink()
        and (path.stat().st_uid or path.stat().st_mode & 0o022 or not path.stat().st_mode & 4)
    ]
    assert [] == [path for path in wrong if not path.endswith(".lock")]


def test_a_second_installation_changes_nothing_but_the_copy(tarball: Path, image: Path) -> None:
    """A playbook that runs every night leaves a host as it is, and one version on it."""
    install(tarball, "--root", str(image))
    before = files(image)
    install(tarball, "--root", str(image))
    versions = [path.name for path in (image / _PROGRAM / "versions").iterdir()]
    assert (before, 1) == (files(image), len(versions))
    assert f"versions/{versions[0]}" == os.readlink(image / _PROGRAM / "current")


def test_a_changed_configuration_stays_and_the_new_default_lies_beside_it(tarball: Path, image: Path) -> None:
    """An upgrade never takes a setting away, and never hides a new one."""
    install(tarball, "--root", str(image))
    configuration = image / _CONFIGURATION
    configuration.write_text("wait_between_runs: 7\n")
    newer = image / "newer"
    shutil.copytree(tarball, newer, symlinks=True)
    with (newer / "conf/codedeployagent.yml").open("a") as stream:
        stream.write("# explained better\n")
    told = install(newer, "--root", str(image))
    beside = Path(f"{configuration}.new")
    assert "wait_between_runs: 7\n" == configuration.read_text()
    assert beside.read_text().endswith("# explained better\n")
    assert str(beside) in told


def test_a_configuration_that_nobody_changed_is_replaced(tarball: Path, image: Path) -> None:
    """Otherwise every host would have a .new file after every upgrade."""
    install(tarball, "--root", str(image))
    newer = image / "newer"
    shutil.copytree(tarball, newer, symlinks=True)
    with (newer / "conf/codedeployagent.yml").open("a") as stream:
        stream.write("# explained better\n")
    install(newer, "--root", str(image))
    assert (image / _CONFIGURATION).read_text().endswith("# explained better\n")
    assert not (image / f"{_CONFIGURATION}.new").exists()


@pytest.mark.parametrize("shortage", ["size=100m", "nr_inodes=3500"])
def test_a_full_disk_leaves_the_old_version_as_it_was(tarball: Path, image: Path, shortage: str) -> None:
    """A host whose disk is full keeps its agent, and gets no half of another."""
    script = """
mount --make-rprivate /; mount -t tmpfs -o "$2" none "$1"
sh "$3/install.sh" --root "$1" >/dev/null; find "$1" | sort >"$4/before"
dd if=/dev/zero of="$1/filler" bs=1M count=30 2>/dev/null
code=0; sh "$3/install.sh" --root "$1" >/dev/null 2>"$4/told" || code=$?
rm "$1/filler"; find "$1" | sort >"$4/after"
"$1/opt/codedeploy-agent/program/current/bin/agentctl" --version || code=broken
echo "$code"
"""
    (image / "root").mkdir()
    command = ["unshare", "--mount", "sh", "-c", script, "sh"]
    command += [str(image / "root"), shortage, str(tarball), str(image)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1" == answer.stdout.splitlines()[-1]
    assert "Free some space" in (image / "told").read_text()
    assert (image / "before").read_text() == (image / "after").read_text()


def test_a_first_installation_that_fails_leaves_nothing(tarball: Path, image: Path) -> None:
    """Whoever gives up after a failure has nothing to clear away."""
    script = """
mount --make-rprivate /; mount -t tmpfs -o nr_inodes=500 none "$1"
sh "$2/install.sh" --root "$1" >/dev/null 2>&1 || find "$1" ! -type d
"""
    (image / "root").mkdir()
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(image / "root"), str(tarball)]
    assert "" == subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_an_image_with_a_link_that_leads_out_of_it_is_refused(tarball: Path, image: Path) -> None:
    """/opt -> /srv/opt in an image means the host's /srv/opt to everybody who is not inside."""
    outside = image / "outside"
    outside.mkdir()
    (image / "root").mkdir()
    (image / "root/opt").symlink_to(outside)
    assert f"chroot {image}/root" in refusal(tarball, "--root", str(image / "root"))
    assert [] == list(outside.iterdir())


@pytest.mark.parametrize(
    ("version", "advice"),
    [("1.8.1-33", "which takes over from it"), ("1:1.0.0", "Upgrade it with the newer package")],
)
def test_a_host_with_a_package_is_told_what_to_do(
    tarball: Path, image: Path, version: str, advice: str
) -> None:
    """Two installations in one host's places would break each other at the next upgrade."""
    (image / "var/lib/dpkg").mkdir(parents=True)
    (image / "var/lib/dpkg/status").write_text(
        "Package: other\nStatus: install ok installed\nVersion: 3\n\n"
        f"Package: codedeploy-agent\nStatus: install ok installed\nVersion: {version}\n\n"
    )
    assert advice in refusal(tarball, "--root", str(image))
    assert {"var/lib/dpkg/status"} == files(image)


def test_a_package_that_was_removed_is_no_obstacle(tarball: Path, image: Path) -> None:
    """Removed packages are remembered by dpkg for their configuration."""
    (image / "var/lib/dpkg").mkdir(parents=True)
    (image / "var/lib/dpkg/status").write_text(
        "Package: codedeploy-agent\nStatus: deinstall ok config-files\nVersion: 1.8\n\n"
    )
    install(tarball, "--root", str(image))


def test_files_of_somebody_else_are_named_and_stay(tarball: Path, image: Path) -> None:
    """An agent that was installed by hand is not half overwritten."""
    (image / "usr/bin").mkdir(parents=True)
    (image / "usr/bin/agentctl").write_text("theirs")
    assert f"{image}/usr/bin/agentctl" in refusal(tarball, "--root", str(image))
    assert {"usr/bin/agentctl"} == files(image)


def test_removal_keeps_what_is_not_the_program(tarball: Path, image: Path) -> None:
    """The next installation, of whatever kind, finds configuration and state."""
    install(tarball, "--root", str(image), "--enable")
    state = image / "opt/codedeploy-agent/state/.pid/history.jsonl"
    state.parent.mkdir(parents=True)
    state.touch()
    install(tarball, "--root", str(image), "--uninstall")
    left = {name for name in files(image) if not name.startswith("etc/")}
    assert {str(state.relative_to(image))} == left
    assert (image / _CONFIGURATION).exists()


def test_removal_leaves_a_package_alone_that_has_taken_over(tarball: Path, image: Path) -> None:
    """Whoever moves on to the package can clear away the first installation, and the agent goes on."""
    install(tarball, "--root", str(image))
    before = files(image) - {f"{_PROGRAM}/.lock", f"{_PROGRAM}/current"}
    (image / "var/lib/dpkg").mkdir(parents=True)
    status = image / "var/lib/dpkg/status"
    status.write_text("Package: codedeploy-agent\nStatus: install ok installed\nVersion: 1:1.0.0\n\n")
    install(tarball, "--root", str(image), "--uninstall")
    assert {*before, str(status.relative_to(image))} == files(image)
    assert not (image / _PROGRAM).exists()


def test_purge_takes_everything_but_what_was_deployed(tarball: Path, image: Path) -> None:
    """Nothing of the agent's is left, and the applications go on."""
    install(tarball, "--root", str(image))
    for name in ("opt/codedeploy-agent/deployment-root/g/d", "opt/codedeploy-agent/state", "srv/shop"):
        (image / name).mkdir(parents=True)
        (image / name / "file").touch()
    install(tarball, "--root", str(image), "--uninstall", "--purge")
    assert {"srv/shop/file"} == files(image)
    assert not (image / "opt/codedeploy-agent").exists()


def test_purge_does_not_touch_what_is_mounted_or_linked_in(tarball: Path, image: Path) -> None:
    """Data that somebody keeps on a file system or in a directory of their own is theirs, wherever it appears."""
    install(tarball, "--root", str(image))
    linked, bound = image / "srv/linked", image / "srv/bound"
    for directory in (linked / "codedeploy-agent", bound, image / "var/lib/codedeploy-agent"):
        directory.mkdir(parents=True)
        (directory / "file").touch()
    (image / "var/log").mkdir()
    (image / "var/log/aws").symlink_to("../../srv/linked")
    (image / "var/log/codedeploy-agent").symlink_to("../../srv/linked")
    script = """
mount --make-rprivate /; cd "$1"
mkdir -p opt/codedeploy-agent/deployment-root/group opt/codedeploy-agent/state
mount --bind srv/bound opt/codedeploy-agent/deployment-root/group
mount -t tmpfs none opt/codedeploy-agent/state; touch opt/codedeploy-agent/state/file
sh "$2" --root "$1" --uninstall --purge; ls opt/codedeploy-agent/state
"""
    command = ["unshare", "--mount", "sh", "-euc", script, "sh", str(image), str(tarball / "install.sh")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    stay = [line.split(":")[0].removesuffix(" stays") for line in told.splitlines() if " stays: " in line]
    places = ("opt/codedeploy-agent/deployment-root", "opt/codedeploy-agent/state")
    links = ("var/log/aws/codedeploy-agent", "var/log/codedeploy-agent")
    assert [str(image / place) for place in (*places, *links)] == stay
    assert told.endswith("\nfile\n")
    kept = {"srv/linked/codedeploy-agent/file", "srv/bound/file", "var/log/aws", "var/log/codedeploy-agent"}
    assert kept == files(image)


def test_a_dry_run_changes_nothing(tarball: Path, image: Path) -> None:
    """It can be tried on any host."""
    told = install(tarball, "--root", str(image), "--dry-run")
    assert set() == files(image)
    assert f"{image}/usr/bin/agentctl" in told


def test_an_ordinary_user_is_told_to_be_root(tarball: Path) -> None:
    """The commonest mistake has the shortest answer."""
    command = ["setpriv", "--reuid=65534", "--clear-groups", "sh", str(tarball / "install.sh")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 1 == answer.returncode
    assert "sudo" in answer.stderr


@pytest.mark.parametrize(
    "option",
    ["--unistall", "--purge", "--prefix=opt", "--prefix=/opt", "--root=/a b", "--root=", "--prefix="],
)
def test_a_wrong_option_does_nothing(tarball: Path, option: str) -> None:
    """A slip of the finger installs nothing, and removes nothing."""
    command = ["sh", str(tarball / "install.sh"), option]
    assert 2 == subprocess.run(command, capture_output=True, check=False).returncode


def test_a_host_without_python_and_systemd_runs_the_agent(
    clean_tree: Path, tarball: Path, image: Path
) -> None:
    """Containers and other inits: installed, started, upgraded beneath a running agent, and removed."""
    script = """
cd /tarball; ./install.sh >/dev/null; agentctl --version >/dev/null
cat >/etc/codedeploy-agent/conf/codedeploy.onpremises.yml <<END
region: eu-west-1
iam_user_arn: arn:aws:iam::123456789012:user/host
aws_access_key_id: AKIAIOSFODNN7EXAMPLE
aws_secret_access_key: wJalrXUtnFEMI
END
chmod 600 /etc/codedeploy-agent/conf/codedeploy.onpremises.yml
echo 'deploy_control_endpoint: http://127.0.0.1:9' >/etc/codedeploy-agent/conf/codedeployagent.yml
codedeploy-agent start
./install.sh >/dev/null; echo in use: $(ls /opt/codedeploy-agent/program/versions)
codedeploy-agent restart >/dev/null
/opt/codedeploy-agent/program/current/dist/install.sh --tidy; echo tidied: $(ls /opt/codedeploy-agent/program/versions)
codedeploy-agent status >/dev/null && echo it runs
/opt/codedeploy-agent/program/current/dist/install.sh --uninstall >/dev/null
echo left: $(ls /opt/codedeploy-agent)
"""
    told = in_debian(clean_tree, tarball, image, script).splitlines()
    version = (tarball / "program/version").read_text().strip()
    assert [
        f"in use: {version}-1 {version}-2",
        f"- /opt/codedeploy-agent/program/versions/{version}-1",
        f"tidied: {version}-2",
        "it runs",
        "left: deployment-root state",
    ] == told


def test_an_agent_that_does_not_run_is_no_obstacle(clean_tree: Path, tarball: Path, image: Path) -> None:
    """Stopped for an upgrade, killed, or removed: its last words are still on the disk, and name a process."""
    script = """
cd /tarball; ./install.sh >/dev/null
printf 'region: eu-west-1\niam_user_arn: arn:aws:iam::123456789012:user/host\n' >/root/who.yml
printf 'aws_access_key_id: AKIAIOSFODNN7EXAMPLE\naws_secret_access_key: wJalrXUtnFEMI\n' >>/root/who.yml
install -m 600 /root/who.yml /etc/codedeploy-agent/conf/codedeploy.onpremises.yml
echo 'deploy_control_endpoint: http://127.0.0.1:9' >/etc/codedeploy-agent/conf/codedeployagent.yml
codedeploy-agent start
codedeploy-agent stop >/dev/null
./install.sh >/dev/null && echo installed over a stopped one
codedeploy-agent start
pid=$(codedeploy-agent status | sed 's/.* //')
kill -KILL "$pid"; while grep -qs '^State:.[^Z]' "/proc/$pid/status"; do :; done
./install.sh >/dev/null && echo installed over a killed one
/opt/codedeploy-agent/program/current/dist/install.sh --uninstall >/dev/null
./install.sh >/dev/null && echo installed again
"""
    expected = ["installed over a stopped one", "installed over a killed one", "installed again"]
    assert expected == in_debian(clean_tree, tarball, image, script).splitlines()


def test_an_installation_beside_a_start_keeps_its_version(
    clean_tree: Path, tarball: Path, image: Path
) -> None:
    """An agent's start tidies up; an installation that ends at this moment has made another version the current."""
    script = """
cd /tarball; ./install.sh >/dev/null
cd /opt/codedeploy-agent/program; old=$(readlink current); new=versions/9.9.9-1; cp -a "$old" "$new"
# What happens between the first look and the lock.
cat >/usr/local/sbin/flock <<'END'
#!/bin/sh
ln -sfn versions/9.9.9-1 /opt/codedeploy-agent/program/current
exec /usr/bin/flock "$@"
END
chmod +x /usr/local/sbin/flock
sh "$old/dist/install.sh" --tidy >/dev/null; ls versions; agentctl --version >/dev/null
"""
    assert "9.9.9-1\n" == in_debian(clean_tree, tarball, image, script)


def test_nothing_is_installed_beside_another_agent_that_runs(
    clean_tree: Path, tarball: Path, image: Path
) -> None:
    """Two agents would take each other's commands."""
    script = """
bash -c 'exec -a "codedeploy-agent: master 7" sleep 60' &
until grep -q ^codedeploy "/proc/$!/cmdline"; do :; done
/tarball/install.sh 2>&1 || ls /opt
"""
    told = in_debian(clean_tree, tarball, image, script)
    assert "Another agent runs here: pid" in told
    assert 1 == len(told.splitlines())


def test_an_image_in_which_the_program_can_not_run_is_refused(tarball: Path, image: Path) -> None:
    """A host of another C library or architecture is found out now, and not at its first boot."""
    (image / "root/bin").mkdir(parents=True)
    (image / "root/bin/sh").write_text("no shell")
    (image / "root/bin/sh").chmod(0o755)
    told = refusal(tarball, "--root", str(image / "root"))
    assert "does not run in" in told
    assert {"bin/sh"} == files(image / "root")


@pytest.mark.booted
@pytest.mark.server
def test_an_upgrade_in_the_middle_of_a_hook_and_a_removal(
    site: Site, clean_tree: Path, tarball: Path
) -> None:
    """The deployment goes on, a new agent takes over, and the old version goes when nothing runs it any more."""
    host = site.boot(clean_tree)
    shutil.copytree(tarball, host.path("/root/tarball"), symlinks=True)
    host.run("/root/tarball/install.sh", "--enable")
    host.wait_for_status("polling")
    old_pid = host.main_pid()
    gate = Gate(host=host, name="hook")
    deployment = site.start(
        host, "shop", revision("shop", {"AfterInstall": gate.lines}, {"page": "1"}, "/srv/shop")
    )
    gate.wait()
    host.run("/root/tarball/install.sh")
    assert old_pid == host.main_pid()
    gate.open()
    assert "Succeeded" == site.finish(deployment)
    host.wait_for_new_agent(old_pid)
    versions = host.path("/opt/codedeploy-agent/program/versions")
    wait_for(lambda: len(list(versions.iterdir())) == 1, timeout_s=20, what="the old version is gone")
    host.run("/opt/codedeploy-agent/program/current/dist/install.sh", "--uninstall", "--purge")
    assert "inactive" == host.try_to("systemctl", "is-active", AGENT).stdout.strip()
    assert not host.path("/opt/codedeploy-agent").exists()
    assert "1" == host.path("/srv/shop/page").read_text()
