"""The mark that keeps the agent from taking commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.deployments import DrainMark

if TYPE_CHECKING:
    from pathlib import Path


def test_it_counts_until_it_is_removed(tmp_path: Path) -> None:
    """Whoever asks, in whatever process."""
    assert not DrainMark(tmp_path).counts()
    DrainMark(tmp_path).put()
    assert DrainMark(tmp_path).counts()
    DrainMark(tmp_path).remove()
    DrainMark(tmp_path).remove()
    assert not DrainMark(tmp_path).counts()


def test_one_of_another_boot_or_without_content_is_none(tmp_path: Path) -> None:
    """A host that was imaged while it drained would never deploy anything."""
    mark = DrainMark(tmp_path)
    for content in (b"", b"\xff", b"00000000-0000-0000-0000-000000000000\n"):
        mark.path.write_bytes(content)
        assert not mark.counts(), content


def test_a_directory_of_that_name_is_none(tmp_path: Path) -> None:
    """It must not end the daemon, which looks at it before each poll."""
    (tmp_path / "draining").mkdir()
    assert not DrainMark(tmp_path).counts()


def test_a_mark_that_is_there_and_cannot_be_read_counts(tmp_path: Path) -> None:
    """The host is about to be switched off; a deployment must not begin because no file can be opened just now."""
    mark = DrainMark(tmp_path)
    mark.path.symlink_to(mark.path)
    assert mark.counts()
