/** What `compare` answers, field by field (`docs/http_api.md`). */
import type { StateCounts } from "../domain/states";
import type { Series } from "./types";

export interface Difference {
  readonly what: string;
  readonly first: string;
  readonly second: string;
  readonly lever: string | null;
}

export interface Side {
  readonly units: number;
  readonly judged: number;
  readonly troubled: number;
  readonly states: StateCounts;
}

export interface LayerComparison {
  readonly layer: string;
  readonly other: string;
  readonly matched: "name" | "place";
  readonly kind: string;
  readonly role: string;
  readonly first: Side;
  readonly second: Side;
  readonly chance: number | null;
  readonly differs: boolean;
  readonly trouble: string;
  readonly steps: readonly number[];
  readonly shares: readonly [Series, Series];
}

export interface Comparison {
  readonly first: string;
  readonly second: string;
  readonly step: number;
  readonly verdict: "for" | "mixed" | "none" | "unknown";
  readonly sentence: string;
  readonly details: readonly string[];
  readonly differences: readonly Difference[];
  readonly layers: readonly LayerComparison[];
  readonly only_first: readonly string[];
  readonly only_second: readonly string[];
  readonly losses: readonly [number | null, number | null];
}
