import { describe, expect, it } from "vitest";
import type { Glossary, ThresholdEntry } from "../src/api/types";
import {
  asPython,
  currentPreset,
  fromSlider,
  outOfReach,
  permitted,
  presetChanges,
  toSlider,
  withThreshold,
} from "../src/state/thresholds";

const entry = (name: string, value: number, changes: Partial<ThresholdEntry> = {}): ThresholdEntry => ({
  name,
  default: value,
  low: 0,
  high: 1,
  unit: "",
  meaning: "",
  source: "",
  acts: "judging",
  whole: false,
  ...changes,
});

const examples = entry("dead_examples", 3000, { low: 1, high: 2 ** 53, whole: true });
const share = entry("saturated_share", 0.95, { low: 0.01 });
const ratio = entry("stagnant_ratio", 1e-8);
const derivative = entry("saturated_derivative", 0.01, { acts: "writing" });
const glossary: Glossary = {
  states: [],
  statistics: [],
  thresholds: [examples, share, ratio, derivative],
  presets: {
    default: {},
    strict: { dead_examples: 30000 },
    sagemaker: { saturated_derivative: 1e-7, saturated_share: 0.5 },
  },
};
const written = { dead_examples: 3000, saturated_share: 0.9, stagnant_ratio: 1e-8, saturated_derivative: 0.01 };

describe("thresholds", () => {
  it("remembers only what differs from the writer's", () => {
    const changed = withThreshold({}, written, "dead_examples", 500);
    expect(changed).toEqual({ dead_examples: 500 });
    expect(withThreshold(changed, written, "dead_examples", 3000)).toEqual({});
  });

  it("brings a preset into force, defaults included, as far as judging can", () => {
    expect(presetChanges(glossary, "strict", written)).toEqual({ dead_examples: 30000, saturated_share: 0.95 });
    expect(presetChanges(glossary, "sagemaker", written)).toEqual({ saturated_share: 0.5 });
    expect(outOfReach(glossary, "sagemaker", written)).toEqual(["saturated_derivative"]);
    expect(outOfReach(glossary, "strict", written)).toEqual([]);
  });

  it("recognises the preset in force", () => {
    expect(currentPreset(glossary, written, presetChanges(glossary, "strict", written))).toBe("strict");
    expect(currentPreset(glossary, written, { dead_examples: 7 })).toBeNull();
  });

  it("permits only what may be", () => {
    expect(permitted(examples, 12.6)).toBe(13);
    expect(permitted(examples, -5)).toBe(1);
    expect(permitted(share, 3)).toBe(1);
  });

  it.each([examples, share, ratio])("slides to $name and back", (given) => {
    expect(fromSlider(given, toSlider(given, given.default))).toBeCloseTo(given.default, 12);
    expect(toSlider(given, given.low)).toBe(0);
    for (let place = 0; place < 1; place += 0.1) {
      expect(fromSlider(given, place + 0.1)).toBeGreaterThanOrEqual(fromSlider(given, place));
    }
  });

  it("says what to write in Python", () => {
    expect(asPython({ dead_examples: 500, dying_share: 0.02 })).toBe("Thresholds(dead_examples=500, dying_share=0.02)");
  });
});
