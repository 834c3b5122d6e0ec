"""What a bundle may hold, beyond what is always refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """The host's hardening settings, as far as they are about the members of a bundle.

    Members that would leave the archive, device nodes and named pipes are refused in any case.

    Attributes:
        max_extraction_size_bytes: how much the members may hold together once unpacked; None = any.
        reject_symlinks: refuse a bundle with a symbolic link.
        reject_unsafe_permissions: refuse a bundle with a setuid or setgid file.
        ignore_ownership: everything belongs to the user the agent runs as, whatever the bundle says.
    """

    max_extraction_size_bytes: int | None = None
    reject_symlinks: bool = False
    reject_unsafe_permissions: bool = False
    ignore_ownership: bool = False
