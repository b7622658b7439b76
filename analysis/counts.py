"""How a large count is written wherever people read it. Nothing heavy is imported here."""

from __future__ import annotations

__all__ = ["short"]


def short(number: float) -> str:
    """To three figures: 950, 12.3k, 4.56M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # What would be rounded up to the next unit is written in it: 999.6 is 1.00k.
        if abs(number) >= 0.9995 * size:
            return f"{number / size:#.3g}".rstrip(".") + unit
    return f"{number:.3g}"
