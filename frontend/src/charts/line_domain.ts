/** The vertical axis of a line chart: linear, or logarithmic with a place for exact zero. */

import { roundTop } from "./stack";

export interface Domain {
  readonly log: boolean;
  readonly low: number;
  readonly high: number;
  /** Where exact zeros are drawn on a logarithmic axis. */
  readonly zero: number | null;
  readonly ticks: readonly number[];
}

/** Values that span more than this ratio are read by their powers of ten. */
const WIDE = 300;
const MOST_POWERS = 3;

export function domainOf(series: readonly (readonly (number | null)[])[]): Domain {
  const values = series.flat().filter((value): value is number => value !== null && Number.isFinite(value));
  if (values.length === 0) return { log: false, low: 0, high: 1, zero: null, ticks: [0, 1] };
  const low = smallest(values);
  const high = largest(values);
  const positive = values.filter((value) => value > 0);
  if (low >= 0 && positive.length > 0 && high / smallest(positive) > WIDE) {
    return logarithmic(smallest(positive), high, low === 0);
  }
  return linear(low, high);
}

/** Shares from zero to a round one. */
export function shareDomain(series: readonly (readonly (number | null)[])[]): Domain {
  const high = roundTop(Math.max(0, ...series.flat().map((value) => value ?? 0)));
  return { log: false, low: 0, high, zero: null, ticks: [0, high] };
}

/** Value as it is drawn: zeros and below have their own place on a logarithmic axis. */
export function onDomain(domain: Domain, value: number | null): number | null {
  if (value === null || !Number.isFinite(value)) return null;
  return domain.log && value <= 0 ? domain.zero : value;
}

/** Height of a value that is on the domain, 0 at the bottom. */
export function placeOn({ log, low, high }: Domain, value: number): number {
  return log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
}

function logarithmic(low: number, high: number, zeros: boolean): Domain {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const stride = Math.max(1, Math.ceil((last - first) / MOST_POWERS));
  const zero = zeros ? 10 ** (first - stride) : null;
  const ticks: number[] = [];
  for (let power = last; power >= first; power -= stride) ticks.unshift(10 ** power);
  if (zero !== null) ticks.unshift(zero);
  return { log: true, low: (zero ?? 10 ** first) * 0.7, high: 10 ** last * 1.3, zero, ticks };
}

function linear(low: number, high: number): Domain {
  if (low === high) {
    const reach = Math.abs(low) > 0 ? Math.abs(low) * 0.5 : 1;
    return { log: false, low: low - reach * (low === 0 ? 0.1 : 1), high: high + reach, zero: null, ticks: [low] };
  }
  const floor = low > 0 && low < 0.3 * high ? 0 : low;
  const ticks = roundTicks(floor, high, 2);
  const room = (high - floor) * 0.06;
  return { log: false, low: floor - room, high: high + room, zero: null, ticks };
}

/** Round values from `low` to `high`: `least` strides of 1, 2 or 5 times a power of ten, or a few more. */
export function roundTicks(low: number, high: number, least: number): number[] {
  const wanted = (high - low) / least;
  const power = 10 ** Math.floor(Math.log10(wanted));
  const stride = ([5, 2, 1].find((factor) => factor * power <= wanted * (1 + 1e-9)) ?? 1) * power;
  const [first, last] = [Math.ceil(low / stride - 1e-9), Math.floor(high / stride + 1e-9)];
  // Multiples of the stride by whole numbers: sums would drift, and zero must be zero.
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => (first + index) * stride);
}

function smallest(values: readonly number[]): number {
  return values.reduce((found, value) => Math.min(found, value), Number.POSITIVE_INFINITY);
}

function largest(values: readonly number[]): number {
  return values.reduce((found, value) => Math.max(found, value), Number.NEGATIVE_INFINITY);
}
