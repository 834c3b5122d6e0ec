"""Answers whose head has come whole.

http.client takes the end of a connection for the end of an answer's head: one that is cut off there has
no Content-Length any more, and passes for an empty object; its last header may be half of an ETag.
"""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any

import urllib3.connection
import urllib3.connectionpool
from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    from urllib3 import PoolManager


class WholeHeadAdapter(HTTPAdapter):
    """Sends requests as the usual one does; an answer with half a head counts as none."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Afterwards there is a pool for direct connections."""
        super().init_poolmanager(*args, **kwargs)
        _use_whole_heads(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> PoolManager:
        """The pool for connections through this proxy."""
        manager: PoolManager = super().proxy_manager_for(*args, **kwargs)
        _use_whole_heads(manager)
        return manager


def _use_whole_heads(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _PoolOverTls}


class _Lines:
    """What http.client reads a head from; remembers the last line."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self._reader.readline(limit)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


class _Response(http.client.HTTPResponse):
    def begin(self) -> None:
        reader: Any = self.fp
        lines: Any = _Lines(reader)
        self.fp = lines
        super().begin()
        if self.fp is lines:  # else there is no body, and it is closed already
            self.fp = reader
        if not lines.last.endswith(b"\n"):
            self.close()
            raise http.client.RemoteDisconnected("it was closed within the head of the answer")


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _Response


class _ConnectionOverTls(urllib3.connection.HTTPSConnection):
    response_class = _Response


class _Pool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _Connection


class _PoolOverTls(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _ConnectionOverTls
