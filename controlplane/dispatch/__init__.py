"""Deployments in motion: which command becomes ready when, delivered, acknowledged, completed or overdue."""
