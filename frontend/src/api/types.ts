/** What the backend answers (`docs/http_api.md`), field by field. */
import type { Certainty, CertaintyCounts } from "../domain/certainty";
import type { EventKind } from "../domain/events";
import type { Level, StateCounts, StateLabel } from "../domain/states";

export type Verdicts = "written" | "recomputed";
export type LayerLevel = "alarm" | "warning" | "ok";
export type Order = "index" | "death" | "severity" | "similarity";
export type ThresholdValues = Readonly<Record<string, number>>;
export type Series = readonly (number | null)[];

export interface RunEntry {
  readonly run: string;
  readonly first_step: number | null;
  readonly last_step: number | null;
  readonly records: number;
  readonly layers: number;
  readonly version: string;
}

export interface RunsAnswer {
  readonly runs: readonly RunEntry[];
  readonly notes: readonly string[];
}

export interface EventGroup {
  readonly kind: EventKind;
  readonly count: number;
  readonly units: number;
  readonly first_step: number;
  readonly middle_step: number;
  readonly last_step: number;
  readonly sentence: string;
}

export interface LayerSummary {
  readonly layer: string;
  readonly order: number;
  readonly kind: string;
  readonly role: string;
  readonly units: number;
  readonly activation_function: string | null;
  readonly states: StateCounts;
  readonly level: LayerLevel;
  readonly onset_step: number | null;
  readonly cause: string | null;
  readonly strip: Readonly<Partial<Record<StateLabel, readonly number[]>>>;
  readonly events: readonly EventGroup[];
}

export interface Revival {
  readonly step: number;
  readonly layer: string;
  readonly count: number;
  readonly policy: string;
  readonly later: readonly { readonly step: number; readonly alive: number; readonly of: number }[];
}

export interface Finding {
  readonly cause: string;
  readonly level: string;
  readonly layers: readonly string[];
  readonly step: number | null;
  readonly confidence: number | null;
  readonly evidence: readonly string[];
  readonly ruled_out: readonly string[];
  readonly remedies: readonly string[];
}

export interface Overview {
  readonly run: string;
  readonly version: string;
  readonly verdicts: Verdicts;
  readonly thresholds: ThresholdValues;
  readonly writer_thresholds: ThresholdValues;
  readonly framework: string;
  readonly optimizer: Readonly<Record<string, unknown>> | null;
  readonly every: number | null;
  readonly first_step: number;
  readonly last_step: number;
  readonly records: number;
  readonly records_written: number | null;
  readonly dropped: number | null;
  readonly statistics_interval: number | null;
  readonly overhead: number | null;
  readonly overhead_seconds: number | null;
  /** Share of the training time after the opening, and seconds of the opening; absent in logs of older servers. */
  readonly steady_overhead?: number | null;
  readonly opening_seconds?: number | null;
  readonly interval: number | null;
  readonly errors: readonly string[];
  readonly skipped: readonly { readonly layer: string; readonly reason: string }[];
  readonly notes: readonly string[];
  readonly headline: string;
  readonly totals: StateCounts;
  readonly steps: readonly number[];
  readonly loss: Series;
  readonly learning_rate: Series;
  readonly layers: readonly LayerSummary[];
  readonly findings: readonly Finding[];
  readonly revivals: readonly Revival[];
}

export interface LayerInfo {
  readonly name: string;
  readonly kind: string;
  readonly order: number;
  readonly units: number;
  readonly activation_function: string | null;
  readonly fan_in: number | null;
  readonly fan_out: number | null;
  readonly role: string;
  readonly framework: string;
  readonly witness: string;
  readonly tokens: boolean;
  readonly weight_delta: string;
}

export interface LayerAnswer {
  readonly run: string;
  readonly layer: string;
  readonly version: string;
  readonly verdicts: Verdicts;
  readonly info: LayerInfo;
  readonly thresholds: ThresholdValues;
  readonly units: number;
  readonly records: number;
  readonly steps: readonly number[];
  readonly counts: Readonly<Partial<Record<StateLabel, readonly number[]>>>;
  readonly states: StateCounts;
  readonly certainty?: CertaintyCounts;
  readonly level: LayerLevel;
  readonly statistics: readonly string[];
  readonly recorded: readonly boolean[];
  readonly orders: readonly Order[];
  readonly tile_rows: number;
  readonly levels: number;
}

/** Events of a layer's units as columns, in order of steps; `kind` is a place in `kinds`. */
export interface EventsAnswer {
  readonly total: number;
  readonly kinds: readonly EventKind[];
  readonly unit: readonly number[];
  readonly step: readonly number[];
  readonly kind: readonly number[];
}

export interface Distribution {
  readonly statistic: string;
  readonly scale: "linear" | "log";
  readonly steps: readonly number[];
  readonly edges: readonly number[];
  readonly counts: readonly (readonly number[])[];
  readonly zeros: readonly number[];
  readonly non_finite: readonly number[];
  readonly below: readonly number[];
  readonly above: readonly number[];
  readonly quantiles: Readonly<Record<"p05" | "p50" | "p95", Series>>;
}

export interface DecidingNumber {
  readonly name: string;
  readonly value: number | null;
  readonly comparison: string;
  readonly threshold: number | null;
  readonly threshold_name: string | null;
}

export interface Transition {
  readonly step: number;
  readonly from: StateLabel;
  readonly to: StateLabel;
}

export interface ThresholdLine {
  readonly threshold: string;
  readonly value: number;
}

/** How certain it is that a dead unit stays dead; null for all others, absent in answers of older servers. */
export interface Certificate {
  readonly word: Certainty;
  readonly why: string;
  readonly margin: number | null;
  readonly could_move: readonly string[];
  readonly step: number | null;
}

export interface UnitAnswer {
  readonly run: string;
  readonly layer: string;
  readonly unit: number;
  readonly version: string;
  readonly verdicts: Verdicts;
  readonly state: StateLabel;
  readonly level: Level;
  readonly since_step: number | null;
  readonly born: boolean | null;
  readonly examples: number | null;
  readonly rate_upper_bound: number | null;
  readonly why: string;
  readonly certificate?: Certificate | null;
  readonly rule: string;
  readonly numbers: readonly DecidingNumber[];
  readonly steps: readonly number[];
  readonly states: readonly number[];
  readonly examples_since_active: Series;
  readonly last_active_step: Series;
  readonly statistics: Readonly<Record<string, Series>>;
  readonly layer_median: Readonly<Record<string, Series>>;
  readonly lines: Readonly<Record<string, readonly ThresholdLine[]>>;
  readonly transitions: readonly Transition[];
  readonly events: readonly { readonly kind: EventKind; readonly step: number }[];
  readonly previous_flagged: number | null;
  readonly next_flagged: number | null;
}

export interface UnitRow {
  readonly unit: number;
  readonly row: number;
  readonly state: StateLabel;
  readonly since_step: number | null;
  readonly examples: number | null;
  readonly rate_upper_bound: number | null;
  readonly born: boolean | null;
  readonly why: string;
  readonly certificate?: Certificate | null;
  readonly statistics: Readonly<Record<string, number | null>>;
}

export interface UnitsAnswer {
  readonly total: number;
  readonly matching: number;
  readonly units: readonly UnitRow[];
}

export interface StateEntry {
  readonly code: number;
  readonly label: StateLabel;
  readonly level: Level;
  readonly rule: string;
  readonly means: string;
  readonly not: string;
  readonly thresholds: readonly string[];
}

export interface StatisticEntry {
  readonly name: string;
  readonly signal: string;
  readonly meaning: string;
  readonly signed: boolean;
}

export interface ThresholdEntry {
  readonly name: string;
  readonly default: number;
  readonly low: number;
  readonly high: number;
  readonly unit: string;
  readonly meaning: string;
  readonly source: string;
  readonly acts: "judging" | "writing";
  readonly whole: boolean;
}

export interface Glossary {
  readonly states: readonly StateEntry[];
  readonly statistics: readonly StatisticEntry[];
  readonly thresholds: readonly ThresholdEntry[];
  readonly presets: Readonly<Record<string, ThresholdValues>>;
}
