"""What a lost event had printed, as its log has it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.worker.last_output import last_output
from agent.worker.results import LastOutput

if TYPE_CHECKING:
    from pathlib import Path

STAMP = "2025-03-01 12:00:00 "
LOG = (
    f"{STAMP}LifecycleEvent - AfterInstall\n"
    f"{STAMP}Script - migrate.sh\n"
    f"{STAMP}[stdout] 10%\r{'.' * 20}Script - innocent.sh\r 90%\n"
    f"{STAMP}[stderr]no such table\n"
)


def test_only_lines_of_ours_say_which_script_it_was(tmp_path: Path) -> None:
    """What a script prints over its own line is none, wherever it returns the carriage."""
    log = tmp_path / "scripts.log"
    log.write_text(LOG, newline="")
    output = last_output(log, "AfterInstall", is_script_known=True)
    assert ("migrate.sh", log) == (output.script_name, output.file)
    assert output.tail.endswith("Script - migrate.sh\n[stdout] 90%\n[stderr]no such table\n")


def test_a_named_pipe_in_the_place_of_the_log_keeps_no_report_waiting(tmp_path: Path) -> None:
    """There is nothing to read then."""
    log = tmp_path / "scripts.log"
    os.mkfifo(log)
    assert LastOutput() == last_output(log, "AfterInstall", is_script_known=True)
