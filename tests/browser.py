"""The real browser that pages are looked at in, and that draws pictures."""

import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from analysis.picture import browser

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """The browser, or a skip that says how to get one; a failure where checks run unattended."""
    if path := browser():
        return path
    message = "no Chromium; on Debian or Ubuntu: apt-get install chromium"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


class Tab:
    """One page in a running browser, spoken to in the DevTools protocol over a pair of pipes."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._rest = read, write, b""
        self._number, self._session = 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """The result of one command; what happens meanwhile is kept in ``events``."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._read, 1 << 20)
            assert piece, "the browser has gone"
            self._rest += piece
        one, self._rest = self._rest.split(b"\0", 1)
        return json.loads(one)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until("document.readyState == 'complete'")

    def until(self, script: str, seconds: float = 60) -> Any:
        """Wait for an expression to be true, and return it."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)
        return value

    def width(self, pixels: int, height: int = 900, dark: bool = False) -> None:
        """Look at the page ``pixels`` wide, in the light or the dark."""
        shape = {"width": pixels, "height": height, "deviceScaleFactor": 1, "mobile": pixels < 600}
        self.call("Emulation.setDeviceMetricsOverride", **shape)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def move(self, x: float, y: float) -> None:
        """Move the mouse, in pixels of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the left button at ``start``, go to ``end`` in steps, let go."""
        press = {"button": "left", "clickCount": 1}
        self.move(*start)
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=start[0], y=start[1], **press)
        for part in (0.3, 0.6, 1.0):
            x, y = (a + part * (b - a) for a, b in zip(start, end, strict=True))
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, buttons=1, **press)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=end[0], y=end[1], **press)

    def key(self, name: str) -> None:
        """Press and release a key."""
        for way in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=way, key=name)

    def happened(self, method: str) -> list[dict[str, Any]]:
        """The parameters of every event of this name so far."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def complaints(self) -> list[str]:
        """What the page's scripts threw and what the console was told."""
        thrown = [event["exceptionDetails"]["text"] for event in self.happened("Runtime.exceptionThrown")]
        logged = [event["entry"]["text"] for event in self.happened("Log.entryAdded")]
        return thrown + logged


@contextmanager
def opened(profile: Path, *options: str) -> Iterator[Tab]:
    """A browser with one empty page; ``profile`` is a folder for its files."""
    to_read, to_write = os.pipe(), os.pipe()
    words = [chromium(), *QUIET, "--remote-debugging-pipe", f"--user-data-dir={profile}", *options]
    # The browser reads descriptor 3 and writes descriptor 4.
    line = f"exec {shlex.join(words)} 3<&{to_read[0]} 4>&{to_write[1]}"
    process = subprocess.Popen(
        ["/bin/bash", "-c", line], pass_fds=(to_read[0], to_write[1]), stderr=subprocess.DEVNULL
    )
    os.close(to_read[0])
    os.close(to_write[1])
    try:
        yield Tab(to_write[0], to_read[1])
    finally:
        os.close(to_read[1])
        os.close(to_write[0])
        process.terminate()
        process.wait(timeout=30)
