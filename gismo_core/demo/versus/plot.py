"""The table as a picture: one SVG, drawn by hand, so that it needs nothing installed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _RIGHT = 940, 330, 130
_BAR, _GAP, _TOP = 16, 22, 74
_INK, _FAINT, _STOCK, _GISMO = "#1b1f24", "#6b7280", "#9aa3af", "#0f766e"


@dataclass(frozen=True, slots=True)
class Bar:
    """One act: its title, and seconds of both."""

    title: str
    stock_s: float
    gismo_s: float


def seconds_text(seconds: float) -> str:
    """2.51 s, 38 ms, 0.8 ms."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms"


def draw(bars: Sequence[Bar], title: str, about: str) -> str:
    """Pairs of bars over a logarithmic axis of seconds. ValueError: nothing to draw."""
    if not bars:
        raise ValueError("no act was measured")
    least = min(min(bar.stock_s, bar.gismo_s) for bar in bars)
    most = max(max(bar.stock_s, bar.gismo_s) for bar in bars)
    low, high = math.floor(math.log10(least) - 0.01), math.ceil(math.log10(most) + 0.01)
    room = _WIDTH - _LEFT - _RIGHT

    def x(seconds: float) -> float:
        return _LEFT + room * (math.log10(seconds) - low) / (high - low)

    bottom = _TOP + len(bars) * (2 * _BAR + _GAP)
    height = bottom + 54
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="20" y="28" font-size="18" font-weight="600" fill="{_INK}">{escape(title)}</text>',
        f'<text x="20" y="48" fill="{_FAINT}">{escape(about)}</text>',
    ]
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<line x1="{at:.1f}" y1="{_TOP - 8}" x2="{at:.1f}" y2="{bottom - 8}" stroke="#e5e7eb"/>')
        parts.append(
            f'<text x="{at:.1f}" y="{bottom + 10}" text-anchor="middle" fill="{_FAINT}">{seconds_text(10.0**power)}</text>'
        )
    for number, bar in enumerate(bars):
        y = _TOP + number * (2 * _BAR + _GAP)
        parts.append(
            f'<text x="{_LEFT - 12}" y="{y + _BAR + 5}" text-anchor="end" fill="{_INK}">{escape(bar.title)}</text>'
        )
        ratio = f"{bar.stock_s / bar.gismo_s:.3g}x"
        for line, (seconds, colour, word) in enumerate(
            ((bar.stock_s, _STOCK, ""), (bar.gismo_s, _GISMO, f"  {ratio}"))
        ):
            top, end = y + line * _BAR, x(seconds)
            parts.append(
                f'<rect x="{_LEFT}" y="{top}" width="{max(1.0, end - _LEFT):.1f}" height="{_BAR - 2}" fill="{colour}"/>'
            )
            parts.append(f'<text x="{end + 6:.1f}" y="{top + 12}" fill="{_INK}">{seconds_text(seconds)}{word}</text>')
    y = bottom + 32
    for at, colour, word in ((_LEFT, _STOCK, "stock Ray"), (_LEFT + 110, _GISMO, "Ray with Gismo")):
        parts.append(f'<rect x="{at}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{at + 18}" y="{y}" fill="{_INK}">{word}</text>')
    parts.append(f'<text x="{_WIDTH - 20}" y="{y}" text-anchor="end" fill="{_FAINT}">time, logarithmic</text>')
    parts.append("</svg>\n")
    return "\n".join(parts)
