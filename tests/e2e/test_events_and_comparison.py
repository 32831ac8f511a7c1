"""Deaths in the heatmap, the drawer and the overview, and two runs side by side, in a real browser."""

from __future__ import annotations

import re

from playwright.sync_api import expect

import planted
from watched import Watched


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
    canvas = tab.locator(".heatmap canvas")
    expect(canvas).to_be_visible()
    place = [(50 + 0.5) / planted.STEPS, 3.5 / 16]
    read = """(canvas, [x, y]) => [...canvas.getContext("2d").getImageData(
              Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data.slice(0, 3)]"""
    wanted: str = tab.evaluate("() => getComputedStyle(document.documentElement).getPropertyValue('--line-alarm')")
    found = ""
    for _ in range(100):
        found = f"#{bytes(canvas.evaluate(read, place)).hex()}"
        if found == wanted.strip().lower():
            break
        watched.page.wait_for_timeout(100)
    assert found == wanted.strip().lower()
    heatmap = tab.get_by_role("application")
    heatmap.focus()
    watched.page.mouse.move(0, 0)
    box = heatmap.bounding_box()
    assert box is not None
    watched.page.mouse.move(box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"])
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


def test_what_cannot_be_compared_is_said(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="dying", versus="dyeing")
    expect(tab.get_by_role("alert")).to_contain_text("there is no run 'dyeing'")
    tab.get_by_role("button", name="Back to the overview").click()
    expect(tab.locator(".headline")).to_be_visible()
    assert all("404" in problem for problem in watched.problems), watched.problems
    watched.problems.clear()
