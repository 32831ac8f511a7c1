"""What a heatmap shows at a place, once there is nothing left to load or to draw."""

from __future__ import annotations

from playwright.sync_api import Frame

import stage

Color = tuple[int, ...]


def pixel(tab: Frame, x: float, y: float, heatmap: int = 0) -> Color:
    """Colour of a heatmap, the first by default, at a place given as shares of its width and height."""
    stage.settle(tab)
    return tuple(
        tab.locator(".heatmap > canvas")
        .nth(heatmap)
        .evaluate(
            """(canvas, [x, y]) => [...canvas.getContext("2d").getImageData(
                 Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data.slice(0, 3)]""",
            [x, y],
        )
    )


def color(tab: Frame, name: str) -> Color:
    """A colour of the page, such as ``"--line-alarm"``, or ``"--state-dead"`` as the legend shows it."""
    found: str = tab.evaluate("name => getComputedStyle(document.documentElement).getPropertyValue(name)", name)
    return tuple(bytes.fromhex(found.strip().lstrip("#")))


def state_at(tab: Frame, x: float, y: float, heatmap: int = 0) -> str:
    """The state that a place shows."""
    shown = pixel(tab, x, y, heatmap)
    states = ("active", "dead", "dying", "saturated", "unknown")
    return next((state for state in states if color(tab, f"--state-{state}") == shown), f"none of {states}: {shown}")


def row_of(unit: int, units: int = 64) -> float:
    """The middle of a unit's row in a whole heatmap in order of index."""
    return (unit + 0.5) / units
