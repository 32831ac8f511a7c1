import { describe, expect, it } from "vitest";
import { parseHash } from "../src/host/tensorboard";
import { fromLink, isJourney, type Place, START, samePlace, toLink } from "../src/state/place";

const elsewhere: Place = {
  run: "mlp/a b",
  versus: "other run",
  pair: "block/dense_2",
  layer: "block/dense_1",
  unit: 12,
  what: "statistic",
  statistic: "gradient",
  order: "death",
  steps: [100, 2000],
  rows: [0, 63],
  thresholds: { dead_examples: 30000, dying_share: 0.005 },
  hidden: ["active", "unknown"],
  sort: "onset",
  attention: true,
  find: "dense",
  tables: ["heatmap", "counts"],
  panel: "thresholds",
};

describe("place", () => {
  it("survives its link", () => {
    expect(fromLink(toLink(elsewhere))).toEqual(elsewhere);
    expect(fromLink({})).toEqual(START);
  });

  it("says nothing of what is as at the start", () => {
    expect(toLink(START)).toEqual({});
  });

  it("leaves what it does not understand", () => {
    const odd = {
      unit: "-3",
      layer: "dense",
      steps: "9-3",
      rows: "a-b",
      order: "random",
      hidden: "dead,purple",
      thresholds: "dead_examples:x,dying_share:0.5,:4",
      sort: "nothing",
      panel: "cellar",
    };
    expect(fromLink(odd)).toEqual({ ...START, layer: "dense", hidden: ["dead"], thresholds: { dying_share: 0.5 } });
  });

  it("shows no unit without its layer", () => {
    expect(fromLink({ unit: "3" }).unit).toBeNull();
  });

  it("tells journeys from adjustments", () => {
    expect(isJourney(START, { ...START, layer: "dense" })).toBe(true);
    expect(isJourney(elsewhere, { ...elsewhere, unit: 13 })).toBe(true);
    expect(isJourney(elsewhere, { ...elsewhere, steps: null, hidden: [] })).toBe(false);
    expect(samePlace(elsewhere, { ...elsewhere, hidden: [...elsewhere.hidden] })).toBe(true);
  });
});

describe("address of the host", () => {
  it("reads our keys and no others", () => {
    const hash = "#dead_units&p.dead_units.run=mlp%2Fa%20b&p.dead_units.layer=%3Cb%3E&p.other.run=x&tagFilter=y";
    expect(parseHash(hash)).toEqual({ run: "mlp/a b", layer: "<b>" });
    expect(parseHash("")).toEqual({});
    expect(parseHash("#p.dead_units.run=%E0%A4%A")).toEqual({ run: "%E0%A4%A" });
  });
});
