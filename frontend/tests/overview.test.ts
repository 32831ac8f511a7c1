import { describe, expect, it } from "vitest";
import type { LayerLevel, LayerSummary } from "../src/api/types";
import { runSeries } from "../src/bar/step_range";
import type { StateCounts } from "../src/domain/states";
import { byReason } from "../src/overview/skipped";
import { filtered, sorted } from "../src/overview/sorting";
import { matching } from "../src/ui/chooser";

const layer = (
  name: string,
  order: number,
  level: LayerLevel,
  states: StateCounts,
  onset: number | null = null,
): LayerSummary => ({
  layer: name,
  order,
  kind: order === 0 ? "Conv2D" : "Dense",
  role: "hidden",
  units: 100,
  activation_function: "relu",
  states,
  level,
  onset_step: onset,
  cause: null,
  strip: {},
  events: [],
});

const layers = [
  layer("conv", 0, "ok", { active: 98, dead: 2 }, 50),
  layer("dense_10", 1, "warning", { active: 60, dying: 40 }, 300),
  layer("dense_2", 2, "alarm", { active: 70, dead: 30 }, 200),
  layer("dense_3", 3, "alarm", { active: 20, saturated: 80 }),
  layer("head", 4, "ok", { active: 100 }),
];
const names = (given: readonly LayerSummary[]): string[] => given.map((found) => found.layer);

describe("layers of the overview", () => {
  it("come worst first: by level, then by share in alarm", () => {
    expect(names(sorted(layers, "worst"))).toEqual(["dense_3", "dense_2", "dense_10", "conv", "head"]);
  });

  it("come in the order that was asked for, ties in the model's order", () => {
    expect(names(sorted([...layers].reverse(), "order"))).toEqual(names(layers));
    expect(names(sorted(layers, "name"))).toEqual(["conv", "dense_2", "dense_3", "dense_10", "head"]);
    expect(names(sorted(layers, "onset"))).toEqual(["conv", "dense_2", "dense_10", "dense_3", "head"]);
    expect(names(sorted(layers, "share"))).toEqual(["dense_10", "dense_2", "conv", "dense_3", "head"]);
    expect(names(sorted(layers, "units"))).toEqual(names(layers));
  });

  it("are found by every word, in name, kind or activation function", () => {
    expect(names(filtered(layers, "dense relu", false))).toEqual(["dense_10", "dense_2", "dense_3", "head"]);
    expect(names(filtered(layers, "CONV2d", false))).toEqual(["conv"]);
    expect(names(filtered(layers, "", true))).toEqual(["dense_10", "dense_2", "dense_3"]);
    expect(filtered(layers, "nothing", false)).toEqual([]);
  });
});

describe("the run as a whole", () => {
  it("adds up the strips of its layers", () => {
    expect(runSeries([{ active: [3, 2], dead: [0, 1] }, { active: [1, 1] }])).toEqual({ active: [4, 3], dead: [0, 1] });
  });
});

describe("skipped layers", () => {
  it("are told by reason, each layer once", () => {
    const skipped = Array.from({ length: 50 }, (_, at) => ({
      layer: `layer_${at}`,
      reason: at % 10 === 3 ? "not called in training" : "rows are not units",
    }));
    const groups = byReason(skipped);
    expect(groups.map(({ reason, layers }) => [reason, layers.length])).toEqual([
      ["rows are not units", 45],
      ["not called in training", 5],
    ]);
    expect(groups[1]?.layers).toEqual(["layer_3", "layer_13", "layer_23", "layer_33", "layer_43"]);
    expect(byReason([])).toEqual([]);
  });
});

describe("chooser", () => {
  it("finds choices by words, those that begin so first", () => {
    const choices = ["encoder/dense_1", "dense_1", "dense_2"].map((text) => ({ value: text, text }));
    expect(matching(choices, "dense 1").map(({ text }) => text)).toEqual(["dense_1", "encoder/dense_1"]);
    expect(matching(choices, "")).toHaveLength(3);
  });
});
