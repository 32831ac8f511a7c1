/** The vertical axis of a line chart: linear, or logarithmic with a place for exact zero. */

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
  const low = least(values);
  const high = most(values);
  const positive = values.filter((value) => value > 0);
  if (low >= 0 && positive.length > 0 && high / least(positive) > WIDE) {
    return logarithmic(least(positive), high, low === 0);
  }
  return linear(low, high);
}

/** Value as it is drawn: zeros and below have their own place on a logarithmic axis. */
export function onDomain(domain: Domain, value: number | null): number | null {
  if (value === null || !Number.isFinite(value)) return null;
  return domain.log && value <= 0 ? domain.zero : value;
}

function logarithmic(low: number, high: number, zeros: boolean): Domain {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const zero = zeros ? 10 ** (first - 1) : null;
  const stride = Math.max(1, Math.ceil((last - first) / MOST_POWERS));
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
  const stride = niceStride((high - floor) / 2);
  const ticks: number[] = [];
  for (let tick = Math.ceil(floor / stride - 1e-9) * stride; tick <= high * (1 + 1e-9) + 1e-300; tick += stride) {
    ticks.push(Math.abs(tick) < stride * 1e-6 ? 0 : tick);
  }
  const room = (high - floor) * 0.06;
  return { log: false, low: floor - room, high: high + room, zero: null, ticks };
}

function niceStride(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  const digit = [5, 2, 1].find((factor) => factor * power <= value * (1 + 1e-9)) ?? 1;
  return digit * power;
}

function least(values: readonly number[]): number {
  return values.reduce((found, value) => Math.min(found, value), Number.POSITIVE_INFINITY);
}

function most(values: readonly number[]): number {
  return values.reduce((found, value) => Math.max(found, value), Number.NEGATIVE_INFINITY);
}
