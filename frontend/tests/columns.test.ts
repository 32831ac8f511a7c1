/** Two runs on one axis: each column of either shows what held at that step. */
import { describe, expect, it } from "vitest";
import { jointScale } from "../src/domain/lookup";
import { StepScale } from "../src/domain/steps";
import { NO_RECORD, ontoColumns, recordsOn } from "../src/heatmap/columns";
import { readCell } from "../src/heatmap/painters";
import type { TileKey, TileSource } from "../src/heatmap/tiles";

const often = new StepScale([0, 5, 10, 15, 20, 25]);
const seldom = new StepScale([10, 20, 30]);
const axis = often.with(seldom);
const records = recordsOn(axis, seldom);

const source = { what: "states", units: 2, tileRows: 256, levels: 2 } as TileSource;
const key: TileKey = { source, level: 0, tile: 0 };

describe("a shared axis", () => {
  it("has the steps of both, once each", () => {
    expect(axis.steps).toEqual([0, 5, 10, 15, 20, 25, 30]);
    expect(often.with(new StepScale([...often.steps])).steps).toEqual(often.steps);
  });

  it("repeats a record until the next one, and has none before the first or after the last", () => {
    expect([...records]).toEqual([-1, -1, 0, 0, 1, 1, 2]);
    expect([...recordsOn(axis, often)]).toEqual([0, 1, 2, 3, 4, 5, -1]);
  });

  it("spreads states, worst states with their shares, and values", () => {
    const states = ontoColumns(key, new Uint8Array([1, 2, 3, 4, 5, 6]).buffer, records);
    const none = NO_RECORD;
    expect([...new Uint8Array(states)]).toEqual([none, none, 1, 1, 2, 2, 3, none, none, 4, 4, 5, 5, 6]);
    const mixed = ontoColumns({ ...key, level: 1 }, new Uint8Array([8, 0, 8, 255, 0, 64]).buffer, records);
    expect(mixed.byteLength).toBe(2 * axis.records);
    const tile = { key: { ...key, level: 1 }, rows: 1, records: axis.records, bytes: mixed };
    expect(readCell(tile, 0, 6)).toMatchObject({ state: 8, alarmed: 64 / 255 });
    const values = new Uint16Array([0x3f80, 0, 0x4000, 0, 0, 0x3f80]).buffer; // 1, 0, 2 and 0, 0, 1
    const spread = ontoColumns({ ...key, source: { ...source, what: "mean" } }, values, records);
    const cells = { key: { ...key, source: { ...source, what: "mean" } }, rows: 2, records: 7, bytes: spread };
    expect([0, 2, 3, 4, 6].map((record) => readCell(cells, 0, record)?.value)).toEqual([Number.NaN, 1, 1, 0, 2]);
  });

  it("leaves bytes alone that are no records, for the tile store to complain of", () => {
    const broken = new ArrayBuffer(7);
    expect(ontoColumns(key, broken, records)).toBe(broken);
  });

  it("has one scale of colours, logarithmic where both are", () => {
    const log = { kind: "log", low: 0.1, high: 1 } as const;
    expect(jointScale(log, { kind: "log", low: 0.01, high: 0.5 })).toEqual({ kind: "log", low: 0.01, high: 1 });
    expect(jointScale(log, { kind: "linear", low: -1, high: 0.5 })).toEqual({ kind: "linear", low: -1, high: 1 });
  });
});
