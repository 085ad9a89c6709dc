"""Charts as inline SVG: no library, no script, readable in any browser."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 440, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 24, 34
_COLORS = ("#2266bb", "#cc6622", "#228855", "#aa3377", "#666666", "#998800")
_TICKS = 4


@dataclass(frozen=True)
class Line:
    """A curve: points (x, y) in order of x."""

    name: str
    points: Sequence[tuple[float, float]]


def draw_histogram(
    values: Sequence[float], edges: Sequence[float], extra: Sequence[tuple[str, int]], title: str,
    unit: str,
) -> str:  # fmt: skip
    """Bars of how many values lie between neighbouring edges, and further named bars to the right.

    The last interval includes its upper edge; values beyond the edges are in no bar, so a caller
    names them in ``extra``.
    """
    counts = [0] * (len(edges) - 1)
    for value in values:
        for i in range(len(counts)):
            last = i == len(counts) - 1
            if edges[i] <= value < edges[i + 1] or (last and value == edges[-1]):
                counts[i] += 1
    names = [""] * len(counts) + [name for name, _ in extra]
    heights = counts + [count for _, count in extra]
    most = max([1, *heights])
    step = (WIDTH - _LEFT - _RIGHT) / len(heights)
    parts = [_frame(title), *_y_ticks(0, most, whole=True)]
    for i, count in enumerate(heights):
        x, tall = _LEFT + i * step, (HEIGHT - _TOP - _BOTTOM) * count / most
        color = _COLORS[0] if i < len(counts) else _COLORS[1]
        parts.append(
            f'<rect x="{x + 1:.1f}" y="{HEIGHT - _BOTTOM - tall:.1f}" width="{step - 2:.1f}" '
            f'height="{tall:.1f}" fill="{color}"><title>{count}</title></rect>'
        )
        if names[i]:
            parts.append(_text(x + step / 2, HEIGHT - _BOTTOM + 12, f"{names[i]}", "middle"))
            parts.append(_text(x + step / 2, HEIGHT - _BOTTOM - tall - 3, str(count), "middle"))
    # the last edge would be written over the first named bar
    for i in range(0, len(edges) - bool(extra), max(1, len(edges) // 5)):
        parts.append(_text(_LEFT + i * step, HEIGHT - _BOTTOM + 12, f"{edges[i]:g}", "middle"))
    middle = _LEFT + step * len(counts) / 2
    parts.append(_text(middle, HEIGHT - 6, unit, "middle"))
    return _svg(parts)


def draw_lines(lines: Sequence[Line], title: str, x_unit: str) -> str:
    """Curves over a common x axis; values that are no numbers are left out."""
    clean = [
        Line(line.name, [p for p in line.points if all(map(math.isfinite, p))]) for line in lines
    ]
    clean = [line for line in clean if line.points]
    if not clean:
        return _svg([_frame(title), _text(WIDTH / 2, HEIGHT / 2, "nothing was logged", "middle")])
    xs = [x for line in clean for x, _ in line.points]
    ys = [y for line in clean for _, y in line.points]
    left, right = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    low, high = min(0.0, *ys), max(ys) if max(ys) > min(0.0, *ys) else 1.0
    parts = [_frame(title), *_y_ticks(low, high)]

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = _LEFT + (WIDTH - _LEFT - _RIGHT) * (point[0] - left) / (right - left)
        y = _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - point[1]) / (high - low)
        return x, y

    for i, line in enumerate(clean):
        color = _COLORS[i % len(_COLORS)]
        placed = [place(point) for point in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{color}"/>'
                  for x, y in placed if len(placed) < 30]  # fmt: skip
        if len(clean) > 1:
            parts.append(_text(WIDTH - _RIGHT - 4, _TOP + 12 + 12 * i, line.name, "end", color))
    for i in range(_TICKS + 1):
        x = left + (right - left) * i / _TICKS
        anchor = "end" if i == _TICKS else "middle"
        parts.append(_text(place((x, low))[0], HEIGHT - _BOTTOM + 12, _short(x), anchor))
    parts.append(_text(_LEFT + (WIDTH - _LEFT) / 2, HEIGHT - 6, x_unit, "middle"))
    return _svg(parts)


def _y_ticks(low: float, high: float, whole: bool = False) -> list[str]:
    parts = []
    step = (high - low) / _TICKS
    if whole:
        step = max(1, math.ceil(high / _TICKS))
    for i in range(_TICKS + 1):
        value = low + i * step
        if value > high * (1 + 1e-9):
            break
        y = _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                     'stroke="#8884" />')  # fmt: skip
        parts.append(_text(_LEFT - 5, y + 4, _short(value), "end"))
    return parts


def _short(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:.0f}k"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _frame(title: str) -> str:
    return _text(_LEFT, 14, title, "start", bold=True)


def _text(
    x: float, y: float, text: str, anchor: str, color: str = "currentColor", bold: bool = False
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}"{weight}>'
        f"{html.escape(text)}</text>"
    )


def _svg(parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-size="11" '
        f'font-family="sans-serif" role="img">{"".join(parts)}</svg>'
    )
