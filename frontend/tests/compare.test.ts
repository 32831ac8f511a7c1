import { describe, expect, it } from "vitest";
import type { LayerComparison } from "../src/api/comparison";
import { shareDomain } from "../src/charts/line_domain";
import { chanceText, sampled, worstDifferenceFirst } from "../src/domain/comparison";

describe("a comparison", () => {
  it("shows what chance does not explain first, and what cannot be told last", () => {
    const layers = [0.4, null, 1e-9, 1].map((chance, index) => ({ layer: String(index), chance }));
    expect(worstDifferenceFirst(layers as unknown as LayerComparison[]).map(({ layer }) => layer)).toEqual([
      "2",
      "0",
      "3",
      "1",
    ]);
  });

  it("puts chance into words", () => {
    expect([null, 1, 0.5, 0.312, 0.000412, 1e-9].map(chanceText)).toEqual([
      "unknown",
      "likely",
      "likely",
      "p = 0.31",
      "p = 4.1e-4",
      "p < 0.000001",
    ]);
  });

  it("samples the first and the last record, also of one", () => {
    expect(sampled(11, 6)).toEqual([0, 2, 4, 6, 8, 10]);
    expect(sampled(1, 3)).toEqual([0, 0, 0]);
  });

  it("draws shares from zero to a round one", () => {
    expect(shareDomain([[null, 0.32], [0.023]])).toEqual({
      log: false,
      low: 0,
      high: 0.4,
      zero: null,
      ticks: [0, 0.4],
    });
    expect(shareDomain([[null], []]).high).toBe(0.01);
  });
});
