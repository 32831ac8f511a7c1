/** What a brushed rectangle of units and records holds. */
import { type StateLabel, stateOf } from "../domain/states";
import { NO_RECORD } from "./columns";
import type { TileData } from "./painters";
import type { TileStore } from "./tile_store";
import { type TileSource, tilesIn } from "./tiles";
import type { Cell } from "./viewport";

/** Both ends included. */
export interface Selection {
  readonly firstRow: number;
  readonly lastRow: number;
  readonly firstRecord: number;
  readonly lastRecord: number;
}

export type Tally = Readonly<Partial<Record<StateLabel, number>>>;

export interface SelectionCounts {
  readonly units: number;
  readonly atFirst: Tally;
  readonly atLast: Tally;
}

/** More units than this are not counted in the browser. */
export const MOST_SELECTED = 64 * 256;

export function between(first: Cell, second: Cell): Selection {
  return {
    firstRow: Math.min(first.row, second.row),
    lastRow: Math.max(first.row, second.row),
    firstRecord: Math.min(first.record, second.record),
    lastRecord: Math.max(first.record, second.record),
  };
}

/** States of the selected units at the first and the last selected record; null where tiles do not come. */
export async function countSelection(
  source: TileSource,
  tiles: TileStore,
  selection: Selection,
): Promise<SelectionCounts | null> {
  const units = selection.lastRow - selection.firstRow + 1;
  if (units > MOST_SELECTED) return null;
  const view = { left: 0, right: 1, top: selection.firstRow, bottom: selection.lastRow + 1 };
  const atFirst: Partial<Record<StateLabel, number>> = {};
  const atLast: Partial<Record<StateLabel, number>> = {};
  for (const key of tilesIn(source, view, 0)) {
    const tile = await tiles.ensure(key);
    if (!tile) return null;
    const start = key.tile * source.tileRows;
    const from = Math.max(0, selection.firstRow - start);
    const to = Math.min(tile.rows - 1, selection.lastRow - start);
    tally(tile, from, to, selection.firstRecord, atFirst);
    tally(tile, from, to, selection.lastRecord, atLast);
  }
  return { units, atFirst, atLast };
}

function tally(
  tile: TileData,
  from: number,
  to: number,
  record: number,
  into: Partial<Record<StateLabel, number>>,
): void {
  const states = new Uint8Array(tile.bytes);
  const column = Math.min(record, tile.records - 1);
  for (let row = from; row <= to; row++) {
    const code = states[row * tile.records + column] as number;
    if (code === NO_RECORD) continue;
    const label = stateOf(code);
    into[label] = (into[label] ?? 0) + 1;
  }
}

/** The next record in a direction at which a unit's state differs from the one before; null if there is none. */
export function nextChange(tile: TileData, row: number, record: number, direction: 1 | -1): number | null {
  const states = new Uint8Array(tile.bytes, row * tile.records, tile.records);
  for (let at = record + direction; at >= 1 && at < tile.records; at += direction) {
    if (states[at] !== states[at - 1]) return at;
  }
  return null;
}
