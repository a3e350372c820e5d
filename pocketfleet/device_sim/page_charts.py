"""The charts of a run's page, each from one table of ``page_figures``, as SVG without any script.

Rules:

1. A line or a cloud shows ``MOST_POINTS`` points at most, a timeline ``MOST_LANES`` devices, evenly spaced and with the
   first and the last.
2. Series differ in colour and in mark or pattern; colours are Okabe and Ito's, told apart by colour-blind readers
   (jfly.uni-koeln.de/color), and every area has an outline of the text's colour.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from pocketfleet.device_sim.page_axes import BOTTOM, LEFT, RIGHT, TOP, Axis, chart, frame, short

__all__ = ["MOST_LANES", "MOST_POINTS", "bars", "boxes", "cloud", "lanes", "legend", "line", "stack"]

MOST_POINTS, MOST_LANES = 300, 40
# Fills of the style sheet, and the patterns laid over them.
_COLOURS, _PATTERNS = 7, ("", "diagonal", "dots", "flat", "cross")
_NAMED_LANES = 12
_LANE_LEFT = 132.0


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of ``0..count-1``, evenly spaced, both ends among them."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist())) if count else []


def _area(x: float, y: float, width: float, height: float, *, series: int, told: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 1.2):.1f}" height="{max(height, 0.0):.1f}"'
    pattern = _PATTERNS[series % len(_PATTERNS)]
    over = f'<rect {place} fill="url(#{pattern})"/>' if pattern else ""
    return f'<g><title>{escape(told)}</title><rect {place} class="area series-{series % _COLOURS}"/>{over}</g>'


def legend(words: Sequence[str], *, marks: bool = False) -> str:
    """What each series is, as a list that wraps; ``marks`` for the two point shapes of ``cloud`` and ``bars``."""
    items = []
    for number, word in enumerate(words):
        drawn = _mark(8, 8, number) if marks else _area(1, 2, 14, 12, series=number, told=word)
        items.append(f'<li><svg class="swatch" viewBox="0 0 16 16" aria-hidden="true">{drawn}</svg>{escape(word)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _mark(x: float, y: float, series: int) -> str:
    if series == 0:
        return f'<circle class="mark line-0" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'
    return f'<path class="mark line-1" d="M{x:.1f} {y - 4.4:.1f}l4.4 4.4l-4.4 4.4l-4.4 -4.4z"/>'


def line(name: str, x: pd.Series, y: pd.Series, *, x_label: str, y_label: str, title: str) -> str:
    """One figure against another, points joined in order; without a value where ``y`` is not a number."""
    known = y.notna().to_numpy()
    kept = evenly(int(known.sum()), MOST_POINTS)
    xs, ys = x.to_numpy(float)[known][kept], y.to_numpy(float)[known][kept]
    logarithmic = bool(ys.min() > 0 and ys.max() > 10 * ys.min())
    across = Axis.across(xs.tolist(), x_label, zero=True)
    upwards = Axis.upwards(ys.tolist(), y_label, logarithmic=logarithmic)
    places = [(across.place(a), upwards.place(b)) for a, b in zip(xs, ys, strict=True)]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    marks = "".join(_mark(a, b, 0) for a, b in places) if len(places) <= 40 else ""
    text = f"{y_label} goes from {short(ys[0])} to {short(ys[-1])} over {x_label} up to {short(xs[-1])}."
    body = f'{frame(across, upwards)}<polyline class="line line-0" points="{points}"/>{marks}'
    return chart(body, name=name, title=title, description=text)


def stack(name: str, table: pd.DataFrame, *, x_label: str, y_label: str, title: str) -> str:
    """Columns of counts on one another; the first column of ``table`` is the place, one apart."""
    places, words = table.iloc[:, 0], list(table.columns[1:])
    across = Axis.across([float(places.min()), float(places.max()) + 1.0], x_label)
    upwards = Axis.upwards(table[words].sum(axis=1).tolist(), y_label, zero=True)
    width, drawn = 0.84 * (across.end - across.start) / len(table), []
    for row in table.itertuples(index=False):
        below = 0.0
        for series, (word, count) in enumerate(zip(words, row[1:], strict=True)):
            if count:
                top, foot = upwards.place(below + count), upwards.place(below)
                told = f"{row[0]}: {count} {word}"
                drawn.append(_area(across.place(row[0] + 0.08), top, width, foot - top, series=series, told=told))
            below += count
    sums = ", ".join(f"{int(table[word].sum())} {word}" for word in words)
    return chart(frame(across, upwards) + "".join(drawn), name=name, title=title, description=f"{sums} in all.")


def bars(name: str, table: pd.DataFrame, *, x_label: str, y_label: str, title: str) -> str:
    """Columns of figures side by side; the first column of ``table`` is the place, one apart."""
    places, words = table.iloc[:, 0], list(table.columns[1:])
    across = Axis.across([float(places.min()) - 0.5, float(places.max()) + 0.5], x_label)
    upwards = Axis.upwards(table[words].to_numpy(float).ravel().tolist(), y_label, zero=True)
    width, drawn = 0.8 / len(words), []
    for row in table.itertuples(index=False):
        for series, (word, value) in enumerate(zip(words, row[1:], strict=True)):
            start = across.place(row[0] - 0.4 + series * width)
            top, foot = sorted((upwards.place(value), upwards.place(0.0)))
            told = f"{x_label} {row[0]}, {word}: {short(value)}"
            end = across.place(row[0] - 0.4 + (series + 1) * width)
            drawn.append(_area(start, top, end - start, foot - top, series=series, told=told))
    ends = "; ".join(f"{word} from {short(table[word].iloc[0])} to {short(table[word].iloc[-1])}" for word in words)
    return chart(frame(across, upwards) + "".join(drawn), name=name, title=title, description=f"{ends}.")


def boxes(name: str, table: pd.DataFrame, *, x_label: str, scale: float, title: str) -> str:
    """Distributions as lanes, a row of ``page_figures.spread`` each: middle half, median, and 10th to 90th percentile.

    Args:
        name: as in ``chart``.
        table: rows of one figure.
        x_label: with the unit that is left after dividing by ``scale``.
        scale: of the unit drawn.
        title: as in ``chart``.
    """
    height = TOP + 34.0 * len(table) + 48
    across = Axis(
        low=0.0, high=max(table["p90"].max() / scale, 1e-12) * 1.05, start=_LANE_LEFT, end=RIGHT, label=x_label
    )
    upwards = Axis(low=0, high=1, start=height - 48, end=TOP, label="")
    drawn = []
    for number, row in enumerate(table.to_dict("records")):
        y = TOP + 34.0 * number + 17
        low, first, middle, third, high = (
            across.place(row[key] / scale) for key in ("p10", "p25", "median", "p75", "p90")
        )
        drawn.append(f'<path class="edge" d="M{low:.1f} {y}H{high:.1f}M{low:.1f} {y - 5}v10M{high:.1f} {y - 5}v10"/>')
        drawn.append(
            _area(first, y - 9, third - first, 18, series=0, told=f"{row['tier']}: median {row['median']:.4g}")
        )
        drawn.append(f'<path class="median" d="M{middle:.1f} {y - 11}v22"/>')
    rows: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
    text = "; ".join(f"{row['tier']}: median {short(row['median'] / scale)}" for row in rows)
    names = [f"{row['tier']} ({row['devices']:,})" if row["tier"] == "all" else str(row["tier"]) for row in rows]
    whole = frame(across, upwards, height=height, names=names) + "".join(drawn)
    return chart(whole, name=name, title=title, description=f"{text}.", height=height)


def cloud(name: str, x: pd.Series, y: pd.Series, *, x_label: str, y_label: str, title: str) -> str:
    """A point a device, and the diagonal of no difference."""
    kept = evenly(len(x), MOST_POINTS)
    xs, ys = x.to_numpy(float)[kept], y.to_numpy(float)[kept]
    both = [*xs.tolist(), *ys.tolist()]
    upwards = Axis.upwards(both, y_label)
    across = Axis(low=upwards.low, high=upwards.high, start=LEFT, end=RIGHT, label=x_label)
    marks = "".join(_mark(across.place(a), upwards.place(b), 0) for a, b in zip(xs, ys, strict=True))
    body = f'{frame(across, upwards)}<path class="diagonal" d="M{LEFT} {BOTTOM}L{RIGHT} {TOP}"/>{marks}'
    text = f"{int((y > x).sum())} of {len(x)} devices lie above the diagonal, {int((y < x).sum())} below."
    return chart(body, name=name, title=title, description=text)


def lanes(name: str, table: pd.DataFrame, stages: Sequence[str], *, x_label: str, title: str) -> str:
    """A device a lane, a bar a stage: rows of ``page_figures.timeline``."""
    devices = table["device"].drop_duplicates().tolist()
    shown = [devices[number] for number in evenly(len(devices), MOST_LANES)]
    lane = {device: number for number, device in enumerate(shown)}
    step = 18.0 if len(shown) <= _NAMED_LANES else 9.0
    bottom = TOP + step * len(shown)
    rows = table[table["device"].isin(shown)]
    named = rows.drop_duplicates("device")["name"].tolist() if len(shown) <= _NAMED_LANES else None
    start = _LANE_LEFT if named else 30.0
    # Room for the last bar's outline.
    across = Axis(low=0.0, high=max(rows["end_s"].max(), 1e-9) * 1.02, start=start, end=RIGHT, label=x_label)
    upwards = Axis(low=0, high=1, start=bottom, end=TOP, label="" if named else "phones")
    drawn = []
    bars_of: list[dict[str, Any]] = rows.to_dict("records")  # type: ignore[assignment]
    for row in bars_of:
        left, right = across.place(max(row["start_s"], 0.0)), across.place(row["end_s"])
        cut = f", cut short: {row['reason']}" if row["reason"] else ""
        told = f"{row['name']}: {row['stage']} {row['start_s']:.4g} s to {row['end_s']:.4g} s{cut}"
        place = TOP + step * lane[row["device"]] + 0.12 * step
        drawn.append(_area(left, place, right - left, 0.76 * step, series=stages.index(row["stage"]), told=told))
    names = [text if len(text) <= 17 else f"{text[:16]}…" for text in named] if named else []
    whole = frame(across, upwards, height=bottom + 48, names=names) + "".join(drawn)
    text = f"{len(shown)} of {len(devices)} devices; the last bar ends after {short(rows['end_s'].max())} s."
    return chart(whole, name=name, title=title, description=text, height=bottom + 48)
