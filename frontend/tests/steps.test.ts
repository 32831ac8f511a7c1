import { describe, expect, it } from "vitest";
import { roundStride, StepScale } from "../src/domain/steps";

const uneven = new StepScale([0, 1, 2, 3, 10, 20, 30, 100]);

describe("step scale", () => {
  it("finds the record that a step belongs to", () => {
    expect([-1, 0, 3, 9, 10, 99, 100, 500].map((step) => uneven.recordOf(step))).toEqual([0, 0, 3, 3, 4, 6, 7, 7]);
  });

  it("turns steps into records and back", () => {
    expect(uneven.rangeOf([3, 20])).toEqual({ start: 3, stop: 6 });
    expect(uneven.stepsOf({ start: 3, stop: 6 })).toEqual([3, 20]);
    expect(uneven.stepsOf(uneven.full)).toBeNull();
    expect(uneven.rangeOf(null)).toEqual({ start: 0, stop: 8 });
    expect(uneven.rangeOf([1000, 2000])).toEqual({ start: 7, stop: 8 });
  });

  it("counts a record that is partly shown", () => {
    expect(uneven.stepsOf({ start: 2.5, stop: 4.2 })).toEqual([2, 10]);
  });

  it("puts round steps where they belong, never too close", () => {
    const even = new StepScale(Array.from({ length: 601 }, (_, step) => step));
    expect(even.ticks(even.full, 1000).map(({ step }) => step)).toEqual([
      0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 550, 600,
    ]);
    const ticks = uneven.ticks(uneven.full, 800);
    expect(ticks.every(({ step }) => step % roundStride(10) === 0)).toBe(true);
    for (const [index, tick] of ticks.entries()) {
      const next = ticks[index + 1];
      if (next) expect((next.position - tick.position) * 100).toBeGreaterThanOrEqual(56);
    }
  });

  it("names the end where only one round step fits", () => {
    const even = new StepScale(Array.from({ length: 450 }, (_, step) => step));
    expect(even.ticks(even.full, 130).map(({ step }) => step)).toEqual([0, 449]);
    expect(even.ticks(even.full, 40)).toHaveLength(1);
  });

  it("copes with nothing and with one record", () => {
    expect(new StepScale([]).ticks({ start: 0, stop: 1 }, 500)).toEqual([]);
    expect(new StepScale([7]).ticks({ start: 0, stop: 1 }, 500)).toEqual([{ position: 0.5, step: 7 }]);
    expect(new StepScale([]).rangeOf([3, 9])).toEqual({ start: 0, stop: 1 });
  });
});
