/** Where the reader is: everything on screen that a link must bring back, and its form in the address. */
import type { Order, ThresholdValues } from "../api/types";
import { isState, type StateLabel } from "../domain/states";

export type SortKey = "worst" | "order" | "name" | "units" | "share" | "onset";

export interface Place {
  readonly run: string | null;
  /** The run it is compared with; null for none. */
  readonly versus: string | null;
  /** The layer whose heatmaps the comparison shows; null for the one that differs most. */
  readonly pair: string | null;
  /** The layer that is open; null on the overview. */
  readonly layer: string | null;
  readonly unit: number | null;
  /** What the heatmap shows: `states` or the statistic below. */
  readonly what: "states" | "statistic";
  readonly statistic: string | null;
  readonly order: Order;
  /** First and last step on screen; null for all. */
  readonly steps: readonly [number, number] | null;
  /** First and last row on screen; null for all. */
  readonly rows: readonly [number, number] | null;
  /** Changes to the thresholds that the run was written with. */
  readonly thresholds: ThresholdValues;
  readonly hidden: readonly StateLabel[];
  readonly sort: SortKey;
  readonly attention: boolean;
  readonly find: string;
  /** Charts that are shown as tables. */
  readonly tables: readonly string[];
  readonly panel: "thresholds" | "help" | null;
}

export const START: Place = {
  run: null,
  versus: null,
  pair: null,
  layer: null,
  unit: null,
  what: "states",
  statistic: null,
  order: "index",
  steps: null,
  rows: null,
  thresholds: {},
  hidden: [],
  sort: "worst",
  attention: false,
  find: "",
  tables: [],
  panel: null,
};

const ORDERS: readonly Order[] = ["index", "death", "severity", "similarity"];
const SORTS: readonly SortKey[] = ["worst", "order", "name", "units", "share", "onset"];

export type Link = Readonly<Record<string, string>>;

/** Keys that are absent stand for the start; so links say only what was chosen. */
export function toLink(place: Place): Link {
  const link: Record<string, string> = {};
  if (place.run !== null) link.run = place.run;
  if (place.versus !== null) link.versus = place.versus;
  if (place.pair !== null) link.pair = place.pair;
  if (place.layer !== null) link.layer = place.layer;
  if (place.unit !== null) link.unit = String(place.unit);
  if (place.what !== START.what) link.what = place.what;
  if (place.statistic !== null) link.statistic = place.statistic;
  if (place.order !== START.order) link.order = place.order;
  if (place.steps !== null) link.steps = place.steps.join("-");
  if (place.rows !== null) link.rows = place.rows.join("-");
  const thresholds = Object.entries(place.thresholds).map(([name, value]) => `${name}:${value}`);
  if (thresholds.length > 0) link.thresholds = thresholds.sort().join(",");
  if (place.hidden.length > 0) link.hidden = place.hidden.join(",");
  if (place.sort !== START.sort) link.sort = place.sort;
  if (place.attention) link.attention = "1";
  if (place.find !== "") link.find = place.find;
  if (place.tables.length > 0) link.tables = place.tables.join(",");
  if (place.panel !== null) link.panel = place.panel;
  return link;
}

/** Reads a link of this or another version: what it does not understand it leaves at the start. */
export function fromLink(link: Link): Place {
  return {
    run: link.run ?? null,
    versus: link.versus ?? null,
    pair: link.pair ?? null,
    layer: link.layer ?? null,
    unit: link.layer === undefined ? null : whole(link.unit),
    what: link.what === "statistic" ? "statistic" : "states",
    statistic: link.statistic ?? null,
    order: ORDERS.find((order) => order === link.order) ?? START.order,
    steps: pair(link.steps),
    rows: pair(link.rows),
    thresholds: thresholdsOf(link.thresholds),
    hidden: list(link.hidden).filter(isState),
    sort: SORTS.find((sort) => sort === link.sort) ?? START.sort,
    attention: link.attention === "1",
    find: link.find ?? "",
    tables: list(link.tables),
    panel: link.panel === "thresholds" || link.panel === "help" ? link.panel : null,
  };
}

export function samePlace(first: Place, second: Place): boolean {
  return JSON.stringify(toLink(first)) === JSON.stringify(toLink(second));
}

/** Whether going there is a step that the browser's Back should undo, not a mere adjustment. */
export function isJourney(from: Place, to: Place): boolean {
  return from.run !== to.run || from.versus !== to.versus || from.layer !== to.layer || from.unit !== to.unit;
}

function whole(text: string | undefined): number | null {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : null;
}

function pair(text: string | undefined): readonly [number, number] | null {
  const found = /^(\d{1,15})-(\d{1,15})$/.exec(text ?? "");
  if (!found) return null;
  const [low, high] = [Number(found[1]), Number(found[2])];
  return low <= high ? [low, high] : null;
}

function list(text: string | undefined): string[] {
  return text ? text.split(",") : [];
}

function thresholdsOf(text: string | undefined): ThresholdValues {
  const found: Record<string, number> = {};
  for (const part of list(text)) {
    const [, name, value] = /^([a-z_]{1,60}):(.+)$/.exec(part) ?? [];
    if (name !== undefined && Number.isFinite(Number(value))) found[name] = Number(value);
  }
  return found;
}
