"""Whose revision is installed, as the records tell it to whoever comes after a crash."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.install import install, installed_deployment
from agent.install.model.moments import Moment
from tests.install.again import install_until_known, is_repetition

if TYPE_CHECKING:
    from tests.install.host import Host


def installed(host: Host) -> str:
    return installed_deployment(host.instructions, host.group_id)


def test_the_deployment_that_was_installed_last_is_known(host: Host) -> None:
    """Its scripts stop the application."""
    assert "" == installed(host)
    host.install({"app/a": "1"})
    assert "d-000000001" == installed(host)
    host.install({"app/a": "2"})
    assert "d-000000002" == installed(host)


def test_an_install_that_failed_does_not_count(host: Host) -> None:
    """The revision before is what runs."""

    def fail(kind: Moment, _path: bytes) -> None:
        if kind == Moment.COMMIT:
            raise OSError(5, os.strerror(5))

    host.install({"app/a": "1"})
    with pytest.raises(Exception, match="Install failed"):
        host.install({"app/a": "2"}, observer=fail)
    assert "d-000000001" == installed(host)


def test_nothing_is_known_once_another_agent_has_installed_something(host: Host) -> None:
    """It rewrites the cleanup file, and leaves the manifest, which is about an earlier revision then."""
    host.install({"app/a": "1"})
    cleanup = host.instructions / f"{host.group_id}-cleanup"
    cleanup.write_text(f"{host.dest}/other\n")
    assert "" == installed(host)
    cleanup.unlink()
    assert "" == installed(host)


@pytest.mark.parametrize("damage", [b"", b"install-manifest 1 x d-1\n", b"\0" * 10_000])
def test_a_manifest_that_makes_no_sense_tells_nothing(host: Host, damage: bytes) -> None:
    """And is no reason to fail."""
    host.install({"app/a": "1"})
    (host.instructions / f"{host.group_id}-manifest").write_bytes(damage)
    assert "" == installed(host)


def test_an_id_comes_back_as_it_was_given(host: Host) -> None:
    """It is written escaped; half of it would be another deployment, or none."""
    install(replace(host.request({"app/a": "1"}), deployment_id="d-1 %20"))
    assert "d-1 %20" == installed(host)


def test_nothing_is_known_once_another_agent_has_installed_the_same_paths(host: Host) -> None:
    """It writes an equal cleanup file; but its instructions name another deployment's archive."""
    host.install({"app/a": "1"})
    instructions = host.instructions / f"{host.group_id}-install.json"
    instructions.write_bytes(instructions.read_bytes().replace(b"d-000000001", b"d-000000009"))
    assert "" == installed(host)
    instructions.unlink()
    assert "" == installed(host)


def test_the_records_may_be_copied(host: Host) -> None:
    """As a backup that is put back does it: other inodes and other times, but the same contents."""
    host.install({"app/a": "1"})
    for path in list(host.instructions.iterdir()):
        copy = path.with_name("copy")
        copy.write_bytes(path.read_bytes())
        copy.replace(path)
    assert "d-000000001" == installed(host)
    assert 1 == host.install({"app/a": "1"}).unchanged


@pytest.mark.parametrize("name", ["install.json", "cleanup"])
def test_a_record_that_is_as_it_was_written_is_not_read_again(host: Host, name: str) -> None:
    """With 100,000 files they are long; and a change of one shows in its time, whatever its size."""
    host.install({"app/a": "1"})
    path = host.instructions / f"{host.group_id}-{name}"
    was, content = path.stat(), path.read_bytes()
    path.write_bytes(content.replace(b"app", b"apq"))
    assert "" == installed(host)
    # Only with its time put back, it would be taken for what it was.
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert "d-000000001" == installed(host)


def test_where_times_are_whole_seconds_the_records_are_read(host: Host) -> None:
    """Another agent may have written one in the same second, with as many bytes."""
    host.install({"app/a": "1"})
    path = host.instructions / f"{host.group_id}-install.json"
    manifest = host.instructions / f"{host.group_id}-manifest"
    second = 10**9 * 1_700_000_000
    state = f"{path.stat().st_ino}:{path.stat().st_size}:{second}"
    fields = manifest.read_bytes().split(b" ")
    manifest.write_bytes(b" ".join([*fields[:5], state.encode(), *fields[6:]]))
    os.utime(path, ns=(second, second))
    assert "d-000000001" == installed(host)
    path.write_bytes(path.read_bytes().replace(b"app", b"apq"))
    os.utime(path, ns=(second, second))
    assert "" == installed(host)


def test_the_records_of_a_repetition_may_be_copied(host: Host) -> None:
    """It does not read install.json, of which nothing is another but the path of the archive."""
    tree = {"app/a": "1", 'app/quoted "name"\n': "2", "app/ü/%": "3"}
    host.dest.mkdir()
    install_until_known(host, tree)
    request = host.request(tree)
    assert is_repetition(request)
    install(request)
    for path in list(host.instructions.iterdir()):
        copy = path.with_name("copy")
        copy.write_bytes(path.read_bytes())
        copy.replace(path)

    assert request.deployment_id == installed(host)
    assert is_repetition(host.request(tree))


def test_instructions_about_another_archive_are_not_ours_after_a_copy_either(host: Host) -> None:
    """Of install.json, only the path of our own archive does not count."""
    host.install({"app/a": "1"})
    path = host.instructions / f"{host.group_id}-install.json"
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes().replace(b"/d-000000001/", b"/d-000000009/"))
    copy.replace(path)

    assert "" == installed(host)
