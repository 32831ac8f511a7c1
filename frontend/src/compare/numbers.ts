/** Numbers of a comparison as people read them. */
import type { LayerComparison } from "../api/types";
import { number } from "../domain/format";

/** Differences that chance does not explain come first, then the least likely ones. */
export function worstDifferenceFirst(layers: readonly LayerComparison[]): LayerComparison[] {
  const rank = ({ chance }: LayerComparison): number => chance ?? 2;
  return [...layers].sort((one, other) => rank(one) - rank(other));
}

/** `likely`, `p = 0.3`, `p = 0.0004` */
export function chanceText(chance: number | null): string {
  if (chance === null) return "unknown";
  if (chance >= 0.5) return "likely";
  return chance < 1e-6 ? "p < 0.000001" : `p = ${number(Number(chance.toPrecision(2)))}`;
}

/** At most `columns` of `records`, evenly spaced, the first and the last among them. */
export function sampled(records: number, columns: number): number[] {
  return Array.from({ length: columns }, (_, column) => Math.round((column * (records - 1)) / (columns - 1)));
}

/** Whether there is nothing to compare: no unit is in trouble in either run. */
export function isUntouched({ first, second }: LayerComparison): boolean {
  return first.judged > 0 && second.judged > 0 && first.troubled === 0 && second.troubled === 0;
}
