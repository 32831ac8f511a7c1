/**
 * Which tiles a window needs. Level `k` has one row for `4^k` units, so a million units are seven levels; tiles are
 * 256 rows by all records. Keys hold all that a tile depends on, so a tile never changes.
 */

import { type Like, likeText, thresholdText } from "../api/api";
import type { Order, ThresholdValues } from "../api/types";
import type { Viewport } from "./viewport";

/** The axis that a tile is spread over, where it has more steps than its run recorded. */
export interface Columns {
  /** Names the axis. */
  readonly id: string;
  /** `[axis.records]` record of the run at each step, -1 where it has none. */
  readonly records: Int32Array;
}

/** Everything but level and place: two windows on the same source share tiles. */
export interface TileSource {
  readonly run: string;
  readonly layer: string;
  readonly what: string;
  readonly order: Order;
  /** The layer whose order rows have, if not their own. */
  readonly like: Like | null;
  readonly columns: Columns | null;
  readonly thresholds: ThresholdValues;
  readonly version: string;
  readonly units: number;
  readonly records: number;
  readonly tileRows: number;
  readonly levels: number;
}

export interface TileKey {
  readonly source: TileSource;
  readonly level: number;
  readonly tile: number;
}

export function unitsPerRow(level: number): number {
  return 4 ** level;
}

/** Rows of a level. */
export function rowsAt(source: TileSource, level: number): number {
  return Math.ceil(source.units / unitsPerRow(level));
}

/** Rows of one tile; the last is shorter. */
export function rowsOf({ source, level, tile }: TileKey): number {
  return Math.min(source.tileRows, rowsAt(source, level) - tile * source.tileRows);
}

export function sourceId(source: TileSource): string {
  const { run, layer, what, order, like, thresholds, version, columns } = source;
  return [run, layer, what, order, likeText(like), thresholdText(thresholds), version, columns?.id].join("\n");
}

export function tileId(key: TileKey): string {
  return `${sourceId(key.source)}\n${key.level}\n${key.tile}`;
}

/** The finest level that still gives every row a pixel of its own, so that no unit is lost between pixels. */
export function levelFor(source: TileSource, view: Viewport, pixels: number): number {
  const unitsPerPixel = (view.bottom - view.top) / Math.max(1, pixels);
  const wanted = Math.max(0, Math.ceil(Math.log(unitsPerPixel) / Math.log(4) - 1e-9));
  return Math.min(wanted, source.levels - 1);
}

/** Tiles of a level that a window touches, with `margin` tiles beyond either end. */
export function tilesIn(source: TileSource, view: Viewport, level: number, margin = 0): TileKey[] {
  const units = source.tileRows * unitsPerRow(level);
  const last = Math.ceil(source.units / units) - 1;
  const from = Math.max(0, Math.floor(view.top / units) - margin);
  const to = Math.min(last, Math.ceil(view.bottom / units) - 1 + margin);
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => ({ source, level, tile: from + index }));
}

/** The tile one level up that covers this one; null at the top. */
export function parentOf({ source, level, tile }: TileKey): TileKey | null {
  return level + 1 < source.levels ? { source, level: level + 1, tile: Math.floor(tile / 4) } : null;
}

/** The tile and its row that hold a row of level 0. */
export function placeOf(
  source: TileSource,
  row: number,
  level: number,
): { readonly key: TileKey; readonly row: number } {
  const levelRow = Math.floor(row / unitsPerRow(level));
  const tile = Math.floor(levelRow / source.tileRows);
  return { key: { source, level, tile }, row: levelRow - tile * source.tileRows };
}
