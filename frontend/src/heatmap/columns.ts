/** Tiles on an axis with more steps than their own run recorded: each column repeats what held then. */
import type { StepScale } from "../domain/steps";
import { cellBytes } from "./painters";
import { rowsOf, type TileKey } from "./tiles";

/** State code of a cell where the run has no record: nothing is painted there. */
export const NO_RECORD = 255;
/** The same in a tile of values: a bfloat16 NaN. */
const NO_VALUE = 0x7fc0;

/** `[axis.records]` record of the run in force at each step of the axis; -1 before its first and after its last one. */
export function recordsOn(axis: StepScale, own: StepScale): Int32Array {
  const [first, last] = [own.steps[0] ?? Number.POSITIVE_INFINITY, own.steps.at(-1) ?? Number.NEGATIVE_INFINITY];
  return Int32Array.from(axis.steps, (step) => (step < first || step > last ? -1 : own.recordOf(step)));
}

/** The tile's bytes with the columns of the axis in place of its own. */
export function ontoColumns(key: TileKey, bytes: ArrayBuffer, records: Int32Array): ArrayBuffer {
  if (bytes.byteLength % (rowsOf(key) * cellBytes(key)) !== 0) return bytes; // broken: the tile store says so
  if (key.source.what !== "states") return spread(new Uint16Array(bytes), rowsOf(key), records, NO_VALUE);
  // Above level 0 a plane of shares in alarm follows that of the worst states.
  const planes = cellBytes(key);
  return spread(new Uint8Array(bytes), rowsOf(key) * planes, records, NO_RECORD);
}

function spread<T extends Uint8Array | Uint16Array>(
  cells: T,
  rows: number,
  records: Int32Array,
  none: number,
): ArrayBuffer {
  const [own, all] = [cells.length / rows, records.length];
  const found = new (cells.constructor as new (length: number) => T)(rows * all);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < all; column++) {
      const record = records[column] as number;
      found[row * all + column] = record < 0 || record >= own ? none : (cells[row * own + record] as number);
    }
  }
  return found.buffer as ArrayBuffer;
}
