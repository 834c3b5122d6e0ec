"""The on-host agent: daemon, workers and agentctl."""

__version__ = "0.1.0"
