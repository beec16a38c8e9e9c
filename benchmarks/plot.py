"""A bar chart as SVG, readable on light and dark pages."""

from collections.abc import Sequence
from html import escape

from benchmarks.outcome import count

_WIDTH = 860
_LEFT = 330
_RIGHT = 90
_BAR = 14
_GROUP_GAP = 14
_TOP = 70
_COLOURS = ("#2f7ed8", "#f0932b")

_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.value { font-size: 12px }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }"""


def bars(title: str, groups: Sequence[tuple[str, Sequence[float]]], *, series: Sequence[str]) -> str:
    """Return a chart with one group of horizontal bars for each of *groups*, one bar for each of *series*."""
    group_height = len(series) * _BAR + _GROUP_GAP
    height = _TOP + len(groups) * group_height
    highest = max(value for _, values in groups for value in values)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="12" y="26">{escape(title)}</text>',
        *_legend(series),
    ]
    for number, (label, values) in enumerate(groups):
        parts += _group(label, values, y=_TOP + number * group_height, scale=(_WIDTH - _LEFT - _RIGHT) / highest)
    return "\n".join([*parts, "</svg>", ""])


def _legend(series: Sequence[str]) -> list[str]:
    parts = []
    for number, name in enumerate(series):
        x = _LEFT + number * 200
        parts.append(f'<rect x="{x}" y="40" width="12" height="12" fill="{_COLOURS[number]}"/>')
        parts.append(f'<text class="value" x="{x + 18}" y="51">{escape(name)}</text>')
    return parts


def _group(label: str, values: Sequence[float], *, y: int, scale: float) -> list[str]:
    middle = y + len(values) * _BAR / 2 + 4
    parts = [f'<text x="{_LEFT - 10}" y="{middle:g}" text-anchor="end">{escape(label)}</text>']
    for number, value in enumerate(values):
        top, width = y + number * _BAR, max(1, value * scale)
        parts.append(
            f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR - 2}" fill="{_COLOURS[number]}"/>'
            f'<text class="value" x="{_LEFT + width + 6:.1f}" y="{top + 10}">{count(value)}</text>'
        )
    return parts
