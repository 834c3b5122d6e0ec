"""Opening the database, and transactions in it.

SQLite in WAL mode with synchronous=FULL: a committed transaction survives a kill and a power cut, and the
command line may read and write while the server runs.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from controlplane.errors import OperatorError
from controlplane.settings import DEFAULT_ACCOUNT, DEFAULT_REGION
from controlplane.store.schema import SCHEMA_VERSION, Base, EndpointRow

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

DATABASE_NAME = "control.sqlite3"
BUSY_TIMEOUT_S = 10.0
"""How long one process waits for the other's write before it gives up."""


class Database:
    """An open database. Use it from one thread at a time; `close` it in the end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session whose changes are on disk when the block ends, and undone when it raises.

        The write lock is taken at the start, so that two processes never deadlock on an upgrade.
        """
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Folds the log into the database file and lets go of it."""
        self._engine.dispose()


def open_database(data_directory: Path, *, region: str | None = None, account: str | None = None) -> Database:
    """The database of this data directory, made when there is none; files are readable by their owner only.

    Raises OperatorError when the directory can't be used, when the database was written by a newer version,
    or when `region` or `account` differ from what it was made with.
    """
    path = data_directory / DATABASE_NAME
    try:
        data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise OperatorError(
            f"The data directory {data_directory} can't be used: {error.strerror}. "
            "Choose one this user may write to with --data."
        ) from error
    database = Database(_engine(path))
    try:
        _prepare(database, path)
        _settle_names(database, region=region, account=account)
    except (OperationalError, DatabaseError) as error:
        database.close()
        raise OperatorError(f"The database {path} can't be opened: {error.orig}.") from error
    except OperatorError:
        database.close()
        raise
    return database


def open_existing_database(data_directory: Path) -> Database:
    """The database of a data directory that is in use; for what only looks, or needs something that is there.

    Raises OperatorError as `open_database` does, and when there is none: a mistyped directory must not look
    like an endpoint without hosts.
    """
    if not os.path.exists(data_directory / DATABASE_NAME):
        raise OperatorError(
            f"There is no endpoint's database in {data_directory}. Name the directory that the endpoint serves "
            "with --data."
        )
    return open_database(data_directory)


def endpoint_names(session: Session) -> EndpointRow:
    """The region and account this endpoint was made with."""
    return session.get_one(EndpointRow, 1)


def _engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver must not begin transactions by itself; _begin does.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _prepare(database: Database, path: Path) -> None:
    with database.transaction() as session:
        version = int(session.scalar(text("PRAGMA user_version")) or 0)
        if version > SCHEMA_VERSION:
            raise OperatorError(
                f"The database {path} has schema {version}, this program knows {SCHEMA_VERSION}. "
                "It was written by a newer version: use that one."
            )
        if version == 0:
            Base.metadata.create_all(session.connection())
            session.execute(text(f"PRAGMA user_version = {SCHEMA_VERSION}"))


def _settle_names(database: Database, *, region: str | None, account: str | None) -> None:
    """Region and account are part of every ARN, so they stay what they were at the first start."""
    with database.transaction() as session:
        names = session.get(EndpointRow, 1)
        if names is None:
            session.add(
                EndpointRow(id=1, region=region or DEFAULT_REGION, account=account or DEFAULT_ACCOUNT)
            )
            return
        for what, wanted, stored in (("region", region, names.region), ("account", account, names.account)):
            if wanted is not None and wanted != stored:
                raise OperatorError(
                    f"This data directory belongs to {what} {stored}, not {wanted}: ARNs of its hosts hold it. "
                    f"Leave --{what} out, or use another data directory."
                )
