"""The frame of a chart as SVG: scales, ticks, labels, and the text that a screen reader tells instead.

Rules:

1. A chart is ``WIDTH`` units wide and scaled by the page; letters of 12 units are then readable on a phone.
2. Colours are names of the style sheet (``series-0``...), which knows light and dark; nothing is told by colour alone.
3. Ticks are multiples of 1, 2 or 5 powers of ten; on a logarithmic axis powers of ten, or 1, 2 and 5 of them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["HEIGHT", "WIDTH", "Axis", "chart", "frame", "short", "ticks"]

WIDTH, HEIGHT = 440.0, 280.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 428.0, 14.0, 232.0
# What follows a number, largest first.
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A scale from values to places.

    Attributes:
        low: the value at ``start``.
        high: the value at ``end``; more than ``low``.
        start: the place of ``low`` in the drawing; ``end`` of ``high``.
        label: what it counts, with the unit.
        logarithmic: equal distances are equal ratios; ``low`` is more than 0.
    """

    low: float
    high: float
    start: float
    end: float
    label: str
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value is drawn."""
        scaled: Callable[[float], float] = math.log10 if self.logarithmic else float
        low, high = scaled(self.low), scaled(self.high)
        return self.start + (self.end - self.start) * (scaled(value) - low) / (high - low)

    @staticmethod
    def across(values: Sequence[float], label: str, *, zero: bool = False, low: float | None = None) -> "Axis":
        """A horizontal axis around values; from 0 with ``zero``, or from ``low``."""
        first, last = _bounds(values, zero=zero)
        return Axis(low=first if low is None else low, high=last, start=LEFT, end=RIGHT, label=label)

    @staticmethod
    def upwards(values: Sequence[float], label: str, *, zero: bool = False, logarithmic: bool = False) -> "Axis":
        """A vertical axis around values, rounded outwards to ticks unless logarithmic."""
        if logarithmic:
            low, high = 0.8 * min(values), 1.25 * max(values)
        else:
            low, high = _bounds(values, zero=zero)
            step = _step(low, high)
            low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        return Axis(low=low, high=high, start=BOTTOM, end=TOP, label=label, logarithmic=logarithmic)


def _bounds(values: Sequence[float], *, zero: bool) -> tuple[float, float]:
    low, high = (min(values), max(values)) if len(values) else (0.0, 1.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high > low:
        return low, high
    room = abs(low) or 1.0
    return (low, low + room) if zero else (low - room / 2, low + room / 2)


def _step(low: float, high: float) -> float:
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))


def ticks(axis: Axis) -> list[float]:
    """The values marked on an axis (rule 3)."""
    if axis.logarithmic:
        powers = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
        steps = (1,) if len(powers) > 4 else (1, 2, 5)
        found = [step * 10.0**power for power in powers for step in steps]
        return [value for value in found if axis.low <= value <= axis.high]
    step = _step(axis.low, axis.high)
    first = math.ceil(axis.low / step - 1e-9)
    count = math.floor(axis.high / step + 1e-9) - first + 1
    return [(first + number) * step for number in range(count)]


def short(value: float) -> str:
    """A number as an axis shows it: three or four digits and a prefix for thousands."""
    for size, letter in _PREFIXES:
        if abs(value) >= size * 10 or (abs(value) >= size and letter != "k"):
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}" if value else "0"


def frame(across: Axis, upwards: Axis, *, height: float = HEIGHT, names: Sequence[str] | None = None) -> str:
    """Grid, ticks and labels of two axes.

    Args:
        across: the horizontal axis.
        upwards: the vertical one; its larger ``start`` or ``end`` is the bottom.
        height: of the whole chart.
        names: lanes from the top instead of numbers on the vertical axis.
    """
    top, bottom = sorted((upwards.start, upwards.end))
    parts = []
    for value in ticks(across):
        at = across.place(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 17}" text-anchor="middle">{short(value)}</text>')
    if names is None:
        for value in ticks(upwards):
            at = upwards.place(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for number, name in enumerate(names or ()):
        at = top + (number + 0.5) * (bottom - top) / len(names or ())
        parts.append(f'<text x="{across.start - 7}" y="{at + 4:.1f}" text-anchor="end">{escape(name)}</text>')
    parts.append(f'<path class="edge" d="M{across.start} {top}V{bottom}H{RIGHT}"/>')
    middle, centre = (across.start + RIGHT) / 2, (top + bottom) / 2
    parts.append(
        f'<text class="label" x="{middle}" y="{height - 8}" text-anchor="middle">{escape(across.label)}</text>'
    )
    parts.append(
        f'<text class="label" transform="translate(14 {centre}) rotate(-90)" text-anchor="middle">'
        f"{escape(upwards.label)}</text>"
    )
    return "".join(parts)


def chart(body: str, *, name: str, title: str, description: str, height: float = HEIGHT) -> str:
    """The whole SVG, told to a screen reader as an image with a title and a description.

    Args:
        body: what is drawn.
        name: unique on the page; ids start with it.
        title: what the image shows.
        description: what a reader who cannot see it should know.
        height: in the units of ``WIDTH``.
    """
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(description)}</desc>'
        f"{body}</svg>"
    )
