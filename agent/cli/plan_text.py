"""The answer of `agentctl plan` for people."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from agent.cli.terminal_text import readable, shell_word
from agent.install import ChangeKind, ObjectKind, Preview, advice_on, summary_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.appspec import Permission
    from agent.install import BlockedInstall, Change, Conflict, Rule


def plan_lines(answer: Preview | BlockedInstall, notes: Sequence[str]) -> Iterator[str]:
    """The answer line by line: first each path, then what it comes to. Nothing in it reaches the terminal's controls."""
    if isinstance(answer, Preview):
        yield from (_change_line(change) for change in answer.changes)
        yield from _summary_lines(answer)
    else:
        yield from _blocked_lines(answer)
    yield from (f"Note: {readable(note)}." for note in notes)


def _change_line(change: Change) -> str:
    line = f"{change.kind.value:<8} {change.object.value:<9} {shell_word(change.path)}"
    facts = _permission_words(change.permission) if change.permission else []
    if change.kind in {ChangeKind.ADD, ChangeKind.REPLACE} and change.object is ObjectKind.FILE:
        facts.insert(0, f"{change.size_bytes} bytes")
    if change.note:
        facts.append(f"{change.note}, stays" if change.kind is ChangeKind.STAY else change.note)
    return f"{line}  ({'; '.join(facts)})" if facts else line


def _permission_words(permission: Permission) -> list[str]:
    words = []
    if permission.mode is not None:
        words.append(f"mode {permission.mode}")
    if permission.owner is not None:
        words.append(f"owner {permission.owner}")
    if permission.group is not None:
        words.append(f"group {permission.group}")
    if permission.acls:
        words.append(f"acl {','.join(map(str, permission.acls))}")
    if permission.context is not None:
        context = permission.context
        parts = (context.user, context.type, context.range)
        words.append(f"context {':'.join(part for part in parts if part is not None)}")
    return [readable(word) for word in words]


def _summary_lines(preview: Preview) -> Iterator[str]:
    counts = Counter(change.kind for change in preview.changes)
    listed = ", ".join(f"{kind.value} {counts[kind]}" for kind in ChangeKind)
    needed = sum(system.needed_bytes for system in preview.file_systems)
    yield f"Plan: {listed}; {needed} bytes to be written. Nothing was changed."
    for system in preview.file_systems:
        inodes = f" and {system.free_inodes} inodes" if system.free_inodes is not None else ""
        yield (
            f"Room: {system.needed_bytes} bytes and {system.needed_inodes} inodes needed, {system.free_bytes} bytes"
            f"{inodes} free on the file system of {shell_word(system.path)}"
        )


def _blocked_lines(blocked: BlockedInstall) -> Iterator[str]:
    now = time.time()
    yield from (_conflict_line(conflict, blocked.rule, now) for conflict in blocked.conflicts)
    summary, advice = summary_of(blocked.conflicts), advice_on(blocked.rule, blocked.conflicts)
    yield f"Install is not possible. {summary}, and nothing was changed. {advice} [install-conflicts]"


def _conflict_line(conflict: Conflict, rule: Rule, now: float) -> str:
    facts = [readable(fact) for fact in conflict.facts(now)]
    if conflict.is_by_rule:
        facts.append(f"rule {rule.behavior.value}, set by {rule.set_by}")
    return f"conflict {shell_word(conflict.path)}  ({'; '.join(facts)})"
