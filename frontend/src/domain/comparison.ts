/** Layers of a comparison, and its numbers as people read them. */
import type { Comparison, LayerComparison } from "../api/comparison";
import { number } from "./format";

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

/** A layer of one run and its counterpart in the other; null where there is none. */
export interface LayerPair {
  readonly first: string | null;
  readonly second: string | null;
  readonly compared: LayerComparison | null;
}

/** The pair that a name means, in whichever run it is a layer's; else the one whose difference is the least likely. */
export function pairOf(comparison: Comparison, wanted: string | null): LayerPair | null {
  const { layers, only_first, only_second } = comparison;
  const named = layers.find(({ layer }) => layer === wanted) ?? layers.find(({ other }) => other === wanted);
  if (wanted !== null && named === undefined) {
    if (only_first.includes(wanted)) return { first: wanted, second: null, compared: null };
    if (only_second.includes(wanted)) return { first: null, second: wanted, compared: null };
  }
  const found = named ?? worstDifferenceFirst(layers)[0];
  return found ? { first: found.layer, second: found.other, compared: found } : null;
}
