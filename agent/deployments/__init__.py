"""What lies on disk: layout by arithmetic, pointers, retention, job records, history."""

from agent.deployments.drain import DrainMark
from agent.deployments.history import History, HistoryEntry
from agent.deployments.job_state import CommandResult, DeploymentFacts, JobState, RecordedProcess
from agent.deployments.jobs import Job, JobStore
from agent.deployments.layout import DeploymentDirectory, DeploymentRoot
from agent.deployments.status import DaemonStatus, StatusFile, starting_status

__all__ = [
    "CommandResult",
    "DaemonStatus",
    "DeploymentDirectory",
    "DeploymentFacts",
    "DeploymentRoot",
    "DrainMark",
    "History",
    "HistoryEntry",
    "Job",
    "JobState",
    "JobStore",
    "RecordedProcess",
    "StatusFile",
    "starting_status",
]
