"""docs/testing.md names every folder of tests, and every helper in it."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
MAP = (TESTS.parent / "docs" / "testing.md").read_text(encoding="utf-8")


def test_every_folder_and_every_helper_is_on_the_map() -> None:
    """Whoever looks for a fake endpoint or a full disk should find the one that there is, and not write another."""
    helpers = {
        path
        for path in TESTS.rglob("*.py")
        if not path.name.startswith(("test_", "conftest", "__")) and path.parent != TESTS
    }
    folders = {path.parent.name for path in TESTS.rglob("test_*.py") if path.parent != TESTS}
    assert [] == sorted(name for name in folders if f"`{name}" not in MAP)
    assert [] == sorted(str(path.relative_to(TESTS)) for path in helpers if f"`{path.stem}`" not in MAP)
