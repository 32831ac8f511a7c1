"""How long the tab's Overview takes to be on screen, for logs like the demo's: at most 1 s after the tab is opened.

Measured inside a real Chromium, from the click to the frame in which the headline is there: within a TensorBoard that
is already open, and for a whole new page, where TensorBoard itself takes its time first.
"""

from __future__ import annotations

import pathlib
import statistics
import tempfile

from playwright.sync_api import Page

import planted
import stage
from deadunits_tb import DeadUnitsWriter

RUNS, STEPS, SAMPLES = 5, 855, 7  # as the demo: five runs of 15 epochs of 57 steps
LIMIT_MS = 1000.0
_UNTIL_SHOWN = """
() => new Promise((done) => {
  const start = performance.now();
  location.hash = "#dead_units";
  const look = () => {
    const frames = [...document.querySelectorAll("iframe")];
    const shown = frames.some((frame) => frame.contentDocument?.querySelector(".headline")?.textContent);
    if (shown) done(performance.now() - start);
    else requestAnimationFrame(look);
  };
  look();
})
"""


def write(log_dir: pathlib.Path) -> None:
    """Five runs like the demo's."""
    for number in range(RUNS):
        with DeadUnitsWriter(log_dir / f"run_{number}") as writer:
            planted.write(writer, planted.RUNS["dying"], first_step=0, steps=STEPS)


def opened_in_tensorboard(page: Page, url: str) -> float:
    """Milliseconds from choosing the tab to its headline."""
    page.goto(f"{url}#timeseries")
    page.wait_for_load_state("networkidle")
    return float(page.evaluate(_UNTIL_SHOWN))


def opened_as_a_new_page(page: Page, url: str) -> float:
    """Milliseconds from the start of the navigation to the headline."""
    page.goto(f"{url}#dead_units")
    stage.tab_frame(page).wait_for_selector(".headline")
    return float(page.evaluate("performance.now()"))


def main() -> None:
    """Print both as a table."""
    with tempfile.TemporaryDirectory() as folder:
        write(pathlib.Path(folder))
        with stage.tensorboard(pathlib.Path(folder)) as url, stage.chromium() as browser:
            print(f"{'ms until the Overview is shown':<34}{'median':>9}{'range':>16}")
            for measure in (opened_in_tensorboard, opened_as_a_new_page):
                times = []
                for _ in range(SAMPLES):
                    context = browser.new_context(viewport={"width": 1280, "height": 800})
                    times.append(measure(context.new_page(), url))
                    context.close()
                name = measure.__name__.replace("_", " ")
                print(f"{name:<34}{statistics.median(times):>9.0f}{f'{min(times):.0f} to {max(times):.0f}':>16}")
            print(f"limit for the first: {LIMIT_MS:.0f} ms")


if __name__ == "__main__":
    main()
