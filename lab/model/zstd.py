"""zstd, from Python's own library where it has it (3.14), else from the package ``zstandard``."""

from __future__ import annotations

import sys

__all__ = ["MAGIC", "ZstdError", "compress", "decompress"]

MAGIC = b"\x28\xb5\x2f\xfd"
"""How a zstd frame begins (RFC 8878, sec. 3.1.1)."""


class ZstdError(ValueError):
    """zstd is not here, or a frame is broken; one sentence."""


def compress(data: bytes, level: int) -> bytes:
    """One frame; ``level`` up to 22. Raises ZstdError where no zstd is here."""
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.compress(data, level=level)
    return _package().ZstdCompressor(level=level).compress(data)


def decompress(frame: bytes) -> bytes:
    """What ``compress`` was given. Raises ZstdError."""
    if sys.version_info >= (3, 14):
        from compression import zstd

        try:
            return zstd.decompress(frame)
        except zstd.ZstdError as exc:
            raise ZstdError(f"is no whole zstd frame ({exc})") from None
    package = _package()
    try:
        return package.ZstdDecompressor().decompress(frame)
    except package.ZstdError as exc:
        raise ZstdError(f"is no whole zstd frame ({exc})") from None


def _package():
    try:
        import zstandard
    except ImportError:
        raise ZstdError(
            "files in few bits need zstd, which Python has from 3.14 on; install the package with "
            'pip install "hybrid-architecture-lab[zstd]"'
        ) from None
    return zstandard
