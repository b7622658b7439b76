"""Where the queue of a sweep is kept: a journal file, a database such as PostgreSQL, a proxy before one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage, get_storage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from sweeps.journal import open_journal

__all__ = ["StorageError", "as_shown", "open_storage", "troubles"]

KNOWN = "a path (journal file), postgresql+psycopg://user@host/database, or grpc://host:port"

PATIENCE = 10.0
"""Seconds in which a proxy has to answer."""


class StorageError(ValueError):
    """A storage, or a queue in it, cannot be used: which, why, and what to do."""


def as_shown(text: str) -> str:
    """A storage as it may stand in a message: without its password."""
    if "://" not in text:
        return text
    try:
        return make_url(text).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return text.partition("://")[0] + "://..."


def troubles() -> tuple[type[Exception], ...]:
    """What a storage raises when it cannot be reached or cannot write, files apart (OSError)."""
    found: tuple[type[Exception], ...] = (StorageInternalError, SQLAlchemyError)
    try:
        import grpc
    except ImportError:
        return found
    return (*found, grpc.RpcError)


@contextmanager
def open_storage(text: str, *, make: bool = False) -> Iterator[BaseStorage]:
    """The storage that ``text`` names, until the end. Raises StorageError, JournalError or OSError.

    text: the path of a journal file, which ``make`` makes if need be; an SQLAlchemy URL of a database server;
    or ``grpc://host:port``, a proxy before one (``optuna.storages.run_grpc_proxy_server``).
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    scheme = text.partition("://")[0] if "://" in text else ""
    if not scheme:
        yield _journal(text, make)
    elif scheme == "grpc":
        proxy = _proxy(text)
        try:
            yield proxy
        finally:
            proxy.close()
    else:
        database = _database(text, scheme)
        try:
            yield get_storage(database)  # with its cache
        finally:
            database.remove_session()
            database.engine.dispose()


def _database(text: str, scheme: str) -> RDBStorage:
    if scheme.startswith("sqlite"):
        raise StorageError(f"{text}: several processes lock each other out of SQLite; give {KNOWN}")
    shown = as_shown(text)
    try:
        return RDBStorage(text)
    except ImportError as exc:
        driver = exc.name or str(exc)
        raise StorageError(
            f"{shown}: the Python package {driver} is missing; pip install "
            "'hybrid-architecture-lab[pg]' brings psycopg, the driver of postgresql+psycopg://"
        ) from exc
    except (ArgumentError, NoSuchModuleError) as exc:
        raise StorageError(f"{shown}: this is no storage that is known; give {KNOWN}") from exc
    except (*troubles(), RuntimeError) as exc:
        raise StorageError(f"{shown}: it cannot be opened ({first_line(exc)})") from exc


def _journal(text: str, make: bool) -> BaseStorage:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        what = "is a directory" if path.is_dir() else f"lies in no directory ({path.parent} is not there)"
        raise StorageError(f"{text}: this {what}; give {KNOWN}")
    if not make and not path.exists():
        raise StorageError(
            f"{text}: there is no such journal; start the sweep: lab sweep RECIPE --storage {text}"
        )
    return open_journal(path)


def _proxy(text: str) -> GrpcStorageProxy:
    host, colon, port = text.removeprefix("grpc://").rstrip("/").rpartition(":")
    if not (colon and host and port.isdigit()):
        raise StorageError(f"{text}: write a proxy as grpc://host:port")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            proxy = GrpcStorageProxy(host=host, port=int(port))
        proxy.wait_server_ready(timeout=PATIENCE)
        return proxy
    except ConnectionError as exc:
        raise StorageError(f"{text}: no proxy answers there; start it, or correct the address") from exc
    except ImportError as exc:
        raise StorageError(
            f"{text}: the Python package grpcio is missing; "
            "pip install 'hybrid-architecture-lab[grpc]' brings it"
        ) from exc


def first_line(exc: BaseException) -> str:
    """The innermost reason of ``exc``, on one line."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[0] if lines else type(exc).__name__
