"""Deaths in the heatmap, the drawer and the overview, and two runs side by side, in a real browser."""

from __future__ import annotations

import re

from playwright.sync_api import Frame, expect

import planted
from pixels import color, pixel, row_of, state_at
from stage import settle
from watched import Watched


def point_at(watched: Watched, tab: Frame, x: float, y: float, heatmap: int = 0) -> None:
    """Move the pointer over a heatmap, to a place given as shares of its width and height."""
    target = tab.get_by_role("application").nth(heatmap)
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    assert box is not None
    watched.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])


def test_events_are_told_in_words_where_the_marks_are(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="dying")
    events = tab.get_by_role("region", name="Events")
    expect(events).to_contain_text("1 unit born dead")
    expect(events).to_contain_text("10 units died from step 30 to 48, half of them by step 38")
    events.get_by_role("button", name="Open layer hidden_1").first.click()
    chart = tab.get_by_role("region", name="Events")
    expect(chart).to_contain_text("1 unit born dead, 10 deaths")
    chart.get_by_role("button", name="Table").click()
    rows = chart.get_by_role("row")
    expect(rows).to_have_count(12)
    expect(rows.nth(1)).to_contain_text(re.compile("0.*20.*born dead"))
    expect(rows.nth(2)).to_contain_text(re.compile("30.*0.*died"))
    rows.nth(5).get_by_role("button").click()
    drawer = tab.get_by_role("complementary", name="Unit 3 of layer hidden_1")
    expect(drawer.get_by_role("list", name="Events")).to_contain_text(f"step {planted.DYING[3]}died")
    expect(drawer.locator(".event-mark")).to_have_attribute("title", f"died, step {planted.DYING[3]}")


def test_a_mark_stands_on_the_step_of_a_death(watched: Watched, planted_url: str) -> None:
    """Rows of a small layer carry signs: the cell where a unit died has the colour of deaths, not of its state."""
    tab = watched.tab(planted_url, run="dying", layer=planted.HOSTILE)
    place = (50 + 0.5) / planted.STEPS, row_of(3, 16)
    assert pixel(tab, *place) == color(tab, "--line-alarm")
    point_at(watched, tab, *place)
    expect(tab.locator(".readout").first).to_contain_text("died at step 50")


def test_two_runs_are_compared_by_one_choice(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="healthy")
    tab.get_by_role("button", name="Compare with").click()
    tab.get_by_role("option", name="dying").click()
    expect(tab.get_by_role("heading", level=1)).to_contain_text(
        "No difference that chance would not make: at step 119 0 of 64 units of hidden_1"
    )
    assert "p.dead_units.versus=dying" in watched.page.url
    layers = tab.get_by_role("region", name="Layers")
    row = layers.locator("tr").filter(has=tab.get_by_role("button", name="hidden_1", exact=True))
    expect(row).to_contain_text(re.compile("0 of 64.*11 of 64"))
    expect(row.get_by_role("img")).to_have_count(1)
    expect(tab.get_by_role("region", name="Not compared")).to_contain_text(planted.HOSTILE)
    layers.get_by_role("button", name="Table").click()
    expect(layers.get_by_role("row").nth(1)).to_contain_text("hidden_1")
    tab.get_by_role("button", name="Swap").click()
    expect(tab.get_by_role("button", name="Run dying")).to_be_visible()
    tab.get_by_role("button", name="End comparison").click()
    expect(tab.locator(".headline")).to_contain_text("12 of 112 units dead")


def test_a_layer_is_shown_in_both_runs_unit_below_unit(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="dying", versus="healthy", order="death")
    panel = tab.get_by_role("region", name="Units over steps in hidden_1")
    expect(panel).to_contain_text("in 'dying' 11 of 64 units, in 'healthy' 0 of 64 units")
    expect(tab.get_by_role("application")).to_have_count(2)
    # In the order of the first run's deaths: unit 20 was born dead, units 0 to 9 died after one another.
    last = (planted.STEPS - 0.5) / planted.STEPS
    assert [state_at(tab, last, row_of(row)) for row in (1, 10, 11)] == ["dead", "dead", "active"]
    assert [state_at(tab, last, row_of(row), heatmap=1) for row in (1, 10, 11)] == ["active"] * 3
    assert tab.locator(".axis-y").nth(0).inner_text() == tab.locator(".axis-y").nth(1).inner_text()
    readouts = panel.locator(".pair-head")
    for heatmap in (0, 1):
        point_at(watched, tab, last, row_of(0), heatmap)
        expect(readouts.nth(0)).to_contain_text(re.compile("dying.*unit 20.*step 119.*dead.*"))
        expect(readouts.nth(1)).to_contain_text(re.compile("healthy.*unit 20.*step 119.*active"))
    watched.page.mouse.move(0, 0)
    second = tab.get_by_role("application", name="in run healthy")
    second.focus()
    watched.page.keyboard.press("Home")
    watched.page.keyboard.press("Shift+ArrowDown")
    expect(readouts.nth(0)).to_contain_text(re.compile("unit 9step 0"))
    expect(readouts.nth(1).locator("[aria-live]")).to_contain_text("healthy: unit 9, step 0, active")
    # One window: what zooms the second, around the focused cell, zooms the first.
    axes = tab.locator(".axis-y")
    whole = axes.nth(0).inner_text()
    assert state_at(tab, 0.5, row_of(10)) == "dead"
    watched.page.keyboard.press("w")
    watched.page.wait_for_url(re.compile("p.dead_units.rows="))
    assert state_at(tab, 0.5, row_of(10)) == "active", "unit 9 died at step 48"
    assert whole != axes.nth(0).inner_text() == axes.nth(1).inner_text()
    watched.page.keyboard.press("Enter")
    expect(tab.get_by_role("complementary", name="Unit 9 of layer hidden_1")).to_contain_text("active")
    assert "run=healthy" in watched.page.url
    watched.page.go_back()
    expect(tab.get_by_role("application")).to_have_count(2)


def test_two_heatmaps_in_the_dark_with_one_scale_of_values(watched: Watched, planted_url: str) -> None:
    watched.page.emulate_media(color_scheme="dark")
    tab = watched.tab(planted_url, run="dying", versus="healthy", what="statistic", statistic="active_fraction")
    expect(tab.locator("html")).to_have_attribute("data-theme", "dark")
    panel = tab.get_by_role("region", name="Units over steps in hidden_1")
    expect(panel.locator(".color-scale")).to_have_count(1)
    assert pixel(tab, 0.99, row_of(3)) != pixel(tab, 0.99, row_of(3), heatmap=1)
    panel.get_by_role("button", name="Table").click()
    for run, state in (("dying", "dead"), ("healthy", "active")):
        table = panel.get_by_role("region", name=f"Units of layer hidden_1 in run {run}")
        expect(table.get_by_role("row").nth(4)).to_contain_text(state)


def test_layers_that_are_no_pair_are_shown_and_said(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="dying", versus="small")
    panel = tab.get_by_role("region", name="Units over steps")
    expect(panel).to_contain_text("hidden_1 has 64 units in 'dying' and 16 in 'small'")
    expect(panel).to_contain_text("Hatched: the run has no records there.")
    assert state_at(tab, 0.45, row_of(3, 16), heatmap=1) == "dead"
    point_at(watched, tab, 0.9, row_of(3, 16), heatmap=1)
    expect(panel.locator(".pair-head").nth(1)).to_contain_text("no record of this run here")
    tab.get_by_role("region", name="Not compared").get_by_role("button", name="hidden_2").click()
    expect(panel).to_contain_text(
        "'small' has no layer hidden_2, and none in its place: only that of 'dying' is shown."
    )
    expect(tab.get_by_role("application")).to_have_count(1)
    settle(tab)
    tab.get_by_role("button", name="Layer hidden_2").click()
    tab.get_by_role("option", name="hidden_1").click()
    expect(tab.get_by_role("application")).to_have_count(2)


def test_what_cannot_be_compared_is_said(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="dying", versus="dyeing")
    expect(tab.get_by_role("alert")).to_contain_text("There is no run 'dyeing'")
    tab.get_by_role("button", name="Back to the overview").click()
    expect(tab.locator(".headline")).to_be_visible()
    assert all("404" in problem for problem in watched.problems), watched.problems
    watched.problems.clear()
