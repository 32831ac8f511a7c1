/** What happens to units: deaths and returns, their words, their glyphs, and where they stand on the axis of steps. */
import type { EventsAnswer } from "../api/types";
import { counted } from "./format";
import type { Range, StepScale } from "./steps";

/** As the server calls them, deaths first. */
export const EVENT_KINDS = ["born_dead", "found_dead", "died", "recovered", "revived"] as const;

export type EventKind = (typeof EVENT_KINDS)[number];

export const EVENT_WORDS: Readonly<Record<EventKind, string>> = {
  born_dead: "born dead",
  found_dead: "dead since records begin",
  died: "died",
  recovered: "fired again by itself",
  revived: "revived with new weights",
};

/** Filled shapes on a 12 x 12 grid: deaths point down or nowhere, returns point up. */
export const EVENT_GLYPHS: Readonly<Record<EventKind, string>> = {
  born_dead: "M6 1L11 6L6 11L1 6Z",
  found_dead: "M6 1L11 6L6 11L1 6Z M6 4L4 6L6 8L8 6Z",
  died: "M1.2 2.2H10.8L6 10.8Z",
  recovered: "M6 1.2L10.8 9.8H1.2Z M6 4.8L4 8.4H8Z",
  revived: "M6 0.8L10.8 8H1.2Z M1.2 9.2H10.8V11.2H1.2Z",
};

export function isDeath(kind: EventKind): boolean {
  return kind === "born_dead" || kind === "found_dead" || kind === "died";
}

/** In records, where an event stands: in the record that saw it; a revival right behind the step it came after. */
export function positionOf(scale: StepScale, kind: EventKind, step: number): number {
  return scale.recordFrom(step) + (kind === "revived" ? 1 : 0.5);
}

export interface UnitEvent {
  readonly kind: EventKind;
  readonly step: number;
}

/** Events of each unit that has any, in order of steps. */
export function eventsByUnit(events: EventsAnswer): ReadonlyMap<number, readonly UnitEvent[]> {
  const found = new Map<number, UnitEvent[]>();
  events.unit.forEach((unit, index) => {
    const event = { kind: kindAt(events, index), step: events.step[index] as number };
    const known = found.get(unit);
    if (known) known.push(event);
    else found.set(unit, [event]);
  });
  return found;
}

export function kindAt(events: EventsAnswer, index: number): EventKind {
  return events.kinds[events.kind[index] as number] as EventKind;
}

/** `died at step 230, fired again by itself at step 410` */
export function eventText(events: readonly UnitEvent[], step: (value: number) => string): string {
  return events
    .map(({ kind, step: at }) =>
      kind === "born_dead" || kind === "found_dead" ? EVENT_WORDS[kind] : `${EVENT_WORDS[kind]} at step ${step(at)}`,
    )
    .join(", ");
}

/** How many of each kind: `80 deaths, 12 units born dead`. */
export function totalsText(events: EventsAnswer): string {
  const totals = EVENT_KINDS.map((kind) => ({
    kind,
    times: events.kind.filter((code) => events.kinds[code] === kind).length,
  })).filter(({ times }) => times > 0);
  if (totals.length === 0) return "no unit has died";
  return totals.map(({ kind, times }) => TOTALS[kind](times)).join(", ");
}

/** A unit may die and return more than once: what is counted are the times. */
const TOTALS: Readonly<Record<EventKind, (times: number) => string>> = {
  born_dead: (times) => `${counted(times, "unit")} born dead`,
  found_dead: (times) => `${counted(times, "unit")} dead since records begin`,
  died: (times) => counted(times, "death"),
  recovered: (times) => counted(times, "return"),
  revived: (times) => counted(times, "revival"),
};

export interface EventBar {
  /** In pixels from the left. */
  readonly left: number;
  readonly width: number;
  readonly deaths: number;
  readonly returns: number;
}

/** Events counted in columns of whole records, each at least `least` pixels wide. */
export function barsOf(
  events: EventsAnswer,
  scale: StepScale,
  range: Range,
  width: number,
  least = 3,
): readonly EventBar[] {
  const perRecord = width / (range.stop - range.start);
  const stride = Math.max(1, Math.ceil(least / perRecord));
  const first = Math.floor(range.start / stride);
  const columns = new Map<number, { deaths: number; returns: number }>();
  events.step.forEach((step, index) => {
    const column = Math.floor(scale.recordFrom(step) / stride);
    const counts = columns.get(column) ?? { deaths: 0, returns: 0 };
    if (isDeath(kindAt(events, index))) counts.deaths++;
    else counts.returns++;
    columns.set(column, counts);
  });
  return [...columns]
    .filter(([column]) => column >= first && column * stride < range.stop)
    .sort(([one], [other]) => one - other)
    .map(([column, counts]) => {
      const left = (column * stride - range.start) * perRecord;
      return { left, width: stride * perRecord, ...counts };
    });
}
