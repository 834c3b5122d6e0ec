"""A stand-in for the program that changes an SELinux policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Like the real one, it refuses to add what is there, and to change or delete what is not.
SEMANAGE = """#!/bin/sh
for pattern; do :; done
rule="{rules}/${{pattern##*/}}"
case $2 in
-a) [ ! -e "$rule" ] || {{ echo already defined; exit 1; }} ;;
*) [ -e "$rule" ] || {{ echo not defined; exit 1; }} ;;
esac
echo "$@" >> {calls}
if [ "$2" = -d ]; then rm "$rule"; else shift 2; echo "${{@%{pattern}*}}" > "$rule"; fi
"""


class Policy:
    """A stand-in for that program, with a policy of its own."""

    def __init__(self, base: Path) -> None:
        self._rules = base / "rules"
        self._rules.mkdir()
        self.programs = base / "bin"
        self.programs.mkdir()
        semanage = SEMANAGE.format(rules=self._rules, calls=base / "calls", pattern=base.parent)
        (self.programs / "semanage").write_text(semanage)
        (self.programs / "semanage").chmod(0o755)

    def rules(self) -> dict[str, str]:
        """File name → what is given to it."""
        return {path.name: path.read_text().strip() for path in sorted(self._rules.iterdir())}

    def set_by_hand(self, name: str, rule: str) -> None:
        """What an operator does with `semanage`."""
        (self._rules / name).write_text(rule)

    def remove_by_hand(self, name: str) -> None:
        """The same."""
        (self._rules / name).unlink()
