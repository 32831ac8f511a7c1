import { describe, expect, it } from "vitest";
import type { Distribution } from "../src/api/types";
import { BAR, BAR_GAP, bandsOf, columnsOf, valueTicks } from "../src/charts/distribution";
import { domainOf, onDomain, placeOn, roundTicks } from "../src/charts/line_domain";
import { roundTop, stackAt } from "../src/charts/stack";
import { toNumber } from "../src/domain/bfloat16";
import { isDiverging, placeOf, valueTable } from "../src/domain/lookup";
import { StepScale } from "../src/domain/steps";

describe("stacked states", () => {
  const series = { active: [997, 0], dead: [1, 600], dying: [2, 400] };

  it("adds up to the whole, worst at the bottom", () => {
    expect(stackAt(series, 1, new Set(), 0)).toEqual([
      { label: "dead", from: 0, to: 0.6 },
      { label: "dying", from: 0.6, to: 1 },
    ]);
  });

  it("shows one dead unit of a thousand", () => {
    const [dead] = stackAt(series, 0, new Set(), 0.05);
    expect(dead).toEqual({ label: "dead", from: 0, to: 0.05 });
  });

  it("leaves hidden states out without enlarging the others", () => {
    expect(stackAt(series, 1, new Set(["dead"]), 0)).toEqual([{ label: "dying", from: 0, to: 0.4 }]);
    expect(stackAt({}, 0, new Set(), 0)).toEqual([]);
  });

  it("rounds the top of an axis up", () => {
    expect([0, 0.012, 0.27, 0.9].map(roundTop)).toEqual([0.01, 0.02, 0.3, 1]);
  });
});

describe("line domain", () => {
  it("reads wide ranges by powers of ten and gives zero a place", () => {
    const domain = domainOf([[0, 1e-6, 0.01, null]]);
    expect(domain.log).toBe(true);
    expect(domain.zero).not.toBeNull();
    expect(onDomain(domain, 0)).toBe(domain.zero);
    expect(placeOn(domain, domain.zero ?? 0)).toBeGreaterThan(0);
    expect(placeOn(domain, domain.zero ?? 0)).toBeLessThan(placeOn(domain, 1e-6));
    for (const tick of domain.ticks) expect(placeOn(domain, tick)).toBeLessThanOrEqual(1);
  });

  it("stays linear for narrow and for signed values", () => {
    expect(domainOf([[0.2, 0.9]]).log).toBe(false);
    expect(domainOf([[-1e-6, 5]]).log).toBe(false);
    expect(domainOf([[0, 0, 0]])).toMatchObject({ log: false, ticks: [0] });
    expect(domainOf([[null]])).toMatchObject({ low: 0, high: 1 });
  });

  it("makes round ticks with an exact zero", () => {
    expect(roundTicks(-1, 1, 2)).toEqual([-1, 0, 1]);
    expect(roundTicks(0, 0.93, 2).map((tick) => Number(tick.toFixed(9)))).toEqual([0, 0.2, 0.4, 0.6, 0.8]);
  });
});

describe("distribution", () => {
  const data: Distribution = {
    statistic: "gradient",
    scale: "log",
    steps: [0, 10, 30],
    edges: [1e-6, 1e-4, 1e-2],
    counts: [
      [1, 2],
      [3, 0],
      [0, 3],
    ],
    zeros: [0, 1, 0],
    non_finite: [0, 0, 0],
    below: [0, 0, 0],
    above: [0, 0, 0],
    quantiles: { p05: [], p50: [], p95: [] },
  };

  it("makes room for zeros and non-finite values only where there are any", () => {
    expect(bandsOf(data, 100)).toEqual({ top: 0, bottom: 100 - BAR - BAR_GAP, zeros: 100 - BAR, nonFinite: null });
    expect(bandsOf({ ...data, zeros: [0, 0, 0], non_finite: [1, 0, 0] }, 100)).toMatchObject({
      zeros: null,
      nonFinite: 0,
    });
  });

  it("reaches from each histogram to the next without a hole", () => {
    const scale = new StepScale([0, 5, 10, 20, 30, 40]);
    expect(columnsOf(data, scale)).toEqual([
      { index: 0, from: 0, to: 2 },
      { index: 1, from: 2, to: 4 },
      { index: 2, from: 4, to: 6 },
    ]);
  });

  it("labels powers of ten", () => {
    expect(valueTicks({ kind: "log", low: 1e-6, high: 1e-2 })).toHaveLength(3);
    expect(valueTicks({ kind: "linear", low: -1, high: 1 })).toContain(0);
  });
});

describe("values as colours", () => {
  it("decodes bfloat16 exactly", () => {
    expect([0x3f80, 0xbf80, 0x0000, 0x7f80, 0x3a83].map(toNumber)).toEqual([
      1,
      -1,
      0,
      Number.POSITIVE_INFINITY,
      0.00099945068359375,
    ]);
    expect(toNumber(0x7fc0)).toBeNaN();
  });

  it("places values on both kinds of scale", () => {
    expect(placeOf({ kind: "log", low: 1e-4, high: 1 }, 1e-2)).toBeCloseTo(0.5);
    expect(placeOf({ kind: "linear", low: 0, high: 4 }, 1)).toBe(0.25);
    expect(placeOf({ kind: "linear", low: 2, high: 2 }, 2)).toBe(0);
    expect(isDiverging({ kind: "linear", low: -1, high: 2 })).toBe(true);
  });

  it("keeps zero, the smallest value, NaN and Inf apart", () => {
    const table = valueTable("light", { kind: "log", low: 0.001, high: 10 });
    const [zero, small, nan, infinite] = [0x0000, 0x3a83, 0x7fc0, 0x7f80].map((bits) => table[bits]);
    expect(nan).toBe(0);
    expect(new Set([zero, small, nan, infinite]).size).toBe(4);
  });
});
