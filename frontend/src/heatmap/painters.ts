/** From a tile's bytes to pixels. A painter knows one kind of bytes; the heatmap knows only the interface. */
import { toNumber } from "../domain/bfloat16";
import { mixedTable, stateTable, type ValueScale, valueTable } from "../domain/lookup";
import type { Theme } from "../domain/palette";
import type { StateLabel } from "../domain/states";
import type { TileKey } from "./tiles";

/** Cells of one tile, as they came. */
export interface TileData {
  readonly key: TileKey;
  readonly rows: number;
  readonly records: number;
  readonly bytes: ArrayBuffer;
}

export interface TilePainter {
  /** Pictures of painters with the same id are the same. */
  readonly id: string;
  /** Fill `[rows * records]` pixels, row by row. */
  paint(tile: TileData, pixels: Uint32Array): void;
}

/** Bytes of one cell in a tile of this kind. */
export function cellBytes({ source, level }: TileKey): number {
  return source.what === "states" && level === 0 ? 1 : 2;
}

export function statePainter(theme: Theme, hidden: ReadonlySet<StateLabel>): TilePainter {
  const single = stateTable(theme, hidden);
  const mixed = mixedTable(theme, hidden);
  return {
    id: `states ${theme} ${[...hidden].sort().join()}`,
    paint: (tile, pixels) => {
      const cells = tile.rows * tile.records;
      const states = new Uint8Array(tile.bytes, 0, cells);
      if (tile.key.level === 0) {
        for (let cell = 0; cell < cells; cell++) pixels[cell] = single[states[cell] as number] as number;
        return;
      }
      const shares = new Uint8Array(tile.bytes, cells, cells);
      for (let cell = 0; cell < cells; cell++) {
        pixels[cell] = mixed[(states[cell] as number) * 256 + (shares[cell] as number)] as number;
      }
    },
  };
}

export function valuePainter(theme: Theme, scale: ValueScale): TilePainter {
  const table = valueTable(theme, scale);
  return {
    id: `values ${theme} ${scale.kind} ${scale.low} ${scale.high}`,
    paint: (tile, pixels) => {
      const values = new Uint16Array(tile.bytes);
      for (let cell = 0; cell < values.length; cell++) pixels[cell] = table[values[cell] as number] as number;
    },
  };
}

/** What one cell of a tile says. */
export interface Reading {
  /** State code; null in a tile of values. */
  readonly state: number | null;
  /** Share of units in alarm, above level 0. */
  readonly alarmed: number | null;
  /** Value; null in a tile of states, NaN where not recorded. */
  readonly value: number | null;
}

export function readCell(tile: TileData, row: number, record: number): Reading | null {
  if (row < 0 || row >= tile.rows || record < 0 || record >= tile.records) return null;
  const cell = row * tile.records + record;
  if (tile.key.source.what !== "states") {
    const bits = new Uint16Array(tile.bytes)[cell] as number;
    return { state: null, alarmed: null, value: toNumber(bits) };
  }
  const bytes = new Uint8Array(tile.bytes);
  const alarmed = tile.key.level === 0 ? null : (bytes[tile.rows * tile.records + cell] as number) / 255;
  return { state: bytes[cell] as number, alarmed, value: null };
}
