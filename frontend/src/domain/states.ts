/** What a unit does: the twelve states, their wire codes, and the order in which a reader cares about them. */

export type Level = "ok" | "information" | "warning" | "alarm";

/** Index = wire code. The codes never change (`deadunits_tb/units.py`). */
export const STATE_LABELS = [
  "active",
  "sparse",
  "dormant",
  "stagnant",
  "dying",
  "constant",
  "saturated",
  "disconnected",
  "dead",
  "non_finite",
  "unknown",
  "frozen",
] as const;

export type StateLabel = (typeof STATE_LABELS)[number];

export const STATE_LEVELS: Readonly<Record<StateLabel, Level>> = {
  active: "ok",
  sparse: "information",
  dormant: "warning",
  stagnant: "warning",
  dying: "warning",
  constant: "alarm",
  saturated: "alarm",
  disconnected: "alarm",
  dead: "alarm",
  non_finite: "alarm",
  unknown: "information",
  frozen: "information",
};

/** Worst first: the order of legends, mix bars and stacked charts, so that alarms share one baseline. */
export const WORST_FIRST: readonly StateLabel[] = [
  "non_finite",
  "dead",
  "disconnected",
  "saturated",
  "constant",
  "dying",
  "stagnant",
  "dormant",
  "sparse",
  "unknown",
  "frozen",
  "active",
];

/** Shape of each state on a 12 x 12 grid, stroked: colour is never the only sign. */
export const STATE_GLYPHS: Readonly<Record<StateLabel, string>> = {
  active: "",
  sparse: "M6 6h.01",
  dormant: "M3 9h6",
  stagnant: "M3 4.5h6M3 7.5h6",
  dying: "M6 3v6M3.4 6.4L6 9l2.6-2.6",
  constant: "M2.5 6h7",
  saturated: "M2.5 3h7M6 9.5V5M3.9 7L6 4.9 8.1 7",
  disconnected: "M1.8 6h2.6M7.6 6h2.6",
  dead: "M3.4 3.4l5.2 5.2M8.6 3.4l-5.2 5.2",
  non_finite: "M6 2.4v4.4M6 9.4h.01",
  unknown: "M4.3 4.5a1.75 1.75 0 1 1 2.6 1.5c-.7.4-.9.7-.9 1.2M6 9.5h.01",
  frozen: "M6 2.5v7M3 4.2l6 3.6M9 4.2L3 7.8",
};

export type StateCounts = Readonly<Partial<Record<StateLabel, number>>>;

export function stateOf(code: number): StateLabel {
  return STATE_LABELS[code] ?? "unknown";
}

export function isState(label: string): label is StateLabel {
  return (STATE_LABELS as readonly string[]).includes(label);
}

export function isAlarm(label: StateLabel): boolean {
  return STATE_LEVELS[label] === "alarm";
}

export function isFlagged(label: StateLabel): boolean {
  return isAlarm(label) || STATE_LEVELS[label] === "warning";
}

export function totalOf(counts: StateCounts): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

/** States that hold at least one unit, worst first. */
export function present(counts: StateCounts): StateLabel[] {
  return WORST_FIRST.filter((label) => (counts[label] ?? 0) > 0);
}

/** Units in an alarm state, or on their way to `dead`. */
export function deadOrDying(counts: StateCounts): number {
  return (counts.dead ?? 0) + (counts.dying ?? 0);
}

/** Higher is worse; unknown and frozen rank lowest (`SEVERITY` in `deadunits_tb/units.py`). */
export const SEVERITY_RANK: Readonly<Record<StateLabel, number>> = {
  unknown: 0,
  frozen: 1,
  active: 2,
  sparse: 3,
  dormant: 4,
  stagnant: 5,
  dying: 6,
  constant: 7,
  saturated: 8,
  disconnected: 9,
  dead: 10,
  non_finite: 11,
};
