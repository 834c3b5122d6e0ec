"""Lifecycle events: whose scripts run, the script runner, the script log, diagnostics.

Nothing is imported here: `choice`, `environment` and `diagnostics` are pure and cheap, and a
command without scripts must not pay for `run`.
"""
