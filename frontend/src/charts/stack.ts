/** Stacked shares of states over records, on a canvas: strips of the overview and the counts below a heatmap. */
import { PALETTES, type Theme } from "../domain/palette";
import { isFlagged, type StateLabel, WORST_FIRST } from "../domain/states";
import type { Range } from "../domain/steps";

export type StateSeries = Readonly<Partial<Record<StateLabel, readonly number[]>>>;

export interface Layer {
  readonly label: StateLabel;
  /** Lower and upper edge, as shares of the height from the bottom, for one record. */
  readonly from: number;
  readonly to: number;
}

/**
 * Shares of one record, worst at the bottom, so that alarms share a baseline.
 *
 * @param least share that a flagged state has at least, if it holds any unit: one dead unit never vanishes.
 */
export function stackAt(series: StateSeries, record: number, hidden: ReadonlySet<StateLabel>, least: number): Layer[] {
  const found = WORST_FIRST.filter((label) => !hidden.has(label)).map((label) => ({
    label,
    count: series[label]?.[record] ?? 0,
  }));
  const total = WORST_FIRST.reduce((sum, label) => sum + (series[label]?.[record] ?? 0), 0);
  if (total === 0) return [];
  const layers: Layer[] = [];
  let from = 0;
  for (const { label, count } of found) {
    if (count === 0) continue;
    const share = isFlagged(label) ? Math.max(count / total, least) : count / total;
    const to = Math.min(1, from + share);
    layers.push({ label, from, to });
    from = to;
  }
  return layers;
}

export interface StackDrawing {
  readonly series: StateSeries;
  readonly range: Range;
  readonly records: number;
  readonly width: number;
  readonly height: number;
  readonly theme: Theme;
  readonly hidden: ReadonlySet<StateLabel>;
  /** Share of the units that fills the height; above 1 is cut off. */
  readonly top: number;
}

/** Draws in CSS pixels; the context is scaled already. */
export function drawStack(context: CanvasRenderingContext2D, drawing: StackDrawing): void {
  const { series, range, records, width, height, theme, hidden, top } = drawing;
  const palette = PALETTES[theme];
  const perRecord = width / (range.stop - range.start);
  const least = (1.5 / height) * top;
  const first = Math.max(0, Math.floor(range.start));
  const last = Math.min(records, Math.ceil(range.stop));
  // Several records to a pixel: draw each pixel's worst record.
  const stride = Math.max(1, Math.floor(1 / perRecord));
  for (let record = first; record < last; record += stride) {
    const shown = stride === 1 ? record : worstRecord(series, record, Math.min(last, record + stride));
    const left = Math.round((record - range.start) * perRecord);
    const right = Math.round((record + stride - range.start) * perRecord);
    for (const { label, from, to } of stackAt(series, shown, hidden, least)) {
      const y = height - (Math.min(to, top) / top) * height;
      const bottom = height - (Math.min(from, top) / top) * height;
      context.fillStyle = palette[label];
      context.fillRect(left, y, Math.max(1, right - left), bottom - y);
    }
  }
}

function worstRecord(series: StateSeries, from: number, to: number): number {
  let worst = from;
  let most = -1;
  for (let record = from; record < to; record++) {
    let flagged = 0;
    for (const label of WORST_FIRST) if (isFlagged(label)) flagged += series[label]?.[record] ?? 0;
    if (flagged > most) {
      most = flagged;
      worst = record;
    }
  }
  return worst;
}

/** A round share, at least `most`, for the top of an axis: 1 %, 2 %, 3 %, 5 % … 100 %. */
export function roundTop(most: number): number {
  return [0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1].find((top) => top >= most) ?? 1;
}
