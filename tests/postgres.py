"""A real PostgreSQL of one's own, in a scratch folder, on a free port of two loopback addresses."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HOSTS = ("127.0.0.1", "127.0.0.2")
"""What the server listens on: two machines, as far as addresses go."""


def programs() -> Path:
    """The folder of the server's programs, or a skip that says how to get it; in CI a failure."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if path := shutil.which("initdb"):
        return Path(path).parent
    message = "no PostgreSQL; on Debian or Ubuntu: apt-get install postgresql"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOSTS[0], 0))
        return probe.getsockname()[1]


@contextmanager
def server() -> Iterator[int]:
    """A running server that lets everybody in; its port. It refuses to be root, so root becomes its user."""
    where = programs()
    user = "postgres" if os.geteuid() == 0 else None
    place = Path(tempfile.mkdtemp(prefix="lab-postgres-"))
    if user:
        shutil.chown(place, user)
    port = free_port()

    def run(*words: str) -> None:
        subprocess.run(words, user=user, group=user, cwd=place, check=True, capture_output=True, timeout=300)

    # Files are not synced: this server need not outlive the machine.
    options = (
        f"-p {port} -c listen_addresses={','.join(HOSTS)} -c unix_socket_directories= -c fsync=off "
        "-c max_connections=60 -c shared_buffers=16MB"
    )
    data = str(place / "data")
    try:
        run(str(where / "initdb"), "-D", data, "-A", "trust", "-U", "lab", "-E", "UTF8", "--no-sync")
        run(str(where / "pg_ctl"), "-D", data, "-l", str(place / "log"), "-w", "-o", options, "start")
        try:
            yield port
        finally:
            run(str(where / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def url(port: int, host: str = HOSTS[0], database: str = "postgres") -> str:
    """The server as ``--storage``."""
    return f"postgresql+psycopg://lab@{host}:{port}/{database}"
