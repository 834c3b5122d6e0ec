"""What every test has that boots a host."""

from __future__ import annotations

import os

import pytest

BOOTED = [
    pytest.mark.root,
    pytest.mark.booted,
    pytest.mark.server,
    pytest.mark.timeout(300),  # the first one builds the packages and makes a Debian root
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces and control groups"),
]
