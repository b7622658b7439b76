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


class Server:
    """A server that lets everybody in. It refuses to be root, so root becomes its user."""

    def __init__(self, place: Path, port: int) -> None:
        self.place, self.port = place, port
        self._where = programs()
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(place, self._user)
        data = str(place / "data")
        self._run("initdb", "-D", data, "-A", "trust", "-U", "lab", "-E", "UTF8", "--no-sync")

    def _run(self, program: str, *words: str) -> None:
        command = (str(self._where / program), *words)
        user = self._user
        subprocess.run(
            command, user=user, group=user, cwd=self.place, check=True, capture_output=True, timeout=300
        )

    def start(self) -> None:
        """Return once it answers. Files are not synced: this server need not outlive the machine."""
        options = (
            f"-p {self.port} -c listen_addresses={','.join(HOSTS)} -c unix_socket_directories= -c fsync=off "
            "-c max_connections=60 -c shared_buffers=16MB"
        )
        log = str(self.place / "log")
        self._run("pg_ctl", "-D", str(self.place / "data"), "-l", log, "-w", "-o", options, "start")

    def stop(self) -> None:
        """As a crash does it: connections break, what was committed is there at the next start."""
        self._run("pg_ctl", "-D", str(self.place / "data"), "-m", "immediate", "stop")

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody answers meanwhile."""
        self.stop()
        try:
            yield
        finally:
            self.start()


@contextmanager
def running() -> Iterator[Server]:
    """A server at work, gone with all it holds at the end."""
    place = Path(tempfile.mkdtemp(prefix="lab-postgres-"))
    try:
        one = Server(place, free_port())
        one.start()
        try:
            yield one
        finally:
            one.stop()
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def server() -> Iterator[int]:
    """The port of a server at work."""
    with running() as one:
        yield one.port


def url(port: int, host: str = HOSTS[0], database: str = "postgres") -> str:
    """The server as ``--storage``."""
    return f"postgresql+psycopg://lab@{host}:{port}/{database}"
