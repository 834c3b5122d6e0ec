"""Where the AppSpec file is looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.appspec import find_appspec, read_appspec
from agent.errors import AppSpecInvalid, CommandFailure

if TYPE_CHECKING:
    from pathlib import Path


def archive_with(tmp_path: Path, *names: str) -> Path:
    """An archive with AppSpec files of these names; each installs to a directory of its own name."""
    archive = tmp_path / "deployment-archive"
    archive.mkdir()
    for name in names:
        path = archive / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"version: 0.0\nos: linux\nfiles: [{{source: a, destination: /{name}}}]\n")
    return archive


@pytest.mark.parametrize(
    ("present", "filename", "found"),
    [
        (["appspec.yml"], "appspec.yml", "appspec.yml"),
        (["appspec.yml"], None, "appspec.yml"),
        (["appspec.yaml"], "appspec.yml", "appspec.yaml"),
        (["appspec.yaml"], None, "appspec.yaml"),
        (["appspec.yml"], "appspec.yaml", "appspec.yml"),
        (["appspec.yml", "appspec.yaml"], "appspec.yml", "appspec.yml"),
        (["appspec.yml", "appspec.yaml"], None, "appspec.yml"),
        (["appspec.yml", "custom.yml"], "custom.yml", "custom.yml"),
        (["deploy/custom.yml"], "deploy/custom.yml", "deploy/custom.yml"),
        (["deploy/custom.yml"], "/deploy/custom.yml", "deploy/custom.yml"),
        (["deploy/custom.yml"], "x/../deploy/../deploy/custom.yml", None),
    ],
)
def test_the_named_file_is_found_and_the_default_names_stand_for_each_other(
    tmp_path: Path, present: list[str], filename: str | None, found: str | None
) -> None:
    """Every event of a deployment has to find the same file that Install found."""
    archive = archive_with(tmp_path, *present)
    if found is None:
        with pytest.raises(CommandFailure, match="no AppSpec file"):
            find_appspec(archive, filename)
        return

    assert (archive / found).resolve() == find_appspec(archive, filename)


@pytest.mark.parametrize(
    ("present", "filename", "texts"),
    [
        ([], "appspec.yml", ["appspec.yml (nor one named appspec.yaml)", "The archive is empty"]),
        (["README"], None, ["appspec.yml", "The archive holds 'README'"]),
        (["APPSPEC.YML"], "appspec.yml", ["there is 'APPSPEC.YML'"]),
        (["myapp/appspec.yaml"], "appspec.yml", ["there is 'myapp/appspec.yaml'"]),
        (["appspec.yml"], "custom.yml", ["/custom.yml.", "there is 'appspec.yml'"]),
        (["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"], "appspec.yml", ["'j', and 2 more"]),
    ],
)
def test_a_missing_file_is_reported_with_what_is_there_instead(
    tmp_path: Path, present: list[str], filename: str | None, texts: list[str]
) -> None:
    """A wrapper directory, another case, another name: nearly always the file is somewhere."""
    archive = archive_with(tmp_path, *present)

    with pytest.raises(CommandFailure) as caught:
        find_appspec(archive, filename)

    assert "appspec-missing" == caught.value.error_id
    assert str(archive) in caught.value.message
    for text in texts:
        assert text in caught.value.message


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    """Somebody cleared the deployment root."""
    with pytest.raises(CommandFailure, match="archive itself is missing"):
        find_appspec(tmp_path / "gone", "appspec.yml")


@pytest.mark.parametrize("filename", ["../appspec.yml", "a/../../appspec.yml", "/../appspec.yml"])
def test_a_name_that_leaves_the_archive_is_refused(tmp_path: Path, filename: str) -> None:
    """The name comes from the network."""
    (tmp_path / "appspec.yml").write_text("version: 0.0\nos: linux\n")

    with pytest.raises(CommandFailure) as caught:
        find_appspec(archive_with(tmp_path), filename)

    assert "appspec-outside-archive" == caught.value.error_id


def test_a_link_that_leaves_the_archive_is_refused(tmp_path: Path) -> None:
    """A bundle must not have the host's own files read."""
    (tmp_path / "outside.yml").write_text("version: 0.0\nos: linux\n")
    archive = archive_with(tmp_path)
    (archive / "appspec.yml").symlink_to("../outside.yml")

    with pytest.raises(CommandFailure) as caught:
        find_appspec(archive, "appspec.yml")

    assert "appspec-outside-archive" == caught.value.error_id


def test_a_link_inside_the_archive_is_followed(tmp_path: Path) -> None:
    """One bundle may hold an AppSpec for each environment, and a link to one of them."""
    archive = archive_with(tmp_path, "deploy/production.yml")
    (archive / "appspec.yml").symlink_to("deploy/production.yml")

    assert "/deploy/production.yml" == read_appspec(archive, None).files[0].destination


@pytest.mark.parametrize("kind", ["directory", "dangling", "loop"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    """The message says what is wrong with it, not only that it can't be read."""
    archive = archive_with(tmp_path)
    if kind == "directory":
        (archive / "appspec.yml").mkdir()
    else:
        (archive / "appspec.yml").symlink_to("nowhere" if kind == "dangling" else "appspec.yml")

    with pytest.raises(CommandFailure) as caught:
        read_appspec(archive, "appspec.yml")

    assert "appspec-unreadable" == caught.value.error_id


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    """Memory is bounded before the parser sees anything."""
    archive = archive_with(tmp_path)
    with (archive / "appspec.yml").open("wb") as stream:
        stream.truncate(10 * 1024**3)

    with pytest.raises(AppSpecInvalid, match="larger than 1024 KiB"):
        read_appspec(archive, None)


def test_the_warnings_and_the_path_come_with_the_value(tmp_path: Path) -> None:
    """Who reports them has to name the file."""
    archive = archive_with(tmp_path, "appspec.yml")
    (archive / "appspec.yml").write_text("version: 0.0\nos: linux\nspeed: fast\n")

    appspec = read_appspec(archive, None)

    assert str(archive.resolve() / "appspec.yml") == appspec.path
    assert ["line 3, column 1: an AppSpec has an unknown key 'speed', which is ignored"] == [
        str(warning) for warning in appspec.warnings
    ]


def test_an_appspec_deeper_down_is_named_with_what_to_do_about_it(tmp_path: Path) -> None:
    """Whoever packs a directory twice sees a bundle that has everything, and an agent that finds nothing."""
    archive = archive_with(tmp_path, "build/app/appspec.yml", "build/README")

    with pytest.raises(CommandFailure) as caught:
        find_appspec(archive, None)

    assert "But there is 'build/app/appspec.yml'." in caught.value.message
    assert "Only one directory around the whole revision is taken away" in caught.value.message
    assert "Pack the contents of 'build/app'" in caught.value.message


@pytest.mark.parametrize(
    ("there", "asked_for", "advice"),
    [
        ("APPSPEC.yml", None, "Upper and lower case count: call it 'appspec.yml'."),
        (
            "appspec.yaml",
            "deploy/staging.yml",
            (
                "The deployment asks for 'deploy/staging.yml': add that file to the revision, or create the deployment again"
                " without an AppSpec file name, and 'appspec.yaml' counts."
            ),
        ),
        (
            None,
            None,
            "The archive is empty. Look at the step that packs the revision: it has packed nothing.",
        ),
        (
            "README",
            None,
            "The archive holds 'README'. Put the AppSpec file at the root of the revision, or name",
        ),
    ],
)
def test_advice_on_a_missing_appspec_is_for_what_is_there(
    tmp_path: Path, there: str | None, asked_for: str | None, advice: str
) -> None:
    """`Put it at the root` is no help to somebody who sees it there."""
    archive = archive_with(tmp_path, *filter(None, [there]))

    with pytest.raises(CommandFailure) as caught:
        find_appspec(archive, asked_for)

    assert advice in caught.value.message


def test_an_appspec_is_not_looked_for_without_end(tmp_path: Path) -> None:
    """The message is about a failure that has happened already."""
    archive = archive_with(tmp_path, "a/b/c/d/e/f/g/appspec.yml", "there/appspec.yml")
    (archive / "loop").symlink_to(".")

    with pytest.raises(CommandFailure) as caught:
        find_appspec(archive, "custom.yml")

    assert "But there is 'there/appspec.yml'. Put the AppSpec file at the root" in caught.value.message


def test_an_archive_that_can_not_be_listed_is_not_called_missing(tmp_path: Path) -> None:
    """Somebody has put a file in its place; deploying again is not what helps to find out who."""
    archive = tmp_path / "deployment-archive"
    archive.write_text("")
    with pytest.raises(CommandFailure, match="itself can't be listed: Not a directory"):
        find_appspec(archive, None)


def test_an_appspec_that_can_not_be_looked_at_is_not_called_missing(tmp_path: Path) -> None:
    """What it would take to see it is the advice, and not to add the file."""
    archive = archive_with(tmp_path, "appspec.yml")
    (archive / "deploy").symlink_to("deploy")
    with pytest.raises(CommandFailure, match="can't be read: Too many levels of symbolic links") as caught:
        find_appspec(archive, "deploy/appspec.yml")
    assert "appspec-unreadable" == caught.value.error_id
