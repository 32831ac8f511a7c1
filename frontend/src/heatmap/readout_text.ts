/** What is under the pointer, exactly, in words. */
import { eventText } from "../domain/events";
import { count, number, percent } from "../domain/format";
import { SEVERITY_RANK, type StateLabel, stateOf } from "../domain/states";
import type { HeatmapModel } from "./model";
import { readCell } from "./painters";
import { placeOf, type TileSource, unitsPerRow } from "./tiles";
import type { Cell } from "./viewport";

export interface Readout {
  readonly unit: number | null;
  readonly step: number;
  /** Whether the run has a record there. */
  readonly recorded: boolean;
  readonly state: StateLabel | null;
  readonly statistic: string | null;
  readonly value: number | null;
  readonly group: string | null;
  /** What happened to the unit in that record. */
  readonly happened: string | null;
}

/** What is known of a cell from the tiles in memory. */
export function readoutOf(model: HeatmapModel, cell: Cell): Readout {
  const step = model.steps.value.stepAt(cell.record);
  const reading = (source: TileSource | null) => {
    if (!source) return null;
    const { key, row } = placeOf(source, cell.row, 0);
    const tile = model.tiles.get(key);
    return tile ? readCell(tile, row, cell.record) : null;
  };
  const recorded = model.covers(cell.record);
  const state = recorded ? (reading(model.stateSource.value)?.state ?? null) : null;
  const value = recorded ? (reading(model.valueSource.value)?.value ?? null) : null;
  return {
    unit: model.unitAt(cell.row),
    step,
    recorded,
    state: state === null ? null : stateOf(state),
    statistic: model.statistic.value,
    value,
    group: recorded ? groupText(model, cell) : null,
    happened: happenedIn(model, cell),
  };
}

function happenedIn(model: HeatmapModel, cell: Cell): string | null {
  const unit = model.unitAt(cell.row);
  const events = unit === null ? undefined : model.unitEvents.value.get(unit);
  const here = events?.filter(({ step }) => model.steps.value.recordFrom(step) === cell.record) ?? [];
  return here.length === 0 ? null : eventText(here, count);
}

/** Where one pixel stands for several units: what the group holds. */
function groupText(model: HeatmapModel, cell: Cell): string | null {
  const source = model.stateSource.value;
  if (!source) return null;
  const level = model.level.value;
  if (level === 0) return null;
  const { key, row } = placeOf(source, cell.row, level);
  const tile = model.tiles.get(key);
  const reading = tile ? readCell(tile, row, cell.record) : null;
  if (reading?.state === null || reading === null) return null;
  const worst = stateOf(reading.state);
  const size = Math.min(unitsPerRow(level), source.units);
  return `row of ${count(size)} units: worst ${worst}, ${percent(reading.alarmed ?? 0)} in alarm`;
}

/** Of two runs on one axis one may begin later, or end sooner. */
export const NO_RECORD_HERE = "no record of this run here";

/** One sentence for the live region. */
export function sentenceOf(readout: Readout): string {
  const parts = [
    readout.unit === null ? "unit not known yet" : `unit ${count(readout.unit)}`,
    `step ${count(readout.step)}`,
  ];
  if (!readout.recorded) parts.push(NO_RECORD_HERE);
  if (readout.state !== null) parts.push(readout.state);
  if (readout.statistic !== null && readout.value !== null) {
    parts.push(`${readout.statistic} ${Number.isNaN(readout.value) ? "not recorded" : number(readout.value)}`);
  }
  if (readout.happened !== null) parts.push(readout.happened);
  return parts.join(", ");
}

/** Fetches the exact cells around one, so that a readout can be exact. */
export async function askExact(model: HeatmapModel, cell: Cell): Promise<void> {
  const sources = [model.stateSource.peek(), model.valueSource.peek()];
  await Promise.all(sources.map((source) => source && model.tiles.ensure(placeOf(source, cell.row, 0).key)));
}

/** The row that a click means: of several units behind one pixel, the one that is worst off. */
export async function worstIn(source: TileSource, model: HeatmapModel, cell: Cell): Promise<number> {
  const level = model.level.peek();
  if (level === 0) return cell.row;
  const group = unitsPerRow(level);
  const first = Math.floor(cell.row / group) * group;
  let worst = cell.row;
  let rank = -1;
  for (let row = first; row < Math.min(first + group, source.units); row++) {
    const { key, row: tileRow } = placeOf(source, row, 0);
    const tile = await model.tiles.ensure(key);
    const state = tile ? readCell(tile, tileRow, cell.record)?.state : null;
    if (state === null || state === undefined) return cell.row;
    const found = SEVERITY_RANK[stateOf(state)];
    if (found > rank) {
      rank = found;
      worst = row;
    }
  }
  return worst;
}
