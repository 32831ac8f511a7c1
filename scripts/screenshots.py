"""Take the README's pictures. Run by scripts/screenshots, which prepares what is needed."""

from __future__ import annotations

import io
import pathlib
import sys
import tempfile

from PIL import Image
from playwright.sync_api import Page

import stage
from deadunits_tb import demo

IMAGES = pathlib.Path(__file__).resolve().parent.parent / "docs" / "images"
RUN = "learning_rate_too_high"
PLACES = {
    "overview": {"run": RUN},
    "layer": {"run": RUN, "layer": "hidden_2", "order": "death"},
    "compare": {"run": RUN, "versus": "healthy", "order": "death"},
    "unit": {"run": RUN, "layer": "hidden_2", "order": "death", "unit": 16},
}
WIDTH = 1280
HEIGHTS = {"compare": 1130}
HEIGHT = 800
"""Where nothing else is said."""


def take(page: Page, path: pathlib.Path) -> None:
    """Save what is on screen, in few colours: a third of the size, and nothing is seen of it."""
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)


def main(log_dir: pathlib.Path) -> None:
    """Take each place in both themes."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with stage.tensorboard(log_dir) as url, stage.chromium() as browser:
        for theme in ("light", "dark"):
            context = browser.new_context(color_scheme=theme)
            for name, place in PLACES.items():
                page = context.new_page()
                page.set_viewport_size({"width": WIDTH, "height": HEIGHTS.get(name, HEIGHT)})
                page.goto(stage.link(url, **place))
                stage.settle(stage.tab_frame(page))
                take(page, IMAGES / f"{name}-{theme}.png")
                page.close()
            context.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(pathlib.Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            demo.run(folder, serve_after=False)
            main(pathlib.Path(folder))
