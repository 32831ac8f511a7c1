"""The tab in a real browser: what is on screen is what the log says."""

from __future__ import annotations

import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Frame, Locator, expect

import planted
from deadunits_tb import DeadUnitsWriter
from deadunits_tb.capture.recorder import Recorder
from deadunits_tb.run_record import RunInfo, RunRecord, Skipped
from deadunits_tb.units import LayerInfo
from event_files import simulated
from pixels import color, row_of, state_at
from stage import Serve, settle
from watched import Watched

HEADLINE = "12 of 112 units dead (10.7 %), 1 saturated at step 119"
DEAD_IN_HIDDEN_1 = "11 of 64 units dead (17.2 %)"


def layer_row(tab: Frame, layer: str) -> Locator:
    return tab.locator("tr.layer-row").filter(has=tab.get_by_role("button", name=layer, exact=True))


def open_threshold(tab: Frame, name: str, value: str) -> None:
    tab.get_by_role("button", name="Thresholds").click()
    box = tab.get_by_label(name, exact=True)
    box.fill(value)
    box.press("Enter")
    box.blur()


def heatmap_readout(tab: Frame) -> Locator:
    return tab.get_by_role("region", name="Units over steps").locator(".readout")


@pytest.mark.parametrize(
    "fast", ["true", pytest.param("false", marks=pytest.mark.slow)], ids=["rust data server", "python loader"]
)
def test_overview_shows_every_record_and_the_layers_worst_first(
    fast: str, serve: Serve, planted_log: pathlib.Path, watched: Watched
) -> None:
    tab = watched.tab(serve(planted_log, f"--load_fast={fast}"), run="dying")
    expect(tab.locator(".headline")).to_contain_text(HEADLINE)
    names = tab.locator("tr.layer-row th button")
    expect(names).to_have_text(["hidden_1", planted.HOSTILE, "hidden_2"])
    expect(layer_row(tab, "hidden_1")).to_contain_text("11")
    expect(layer_row(tab, "hidden_2")).to_contain_text("saturated")
    expect(tab.get_by_role("main")).to_contain_text(f"{planted.STEPS} of {planted.STEPS} written")


def test_the_heatmap_paints_each_unit_in_its_state(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="dying")
    tab.get_by_role("button", name="hidden_1", exact=True).click()
    expect(tab.locator(".lead")).to_contain_text(DEAD_IN_HIDDEN_1)
    assert state_at(tab, 0.99, row_of(3)) == "dead"
    for unit, state in ((0, "dead"), (9, "dead"), (10, "active"), (20, "dead"), (40, "active")):
        assert state_at(tab, 0.99, row_of(unit)) == state, unit
    assert state_at(tab, 0.1, row_of(3)) == "active"
    dying = (planted.DYING[3] + 5) / planted.STEPS
    assert state_at(tab, dying, row_of(3)) == "dying"


def test_hover_reads_the_cell_under_the_pointer(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="dying", layer="hidden_1")
    assert state_at(tab, 0.99, row_of(3)) == "dead"
    box = tab.locator(".heatmap").bounding_box()
    assert box is not None
    watched.page.mouse.move(box["x"] + 0.999 * box["width"], box["y"] + row_of(3) * box["height"])
    expect(heatmap_readout(tab)).to_contain_text(re.compile(r"unit 3\D*step 119\D*dead"))


def test_a_click_opens_the_unit_with_the_numbers_that_decided(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="dying", layer="hidden_1")
    assert state_at(tab, 0.99, row_of(3)) == "dead"
    box = tab.locator(".heatmap").bounding_box()
    assert box is not None
    watched.page.mouse.click(box["x"] + 0.99 * box["width"], box["y"] + row_of(3) * box["height"])
    drawer = tab.get_by_role("complementary", name="Unit 3 of layer hidden_1")
    expect(drawer).to_contain_text(f"since step {planted.DYING[3]}")
    expect(drawer).to_contain_text("did not fire on the last 21,504 examples", ignore_case=True)
    expect(drawer.locator(".certificate")).to_contain_text("silent so far")
    expect(drawer.locator(".certificate")).to_contain_text("ranges of its inputs were not recorded")
    expect(drawer.get_by_role("definition").first).to_contain_text(re.compile("21,504.*at least.*3,000"))
    for statistic in ("active_fraction", "gradient", "mean"):
        expect(drawer).to_contain_text(statistic)
    drawer.get_by_role("button", name="Next flagged").click()
    expect(tab.get_by_role("complementary", name="Unit 4 of layer hidden_1")).to_be_visible()
    watched.page.keyboard.press("Escape")
    expect(tab.locator(".drawer")).to_have_count(0)


def test_the_keyboard_alone_reaches_a_unit(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="dying", layer="hidden_1")
    assert state_at(tab, 0.99, row_of(3)) == "dead"
    heatmap = tab.get_by_role("application")
    heatmap.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown"):
        heatmap.press(key)
    readout = heatmap_readout(tab)
    expect(readout).to_contain_text(re.compile(r"unit \d+.*step \d+"))
    unit = re.findall(r"unit (\d+)", readout.inner_text())[0]
    expect(readout.locator("[aria-live]")).to_contain_text(f"unit {unit}", ignore_case=True)
    heatmap.press("Enter")
    expect(tab.get_by_role("complementary", name=f"Unit {unit} of layer hidden_1")).to_be_visible()


def test_thresholds_act_at_once_and_can_be_taken_back(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="dying", layer="hidden_1")
    expect(tab.locator(".lead")).to_contain_text(DEAD_IN_HIDDEN_1)
    expect(tab.locator(".verdict-note")).to_have_text("Verdicts as written by the run")
    # Only the unit that was silent from the first step on has not fired for 30,000 examples.
    open_threshold(tab, "dead_examples", "30000")
    expect(tab.locator(".verdict-note")).to_contain_text("Recomputed with 1 changed threshold")
    expect(tab.locator(".lead")).to_contain_text("1 of 64 units dead")
    assert state_at(tab, 0.99, row_of(20)) == "dead"
    assert state_at(tab, 0.99, row_of(3)) == "dying"
    tab.get_by_role("button", name="Back to the run's own").click()
    expect(tab.locator(".lead")).to_contain_text(DEAD_IN_HIDDEN_1)


def test_a_link_brings_everything_back(watched: Watched, planted_url: str) -> None:
    place: dict[str, Any] = {"run": "dying", "layer": "hidden_1", "unit": 4, "order": "death", "what": "statistic"}
    tab = watched.tab(planted_url, **place, statistic="gradient", thresholds="dead_examples:30000")
    for _ in range(2):
        expect(tab.get_by_role("complementary", name="Unit 4 of layer hidden_1")).to_contain_text("dying")
        expect(tab.get_by_role("combobox", name="Order")).to_have_value("death")
        expect(tab.get_by_role("combobox", name="Statistic")).to_have_value("gradient")
        expect(tab.locator(".verdict-note")).to_contain_text("Recomputed")
        watched.page.reload()
        tab = watched.frame()


def test_back_returns_to_the_overview(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="dying")
    expect(tab.locator(".headline")).to_be_visible()
    tab.get_by_role("button", name="hidden_1", exact=True).click()
    expect(tab.locator(".lead")).to_be_visible()
    assert "p.dead_units.layer=hidden_1" in watched.page.url
    watched.page.go_back()
    expect(tab.locator(".headline")).to_be_visible()


def test_dark_mode_follows_tensorboard(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="dying", layer="hidden_1")
    assert state_at(tab, 0.99, row_of(40)) == "active"
    light = color(tab, "--state-active")
    watched.page.get_by_role("button", name=re.compile("dark", re.IGNORECASE)).click()
    watched.page.get_by_role("menuitem", name=re.compile("^Dark")).click()
    expect(tab.locator("html")).to_have_attribute("data-theme", "dark")
    assert color(tab, "--state-active") != light
    assert state_at(tab, 0.99, row_of(40)) == "active"


def test_a_hostile_layer_name_stays_text(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="dying")
    tab.get_by_role("button", name=planted.HOSTILE, exact=True).click()
    expect(tab.get_by_role("heading", level=1)).to_contain_text(planted.HOSTILE)
    assert state_at(tab, 0.99, row_of(3, 16)) == "dead"
    assert tab.locator("script").count() == 1, "only TensorBoard's own"


def test_a_layer_that_does_not_exist_is_said_in_a_sentence(watched: Watched, planted_url: str) -> None:
    tab = watched.tab(planted_url, run="dying", layer="hidden_9")
    expect(tab.get_by_role("alert")).to_contain_text("hidden_9")
    tab.get_by_role("button", name="Back to the overview").click()
    expect(tab.locator(".headline")).to_be_visible()
    assert all("404" in problem for problem in watched.problems), watched.problems
    watched.problems.clear()


@pytest.mark.slow
def test_below_a_path_prefix(watched: Watched, serve: Serve, planted_log: pathlib.Path) -> None:
    tab = watched.tab(serve(planted_log, "--path_prefix=/teams/vision"), run="dying", layer="hidden_1")
    expect(tab.locator(".lead")).to_contain_text(DEAD_IN_HIDDEN_1)
    assert state_at(tab, 0.99, row_of(3)) == "dead"


@pytest.mark.slow
def test_what_is_missing_is_said(watched: Watched, serve: Serve, tmp_path: pathlib.Path) -> None:
    """Many layers that were skipped, an error of the monitor, and an earlier run in the same directory."""
    info = LayerInfo("hidden", "Dense", 0, 8, "relu")
    ((_, records),) = simulated(8, 3, name="hidden").items()
    skipped = (
        *(Skipped(f"table_{at}", "its rows are no units of a batch") for at in range(50)),
        Skipped("x", "<b>odd"),
    )
    for _ in range(2):
        recorder = Recorder(tmp_path / "run", RunInfo(layers=(info,)))
        for number, record in enumerate(records, start=1):
            said = RunRecord(record.window.step, record.window.wall_time, 8, 1, 1, records_written=number,
                             errors=("the tap failed",), skipped=skipped)  # fmt: skip
            recorder.write(said, [record], {info.name: info})
        recorder.close()
    tab = watched.tab(serve(tmp_path), run="run")
    quality = tab.get_by_role("region", name="Data quality")
    expect(quality).to_contain_text("Skipped layers51")
    expect(quality).to_contain_text("50 layers: its rows are no units of a batch")
    expect(quality).to_contain_text("x: <b>odd")
    expect(quality.get_by_text("table_0, table_1,")).to_be_hidden()
    quality.get_by_text("50 layers").click()
    expect(quality.get_by_text("table_0, table_1,")).to_be_visible()
    expect(quality).to_contain_text("the tap failed")
    expect(quality).to_contain_text("an earlier run in the same directory")
    expect(quality).to_contain_text("is hidden with its 3 records")


@pytest.mark.slow
def test_an_empty_log_directory_shows_the_code_that_fills_it(
    watched: Watched, serve: Serve, tmp_path: pathlib.Path
) -> None:
    tab = watched.tab(serve(tmp_path))
    expect(tab.get_by_role("main")).to_contain_text("from deadunits_tb.keras import DeadUnitsCallback")


@pytest.fixture
def growing(tmp_path: pathlib.Path) -> Iterator[DeadUnitsWriter]:
    with DeadUnitsWriter(tmp_path / "live") as writer:
        planted.write(writer, planted.RUNS["dying"], first_step=0, steps=45)
        writer.flush()
        yield writer


def test_a_growing_run_is_followed_without_losing_the_place(
    watched: Watched, serve: Serve, growing: DeadUnitsWriter, tmp_path: pathlib.Path
) -> None:
    tab = watched.tab(serve(tmp_path), run="live", layer="hidden_1", unit=9, order="death")
    drawer = tab.get_by_role("complementary", name="Unit 9 of layer hidden_1")
    expect(drawer.locator(".verdict-state")).to_contain_text("active")
    planted.write(growing, planted.RUNS["dying"], first_step=45, steps=planted.STEPS - 45)
    growing.flush()
    until = time.monotonic() + 30
    while "at step 119" not in tab.locator(".lead").inner_text() and time.monotonic() < until:
        # TensorBoard takes in what was written once a second; its button makes the page ask again.
        watched.page.locator(".reload-button").click()
        settle(tab)
    expect(tab.locator(".lead")).to_contain_text("at step 119")
    expect(drawer.locator(".verdict-state")).to_contain_text("dead")
    expect(tab.get_by_role("combobox", name="Order")).to_have_value("death")
