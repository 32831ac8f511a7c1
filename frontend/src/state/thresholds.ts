/** Thresholds as changes to what the run was written with. */
import type { Glossary, ThresholdEntry, ThresholdValues } from "../api/types";

/** Values in force: the writer's, with the reader's changes. */
export function inForce(written: ThresholdValues, changes: ThresholdValues): ThresholdValues {
  return { ...written, ...changes };
}

/** Changes with one threshold set; a value equal to the writer's is no change. */
export function withThreshold(
  changes: ThresholdValues,
  written: ThresholdValues,
  name: string,
  value: number,
): ThresholdValues {
  const { [name]: _, ...others } = changes;
  return value === written[name] ? others : { ...others, [name]: value };
}

/** Changes that bring a preset into force: its values, and defaults for the rest, where judging can still change them. */
export function presetChanges(glossary: Glossary, preset: string, written: ThresholdValues): ThresholdValues {
  const values = glossary.presets[preset] ?? {};
  const changes: Record<string, number> = {};
  for (const entry of glossary.thresholds) {
    const wanted = values[entry.name] ?? entry.default;
    if (entry.acts === "judging" && wanted !== written[entry.name]) changes[entry.name] = wanted;
  }
  return changes;
}

/** Thresholds of a preset that only a new run could bring into force. */
export function outOfReach(glossary: Glossary, preset: string, written: ThresholdValues): string[] {
  const values = glossary.presets[preset] ?? {};
  return glossary.thresholds
    .filter((entry) => entry.acts === "writing")
    .filter((entry) => entry.name in values && values[entry.name] !== written[entry.name])
    .map((entry) => entry.name);
}

/** The preset whose changes are in force, if any. */
export function currentPreset(glossary: Glossary, written: ThresholdValues, changes: ThresholdValues): string | null {
  const same = (other: ThresholdValues): boolean =>
    Object.keys(other).length === Object.keys(changes).length &&
    Object.entries(other).every(([name, value]) => changes[name] === value);
  return Object.keys(glossary.presets).find((preset) => same(presetChanges(glossary, preset, written))) ?? null;
}

/** A value that the threshold may have: clamped, and whole where it counts. */
export function permitted(entry: ThresholdEntry, value: number): number {
  const clamped = Math.min(Math.max(value, entry.low), entry.high);
  return entry.whole ? Math.round(clamped) : clamped;
}

/** How far a slider reaches: around the default, where the bounds are too wide to be a scale. */
export function reach(entry: ThresholdEntry): { readonly low: number; readonly high: number; readonly log: boolean } {
  if (entry.whole) {
    return { low: Math.max(entry.low, 1), high: Math.min(entry.high, Math.max(entry.default * 100, 20)), log: true };
  }
  if (entry.default > 0 && (entry.default <= 0.05 || entry.high > entry.default * 100)) {
    return {
      low: Math.max(entry.low, entry.default / 1000),
      high: Math.min(entry.high, entry.default * 1000),
      log: true,
    };
  }
  return { low: entry.low, high: entry.high, log: false };
}

/** Slider position, 0 to 1, of a value. */
export function toSlider(entry: ThresholdEntry, value: number): number {
  const { low, high, log } = reach(entry);
  const share = log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  return Number.isFinite(share) ? Math.min(Math.max(share, 0), 1) : 0;
}

/** Value of a slider position, to two significant digits. */
export function fromSlider(entry: ThresholdEntry, share: number): number {
  const { low, high, log } = reach(entry);
  const value = log ? low * (high / low) ** share : low + (high - low) * share;
  return permitted(entry, Number(value.toPrecision(2)));
}

/** What to write in Python to get these verdicts in the next run. */
export function asPython(values: ThresholdValues): string {
  const given = Object.entries(values).map(([name, value]) => `${name}=${value}`);
  return `Thresholds(${given.join(", ")})`;
}
