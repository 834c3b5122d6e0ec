"""Carrying out a plan, all or nothing."""
