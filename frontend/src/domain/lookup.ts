/** Look-up tables from stored values to pixels: painting a cell is one read, whatever the value means. */
import { allNumbers } from "./bfloat16";
import { along, DIVERGING, mix, PALETTES, PAPER, parseHex, type Rgb, SEQUENTIAL, type Theme, ZERO } from "./palette";
import { isAlarm, STATE_LABELS, type StateLabel } from "./states";

const TRANSPARENT = 0;

/** Little-endian RGBA word of an opaque colour, as ImageData stores it. */
export function pixel([red, green, blue]: Rgb): number {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** `[256]` pixel of each state code; hidden states show the paper. */
export function stateTable(theme: Theme, hidden: ReadonlySet<StateLabel>): Uint32Array {
  const table = new Uint32Array(256).fill(TRANSPARENT);
  STATE_LABELS.forEach((label, code) => {
    table[code] = pixel(parseHex(hidden.has(label) ? PAPER[theme] : PALETTES[theme][label]));
  });
  return table;
}

/**
 * `[states * 256]` pixel of a worst state and the share (0 to 255) of units in alarm, for rows of many units.
 * One unit in alarm already shows at a third of full strength, so that it never vanishes.
 */
export function mixedTable(theme: Theme, hidden: ReadonlySet<StateLabel>): Uint32Array {
  const table = new Uint32Array(STATE_LABELS.length * 256);
  const active = parseHex(PALETTES[theme].active);
  STATE_LABELS.forEach((label, code) => {
    const color = parseHex(hidden.has(label) ? PAPER[theme] : PALETTES[theme][label]);
    for (let share = 0; share < 256; share++) {
      const strength = isAlarm(label)
        ? 0.35 + (0.65 * share) / 255
        : label === "unknown" || label === "frozen"
          ? 1
          : 0.6;
      table[code * 256 + share] = pixel(hidden.has(label) ? color : mix(active, color, strength));
    }
  });
  return table;
}

export interface ValueScale {
  readonly kind: "linear" | "log";
  readonly low: number;
  readonly high: number;
}

/** One scale for the values of both: logarithmic where both are. */
export function jointScale(one: ValueScale, other: ValueScale): ValueScale {
  const kind = one.kind === "log" && other.kind === "log" ? "log" : "linear";
  return { kind, low: Math.min(one.low, other.low), high: Math.max(one.high, other.high) };
}

/** Place of a value in its scale, 0 to 1, clamped. */
export function placeOf(scale: ValueScale, value: number): number {
  const share =
    scale.kind === "log"
      ? Math.log(value / scale.low) / Math.log(scale.high / scale.low)
      : (value - scale.low) / (scale.high - scale.low);
  return Number.isFinite(share) ? Math.min(Math.max(share, 0), 1) : 0;
}

/** Whether colours should part at zero. */
export function isDiverging(scale: ValueScale): boolean {
  return scale.kind === "linear" && scale.low < 0 && scale.high > 0;
}

/** Colour of a value; exact zero has its own unless the scale runs through zero. */
export function valueColor(theme: Theme, scale: ValueScale, value: number): Rgb {
  if (!Number.isFinite(value)) return parseHex(PALETTES[theme].non_finite);
  if (isDiverging(scale)) {
    const reach = Math.max(-scale.low, scale.high);
    return along(DIVERGING[theme].map(parseHex), 0.5 + value / (2 * reach));
  }
  if (value === 0) return parseHex(ZERO[theme]);
  return along(SEQUENTIAL[theme].map(parseHex), placeOf(scale, value));
}

/** `[65536]` pixel of every bfloat16; NaN (not recorded) is transparent. */
export function valueTable(theme: Theme, scale: ValueScale): Uint32Array {
  const ramp = Array.from({ length: 256 }, (_, index) => {
    const stops = (isDiverging(scale) ? DIVERGING : SEQUENTIAL)[theme].map(parseHex);
    return pixel(along(stops, index / 255));
  });
  const zero = pixel(valueColor(theme, scale, 0));
  const infinite = pixel(parseHex(PALETTES[theme].non_finite));
  const reach = Math.max(-scale.low, scale.high);
  const numbers = allNumbers();
  const table = new Uint32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const value = numbers[bits] as number;
    if (Number.isNaN(value)) continue;
    if (value === 0) table[bits] = zero;
    else if (!Number.isFinite(value)) table[bits] = infinite;
    else {
      const place = isDiverging(scale) ? 0.5 + value / (2 * reach) : placeOf(scale, value);
      table[bits] = ramp[Math.round(Math.min(Math.max(place, 0), 1) * 255)] as number;
    }
  }
  return table;
}
