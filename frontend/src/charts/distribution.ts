/** Where the values of a layer's units lie at each step: a strip of histograms, drawn. Pure but for the canvas. */
import type { Distribution } from "../api/types";
import { pixel, placeOf, type ValueScale } from "../domain/lookup";
import { along, PALETTES, parseHex, type Rgb, SEQUENTIAL, type Theme, ZERO } from "../domain/palette";
import type { Range, StepScale } from "../domain/steps";
import { type Picture, paintPicture } from "../ui/picture";
import { roundTicks } from "./line_domain";

/** Height of the bars of exact zeros and of non-finite values, and what parts them from the rest. */
export const BAR = 12;
export const BAR_GAP = 3;

export interface Bands {
  /** Main area, in pixels from the top. */
  readonly top: number;
  readonly bottom: number;
  readonly zeros: number | null;
  readonly nonFinite: number | null;
}

/** Exact zeros below, non-finite values above, where there are any. */
export function bandsOf(data: Distribution, height: number): Bands {
  const zeros = data.zeros.some((units) => units > 0);
  const broken = data.non_finite.some((units) => units > 0);
  return {
    top: broken ? BAR + BAR_GAP : 0,
    bottom: zeros ? height - BAR - BAR_GAP : height,
    zeros: zeros ? height - BAR : null,
    nonFinite: broken ? 0 : null,
  };
}

export function scaleOf(data: Distribution): ValueScale {
  return { kind: data.scale, low: data.edges[0] ?? 0, high: data.edges.at(-1) ?? 1 };
}

/** Position of a value in the main area, 0 at its bottom. */
export function heightOf(scale: ValueScale, value: number): number {
  return placeOf(scale, value);
}

export interface Column {
  readonly index: number;
  readonly from: number;
  readonly to: number;
}

/** Each histogram reaches from its record to the next one that has a histogram. */
export function columnsOf(data: Distribution, steps: StepScale): Column[] {
  const starts = data.steps.map((step) => steps.recordOf(step));
  return starts.map((from, index) => ({ index, from, to: starts[index + 1] ?? Math.max(from + 1, steps.records) }));
}

/** What does not change while the window moves: one pixel per bin, and the colours of the bars. */
export interface DistributionPicture {
  readonly bins: Picture;
  readonly zeros: readonly string[];
  readonly nonFinite: readonly string[];
}

export function paintDistribution(data: Distribution, units: number, theme: Theme): DistributionPicture {
  const ramp = SEQUENTIAL[theme].map(parseHex);
  const [columns, rows] = [Math.max(1, data.counts.length), Math.max(1, data.edges.length - 1)];
  const bins = paintPicture(columns, rows, (pixels) => {
    data.counts.forEach((counts, column) => {
      counts.forEach((count, bin) => {
        if (count > 0) pixels[(rows - 1 - bin) * columns + column] = pixel(along(ramp, density(count, units)));
      });
    });
  });
  const shades = (counts: readonly number[], all: string): string[] =>
    counts.map((count) => (count === 0 ? "" : css(along([parseHex(ZERO[theme]), parseHex(all)], count / units))));
  const { dead, non_finite } = PALETTES[theme];
  return { bins, zeros: shades(data.zeros, dead), nonFinite: shades(data.non_finite, non_finite) };
}

export interface DistributionDrawing {
  readonly data: Distribution;
  readonly picture: DistributionPicture;
  readonly columns: readonly Column[];
  readonly range: Range;
  readonly width: number;
  readonly height: number;
}

export function drawDistribution(context: CanvasRenderingContext2D, drawing: DistributionDrawing): void {
  const { data, picture, columns, range, width, height } = drawing;
  const bands = bandsOf(data, height);
  const x = (position: number): number => Math.round(((position - range.start) / (range.stop - range.start)) * width);
  context.imageSmoothingEnabled = false;
  for (const { index, from, to } of columns) {
    if (to <= range.start || from >= range.stop) continue;
    const left = x(from);
    const across = Math.max(1, x(to) - left);
    context.drawImage(
      picture.bins,
      index,
      0,
      1,
      picture.bins.height,
      left,
      bands.top,
      across,
      bands.bottom - bands.top,
    );
    bar(context, left, across, bands.zeros, picture.zeros[index]);
    bar(context, left, across, bands.nonFinite, picture.nonFinite[index]);
  }
}

/** Root of the share, so that few units still show; from a sixth of the ramp on, so that one does. */
function density(count: number, units: number): number {
  return 0.16 + 0.84 * Math.min(1, Math.sqrt((count / units) * 2));
}

function bar(
  context: CanvasRenderingContext2D,
  left: number,
  across: number,
  top: number | null,
  color?: string,
): void {
  if (top === null || !color) return;
  context.fillStyle = color;
  context.fillRect(left, top, across, BAR);
}

function css([red, green, blue]: Rgb): string {
  return `rgb(${red},${green},${blue})`;
}

/** Draws a quantile as a step line; parts without a value are left open. */
export function drawQuantile(
  context: CanvasRenderingContext2D,
  drawing: DistributionDrawing,
  values: readonly (number | null)[],
): void {
  const { data, columns, range, width, height } = drawing;
  const [bands, scale] = [bandsOf(data, height), scaleOf(data)];
  let open = false;
  context.beginPath();
  for (const { index, from, to } of columns) {
    const value = values[index];
    if (value === null || value === undefined) {
      open = false;
      continue;
    }
    const zero = data.scale === "log" && value <= 0 && bands.zeros !== null;
    const y = zero ? bands.zeros + BAR / 2 : bands.bottom - (bands.bottom - bands.top) * heightOf(scale, value);
    const place = (position: number): number => ((position - range.start) / (range.stop - range.start)) * width;
    if (open) context.lineTo(place(from), y);
    else context.moveTo(place(from), y);
    context.lineTo(place(to), y);
    open = true;
  }
  context.stroke();
}

/** Round values for the axis: powers of ten on a log scale. */
export function valueTicks(scale: ValueScale, most = 4): number[] {
  if (scale.kind === "linear") return roundTicks(scale.low, scale.high, 3);
  const [low, high] = [Math.ceil(Math.log10(scale.low) - 1e-9), Math.floor(Math.log10(scale.high) + 1e-9)];
  const stride = Math.max(1, Math.ceil((high - low + 1) / most));
  const ticks: number[] = [];
  for (let power = high; power >= low; power -= stride) ticks.unshift(10 ** power);
  return ticks.length > 0 ? ticks : [scale.low, scale.high];
}
