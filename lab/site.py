"""The server of ``lab dashboard``: one page, one state with an ETag, and two files to keep.

    GET /                 the empty page        GET /report.html      the report as it stands, one file
    GET /plotly.js        as installed          GET /runs.parquet     all rows
    GET /dashboard.js     what fills the page   GET /state            JSON: parts and figures, with an ETag

The socket is bound to 127.0.0.1, and a request whose Host is another name is refused, so that no page of
somebody's can reach this one by a name that points here (DNS rebinding).
"""

from __future__ import annotations

import io
import json
import re
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from analysis.dashboard import POLICY, page, progress, script, state, version
from analysis.report import asked, plotly_js, render
from lab.terminal import plural
from lab.watch import Watch
from sweeps.results import Results, ResultsError

__all__ = ["HERE", "Server", "Site"]

HERE = "127.0.0.1"
NAMES = (HERE, "localhost")
PATIENCE = 4.0
"""Making the page anew waits this many times as long as it took last, so that a sweep keeps its cores."""


@dataclass
class Site:
    """What the server answers with: made from the folder when asked for, and kept while nothing changes."""

    watch: Watch
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tag: str = ""
    _seen: str = ""
    _body: bytes = b""
    _drawn: dict[str, Any] = field(default_factory=dict)
    _failed: int = 0
    _rest: float = 0.0

    @property
    def name(self) -> str:
        """The folder's name, as far as it can stand in the name of a file."""
        return re.sub(r"[^\w.-]+", "-", self.watch.folder.resolve().name)

    @cached_property
    def fixed(self) -> dict[str, tuple[str, bytes]]:
        """The files that do not change: path -> type and content."""
        return {
            "/": ("text/html; charset=utf-8", page(self.name, self.name).encode()),
            "/plotly.js": ("text/javascript; charset=utf-8", plotly_js().encode()),
            "/dashboard.js": ("text/javascript; charset=utf-8", script().encode()),
        }

    def state(self) -> tuple[str, bytes]:
        """An ETag and the JSON that it names; both stay while the folder does."""
        with self._lock:
            listing = self.watch.listing()
            here = (listing.version, listing.beside)
            if (tag := version(here, listing.status, listing.working)) != self._tag:
                early = self.watch.pulse(listing, 0).early
                current = self._renew(version(here, early), early)
                pulse = self.watch.pulse(listing, self._failed)
                document = {**self._drawn, "progress": progress(pulse).html}
                self._body = json.dumps(document).encode()
                # What is put off will be made when it is asked for again, so this state has no lasting name.
                self._tag = tag if current else f"{tag}-{self._seen}"
            return self._tag, self._body

    def _renew(self, seen: str, early: bool) -> bool:
        """Draw what is in the folder, unless that was done just now; whether all that was seen is drawn."""
        if seen == self._seen:
            return True
        began = time.monotonic()
        if began < self._rest:
            return False
        self._drawn = {"problem": "", **self._draw(early)}
        self._seen, ended = seen, time.monotonic()
        self._rest = ended + PATIENCE * (ended - began)
        return True

    def _draw(self, early: bool) -> dict[str, Any]:
        try:
            found = self._results()
            self._failed = len(found.failures)
            drawn = state(found, asked(found, self.watch.folder), early)
        except ResultsError as exc:
            return {"problem": str(exc)}
        broken = self.watch.broken
        if broken:
            drawn["problem"] = f"{plural(len(broken), 'file')} left out: {next(iter(broken.values()))}"
        return drawn

    def _results(self) -> Results:
        return self.watch.results(self.watch.listing())

    def report(self) -> bytes:
        """The report as it stands. Raises ResultsError."""
        with self._lock:
            found = self._results()
        return render(found, asked(found, self.watch.folder)).encode()

    def rows(self) -> bytes:
        """All rows as one parquet file. Raises ResultsError."""
        buffer = io.BytesIO()
        with self._lock:
            self._results().frame.write_parquet(buffer)
        return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """One site on one address."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], site: Site) -> None:
        self.site = site
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    """One connection; only GET is known."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    server_version, sys_version = "lab", ""
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        site = self.server.site
        path = self.path.partition("?")[0]
        try:
            if re.sub(r":\d+$", "", self.headers.get("Host", "")) not in NAMES:
                self._refuse(403, f"this dashboard answers to {' and '.join(NAMES)} alone")
            elif path in site.fixed:
                kind, content = site.fixed[path]
                self._answer(kind, content, etag=f"{hash(content):x}")
            elif path == "/state":
                tag, content = site.state()
                self._answer("application/json", content, etag=tag)
            elif path == "/report.html":
                self._answer("text/html; charset=utf-8", site.report(), keep=f"{site.name}-report.html")
            elif path == "/runs.parquet":
                self._answer("application/vnd.apache.parquet", site.rows(), keep=f"{site.name}.parquet")
            else:
                self._refuse(404, f"there is no {path} here")
        except ResultsError as exc:
            self._refuse(503, str(exc))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # whoever asked has left

    def _refuse(self, code: int, sentence: str) -> None:
        self._send(code, {"Content-Type": "text/plain; charset=utf-8"}, f"{sentence}\n".encode())

    def _answer(self, kind: str, content: bytes, etag: str = "", keep: str = "") -> None:
        headers = {"Content-Type": kind, "Cache-Control": "no-cache"}
        if etag:
            headers["ETag"] = f'"{etag}"'
            if self.headers.get("If-None-Match") == headers["ETag"]:
                self._send(304, headers)
                return
        if keep:
            headers["Content-Disposition"] = f'attachment; filename="{keep}"'
        self._send(200, headers, content)

    def _send(self, code: int, headers: dict[str, str], content: bytes | None = None) -> None:
        self.send_response(code)
        headers |= {
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        if content is not None:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of requests: the terminal is the sweep's."""
