/** What is said of two heatmaps: what the comparison found, and how far rows can be held against one another. */
import { describe, expect, it } from "vitest";
import type { Comparison, LayerComparison } from "../src/api/comparison";
import type { LayerAnswer } from "../src/api/types";
import { pairCaveats, pairSentence } from "../src/compare/pair_words";
import { pairOf } from "../src/domain/comparison";

const side = (troubled: number, judged = 64) => ({ units: 64, judged, troubled, states: {} });
const layer = (name: string, change: Partial<LayerComparison>): LayerComparison => ({
  layer: name,
  other: name,
  matched: "name",
  kind: "Dense",
  role: "hidden",
  first: side(0),
  second: side(0),
  chance: 1,
  differs: false,
  trouble: "dead",
  steps: [0, 9],
  shares: [[], []],
  ...change,
});
const comparison = {
  first: "plain",
  second: "dropout",
  layers: [
    layer("untouched", {}),
    layer("worse", { first: side(41), second: side(3), chance: 0.0004, differs: true }),
    layer("placed", { other: "elsewhere", matched: "place", first: side(2), second: side(0, 0), chance: null }),
  ],
  only_first: ["alone"],
  only_second: ["new"],
} as unknown as Comparison;
const said = (name: string): string => {
  const pair = pairOf(comparison, name);
  return pair ? pairSentence(comparison, pair) : "";
};
const answer = (units: number, last: number) => ({ units, steps: [0, last] }) as unknown as LayerAnswer;

describe("a pair of layers", () => {
  it("is the named one in either run, and the least likely difference where none is named", () => {
    expect(pairOf(comparison, null)).toMatchObject({ first: "worse", second: "worse" });
    expect(pairOf(comparison, "gone")).toMatchObject({ first: "worse" });
    expect(pairOf(comparison, "elsewhere")).toMatchObject({ first: "placed", second: "elsewhere" });
    expect(pairOf(comparison, "new")).toEqual({ first: null, second: "new", compared: null });
  });

  it("is told in the words of the comparison", () => {
    expect(said("worse")).toBe(
      "worse, dead: in 'plain' 41 of 64 units, in 'dropout' 3 of 64 units; chance alone hardly makes such a " +
        "difference (p = 4e-4).",
    );
    expect(said("untouched")).toBe("No unit of untouched is dead in either run.");
    expect(said("placed")).toContain("in 'dropout' no unit can be judged yet; how likely chance");
    expect(said("alone")).toBe("'dropout' has no layer alone, and none in its place: only that of 'plain' is shown.");
    expect(said("new")).toContain("'plain' has no layer new");
  });

  it("says what cannot be held against one another", () => {
    const pair = pairOf(comparison, "placed");
    if (pair === null) throw new Error("no pair");
    const all = pairCaveats(comparison, pair, [answer(64, 9), answer(32, 5)], ["gradient", null]).join(" ");
    expect(all).toContain("elsewhere of 'dropout' has another name");
    expect(all).toContain("placed has 64 units in 'plain' and 32 in 'dropout'");
    expect(all).toContain("Hatched: the run has no records there.");
    expect(all).toContain("gradient was not recorded in 'dropout'.");
    const alike = pairCaveats(comparison, pair, [answer(64, 9), answer(64, 9)], null).join(" ");
    expect(alike).not.toContain("Hatched");
    expect(alike).toContain("the same number");
  });
});
