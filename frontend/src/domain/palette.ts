/**
 * Colours of the states, light and dark. Darker is worse on light ground, brighter is worse on dark ground.
 *
 * Distances under three colour-vision deficiencies are tested in `tests/palette.test.ts`; change a value there first.
 */
import type { StateLabel } from "./states";

export type Theme = "light" | "dark";
export type Palette = Readonly<Record<StateLabel, string>>;

export const PALETTES: Readonly<Record<Theme, Palette>> = {
  light: {
    active: "#DDDDDD",
    sparse: "#DDCC77",
    dormant: "#74B0AC",
    stagnant: "#6F6816",
    dying: "#EE7733",
    constant: "#02461D",
    saturated: "#4477AA",
    disconnected: "#BA81E9",
    dead: "#882255",
    non_finite: "#111111",
    unknown: "#F7F7F7",
    frozen: "#AAC1E5",
  },
  dark: {
    active: "#43474B",
    sparse: "#826208",
    dormant: "#25ACC6",
    stagnant: "#818F01",
    dying: "#F3A14C",
    constant: "#80DDBE",
    saturated: "#5281D4",
    disconnected: "#C8B4FD",
    dead: "#E0507D",
    non_finite: "#FFFFFF",
    unknown: "#2A2C2F",
    frozen: "#445F7D",
  },
};

/** Ground that shows through where states are hidden. */
export const PAPER: Readonly<Record<Theme, string>> = { light: "#FFFFFF", dark: "#232528" };

/** Small to large. Exact zero is no part of it: zero has a colour of its own. */
export const SEQUENTIAL: Readonly<Record<Theme, readonly string[]>> = {
  light: ["#EDF2F3", "#BBD6DD", "#79AFC2", "#3B80A1", "#18507A", "#0A2748"],
  dark: ["#26323A", "#27536A", "#2A7A99", "#4FA5BF", "#97CEDC", "#E6F6F8"],
};

/** Negative, near zero, positive. */
export const DIVERGING: Readonly<Record<Theme, readonly string[]>> = {
  light: ["#7A3B0C", "#C77B33", "#EBC692", "#F3F2EF", "#A6CFDB", "#3F86A6", "#0F3F68"],
  dark: ["#F2C48A", "#C07E3A", "#6E4A2A", "#2B2D2F", "#27536A", "#4FA5BF", "#BCE3EC"],
};

export const ZERO: Readonly<Record<Theme, string>> = { light: "#E7C6D3", dark: "#5A2A40" };

/** Lines of charts. `threshold` is the accent of the page, `alarm` and `warning` are near `dead` and `dying`. */
export interface LineColors {
  readonly unit: string;
  readonly median: string;
  readonly threshold: string;
  readonly alarm: string;
  readonly warning: string;
  readonly quantile: string;
}

export type LineColor = keyof LineColors;

export const LINE_COLORS: Readonly<Record<Theme, LineColors>> = {
  light: {
    unit: "#18507A",
    median: "#858C93",
    threshold: "#B54100",
    alarm: "#882255",
    warning: "#D65F14",
    quantile: "#1F2328",
  },
  dark: {
    unit: "#6FC3DC",
    median: "#878E95",
    threshold: "#FF9D42",
    alarm: "#EE5582",
    warning: "#F3A14C",
    quantile: "#FFFFFF",
  },
};

export type Rgb = readonly [number, number, number];

export function parseHex(hex: string): Rgb {
  const value = Number.parseInt(hex.slice(1), 16);
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}

export function mix(from: Rgb, to: Rgb, share: number): Rgb {
  return [
    Math.round(from[0] + (to[0] - from[0]) * share),
    Math.round(from[1] + (to[1] - from[1]) * share),
    Math.round(from[2] + (to[2] - from[2]) * share),
  ];
}

/** Colour at `position` (0 to 1) of evenly spaced stops. */
export function along(stops: readonly Rgb[], position: number): Rgb {
  const last = stops.length - 1;
  const place = Math.min(Math.max(position, 0), 1) * last;
  const index = Math.min(Math.floor(place), last - 1);
  return mix(stops[index] as Rgb, stops[index + 1] as Rgb, place - index);
}

/** WCAG relative luminance. */
export function luminance([red, green, blue]: Rgb): number {
  const linear = (channel: number): number => {
    const value = channel / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
}

export function contrast(first: string, second: string): number {
  const lights = [luminance(parseHex(first)), luminance(parseHex(second))];
  return (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
}

/** The ink, near black or white, that reads on a colour. */
export function inkOn(hex: string): string {
  return contrast(hex, "#1B1B1B") >= contrast(hex, "#FFFFFF") ? "#1B1B1B" : "#FFFFFF";
}
