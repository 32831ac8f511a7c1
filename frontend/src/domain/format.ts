/** Numbers and names as people read them. */

const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** `65,536` */
export function count(value: number): string {
  return WHOLE.format(value);
}

/** `1 unit`, `12 units` */
export function counted(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** Long names are told apart by their ends: `experiments/2026…lr0.001_seed17`. */
export function shortened(name: string, most: number): string {
  if (name.length <= most) return name;
  const end = Math.ceil((most - 1) / 2);
  return `${name.slice(0, most - 1 - end)}…${name.slice(-end)}`;
}

/** A share as a percentage with sensible digits: `0 %`, `< 0.01 %`, `0.6 %`, `12 %`, `99.9 %`. */
export function percent(share: number): string {
  const value = share * 100;
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0\u00A0%";
  if (value < 0.01) return "<\u00A00.01\u00A0%";
  if (value > 99 && value < 100) return `${(Math.floor(value * 10) / 10).toFixed(1)}\u00A0%`;
  const shown = value < 10 ? value.toPrecision(2) : value.toFixed(1);
  return `${Number(shown)}\u00A0%`;
}

/** Three significant digits; powers of ten only where they are shorter. `null` reads as a dash. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "Inf" : "−Inf";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e9) return minus(WHOLE.format(value));
  if (size >= 1e6 || size < 1e-3) return minus(exponent(value));
  if (size >= 1000) return minus(WHOLE.format(value));
  return minus(String(Number(value.toPrecision(3))));
}

function exponent(value: number): string {
  const [mantissa = "0", power = "0"] = value.toExponential(2).split("e");
  return `${Number(mantissa)}e${power.replace("+", "")}`;
}

function minus(text: string): string {
  return text.replace("-", "−").replace("e−", "e-");
}

/** `learning_rate_too_high` to `Learning rate too high`. */
export function phrase(name: string): string {
  return sentence(name.replaceAll("_", " "));
}

/** Words that stand alone begin like a sentence. */
export function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Seconds of overhead: `0.7 s`, `12 min`. */
export function seconds(value: number): string {
  if (value < 0.1) return `${number(value * 1000)}\u00A0ms`;
  if (value < 120) return `${number(value)}\u00A0s`;
  return `${count(value / 60)}\u00A0min`;
}

/** One CSV line; cells that need quotes get them, and no cell can start a formula. */
export function csvLine(cells: readonly (string | number | boolean | null | undefined)[]): string {
  return cells.map((cell) => (typeof cell === "number" ? String(cell) : csvText(String(cell ?? "")))).join(",");
}

function csvText(text: string): string {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
