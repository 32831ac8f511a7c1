"""The tab meets WCAG 2.2 AA as far as axe-core can tell, in every view, light and dark."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

import stage

AXE = pathlib.Path(__file__).resolve().parents[2] / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
VIEWS: dict[str, dict[str, Any]] = {
    "overview": {"run": "dying"},
    "comparison": {"run": "dying", "versus": "healthy"},
    "compared tables": {"run": "dying", "versus": "healthy", "tables": "pair,compared"},
    "layer": {"run": "dying", "layer": "hidden_1"},
    "unit": {"run": "dying", "layer": "hidden_1", "unit": 3},
    "tables": {"run": "dying", "layer": "hidden_1", "tables": "heatmap,events,counts,distribution"},
    "thresholds": {"run": "dying", "panel": "thresholds"},
    "help": {"run": "dying", "panel": "help"},
}
ALWAYS = {("overview", "dark"), ("overview", "light"), ("layer", "dark"), ("unit", "dark"), ("comparison", "dark")}
"""Looked at in each run of the tests; the others in long ones."""


@pytest.mark.parametrize(
    ("view", "scheme"),
    [
        pytest.param(view, scheme, marks=() if (view, scheme) in ALWAYS else pytest.mark.slow)
        for view in VIEWS
        for scheme in ("dark", "light")
    ],
)
def test_axe_finds_nothing(view: str, scheme: Any, browser: Browser, planted_url: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme=scheme)
    page = context.new_page()
    page.goto(stage.link(planted_url, **VIEWS[view]))
    tab = stage.tab_frame(page)
    expect(tab.locator("html")).to_have_attribute("data-theme", scheme)
    stage.settle(tab)
    expect(tab.locator("h1").first).to_be_visible()
    tab.evaluate(AXE.read_text(encoding="utf-8"))
    # Only the tab's own frame is judged: TensorBoard's page around it is not ours.
    found = tab.evaluate("tags => axe.run(document, {runOnly: tags, iframes: false})", TAGS)
    context.close()
    assert found["passes"], "axe judged something"
    summary = [
        f"{rule['id']}: {rule['help']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
    assert summary == []
