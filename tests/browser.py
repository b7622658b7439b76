"""The real browser that pages are looked at in, and that draws pictures."""

import os

import pytest

from analysis.picture import browser


def chromium() -> str:
    """The browser, or a skip that says how to get one; a failure where checks run unattended."""
    if path := browser():
        return path
    message = "no Chromium; on Debian or Ubuntu: apt-get install chromium"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
