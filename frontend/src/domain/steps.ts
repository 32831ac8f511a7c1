/**
 * The shared horizontal axis. One column per record, so that early, densely recorded steps stay visible; labels are
 * steps. Positions are in records: record `i` covers `[i, i + 1)`.
 */

export interface Tick {
  readonly position: number;
  readonly step: number;
}

export interface Range {
  readonly start: number;
  readonly stop: number;
}

export class StepScale {
  constructor(readonly steps: readonly number[]) {}

  /** An axis that two runs can share: the steps of both. The other itself where they are the same. */
  with(other: StepScale): StepScale {
    if (this.records === 0 || this.equals(other)) return other;
    return new StepScale([...new Set([...this.steps, ...other.steps])].sort((one, two) => one - two));
  }

  equals({ steps }: StepScale): boolean {
    return (
      steps === this.steps || (steps.length === this.records && steps.every((step, at) => step === this.steps[at]))
    );
  }

  get records(): number {
    return this.steps.length;
  }

  get full(): Range {
    return { start: 0, stop: Math.max(1, this.records) };
  }

  /** The record at a position, clamped to what exists. */
  recordAt(position: number): number {
    return Math.min(Math.max(Math.floor(position), 0), Math.max(0, this.records - 1));
  }

  stepAt(position: number): number {
    return this.steps[this.recordAt(position)] ?? 0;
  }

  /** The last record whose step is at most `step`; 0 before the first. */
  recordOf(step: number): number {
    let low = 0;
    let high = this.records;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.steps[middle] as number) <= step) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }

  /** The first record at or after a step: the one that saw what happened then; the last one beyond the end. */
  recordFrom(step: number): number {
    const before = this.recordOf(step);
    return (this.steps[before] ?? step) < step ? Math.min(before + 1, Math.max(0, this.records - 1)) : before;
  }

  /** Position of a step, between two records by proportion. Column starts stand for their record's step. */
  positionOf(step: number): number {
    const record = this.recordOf(step);
    const here = this.steps[record] ?? 0;
    const next = this.steps[record + 1];
    if (next === undefined || step <= here) return record;
    return record + (step - here) / (next - here);
  }

  /** Records that a range of steps covers, both ends included; everything for null. */
  rangeOf(steps: readonly [number, number] | null): Range {
    if (steps === null || this.records === 0) return this.full;
    const start = this.recordOf(steps[0]);
    return { start, stop: Math.max(start, this.recordOf(steps[1])) + 1 };
  }

  /** Steps of the records that a range touches; null where that is everything. */
  stepsOf(range: Range): readonly [number, number] | null {
    const first = this.recordAt(range.start + 1e-6);
    const last = this.recordAt(Math.ceil(range.stop - 1e-6) - 1);
    if (first === 0 && last === this.records - 1) return null;
    return [this.steps[first] ?? 0, this.steps[last] ?? 0];
  }

  /** Round steps inside a range, at least `gap` pixels apart. */
  ticks(range: Range, width: number, gap = 80): Tick[] {
    if (this.records === 0 || width <= 0) return [];
    const perRecord = width / (range.stop - range.start);
    const from = this.stepAt(range.start);
    const to = this.stepAt(range.stop - 1e-9);
    const room = Math.max(1, Math.floor(width / gap));
    const stride = roundStride((to - from) / room);
    const ticks: Tick[] = [];
    for (let step = Math.ceil(from / stride) * stride; step <= to; step += stride) {
      const position = this.positionOf(step) + 0.5;
      const previous = ticks.at(-1);
      if (position < range.start || position > range.stop) continue;
      if (previous !== undefined && (position - previous.position) * perRecord < gap * 0.7) continue;
      ticks.push({ position, step });
    }
    // A lone tick tells no scale: name the end as well, where there is room.
    const end = { position: Math.min(range.stop, this.records) - 0.5, step: to };
    const [only] = ticks;
    if (only && ticks.length === 1 && (end.position - only.position) * perRecord >= gap * 0.6) ticks.push(end);
    return ticks;
  }
}

/** The smallest of 1, 2, 5 times a power of ten that is at least `value` (never below 1: steps are whole). */
export function roundStride(value: number): number {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const digit = [1, 2, 5, 10].find((factor) => factor * power >= value * (1 - 1e-9)) ?? 10;
  return digit * power;
}
