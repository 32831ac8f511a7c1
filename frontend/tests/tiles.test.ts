import { describe, expect, it } from "vitest";
import { failure, type Result, success } from "../src/api/result";
import { readCell, statePainter, type TilePainter } from "../src/heatmap/painters";
import { nextChange } from "../src/heatmap/selection";
import { TileStore } from "../src/heatmap/tile_store";
import {
  levelFor,
  parentOf,
  placeOf,
  rowsAt,
  rowsOf,
  type TileKey,
  type TileSource,
  tileId,
  tilesIn,
} from "../src/heatmap/tiles";

const source: TileSource = {
  run: "mlp",
  layer: "dense",
  what: "states",
  order: "index",
  like: null,
  columns: null,
  thresholds: {},
  version: "3.2",
  units: 5000,
  records: 10,
  tileRows: 256,
  levels: 4,
};
const million: TileSource = { ...source, units: 1_000_000, levels: 7 };
const view = (top: number, bottom: number) => ({ left: 0, right: 10, top, bottom });

describe("tiles", () => {
  it("names everything that a tile depends on", () => {
    const key: TileKey = { source, level: 0, tile: 1 };
    const others: TileKey[] = [
      { ...key, tile: 2 },
      { ...key, level: 1 },
      { ...key, source: { ...source, version: "4.3" } },
      { ...key, source: { ...source, order: "death" } },
      { ...key, source: { ...source, like: { run: "other", layer: "dense", version: "1" } } },
      { ...key, source: { ...source, columns: { id: "1", records: new Int32Array(10) } } },
      { ...key, source: { ...source, what: "mean" } },
      { ...key, source: { ...source, thresholds: { dead_examples: 1 } } },
      { ...key, source: { ...source, layer: "dense_1" } },
      { ...key, source: { ...source, run: "other" } },
    ];
    expect(new Set([key, ...others].map(tileId)).size).toBe(11);
  });

  it("takes the finest level that gives each row a pixel", () => {
    expect(levelFor(source, view(0, 400), 400)).toBe(0);
    expect(levelFor(source, view(0, 401), 400)).toBe(1);
    expect(levelFor(source, view(0, 5000), 400)).toBe(2);
    expect(levelFor(million, view(0, 1_000_000), 500)).toBe(6);
    expect(levelFor({ ...source, levels: 1 }, view(0, 5000), 10)).toBe(0);
  });

  it("covers a window without holes, and no more", () => {
    expect(tilesIn(source, view(255, 257), 0).map(({ tile }) => tile)).toEqual([0, 1]);
    expect(tilesIn(source, view(256, 512), 0).map(({ tile }) => tile)).toEqual([1]);
    expect(tilesIn(source, view(0, 5000), 0)).toHaveLength(20);
    expect(tilesIn(million, view(0, 1_000_000), 6)).toHaveLength(1);
    expect(tilesIn(source, view(0, 256), 0, 1).map(({ tile }) => tile)).toEqual([0, 1]);
  });

  it("knows the rows of the last tile", () => {
    expect(rowsAt(source, 1)).toBe(1250);
    expect(rowsOf({ source, level: 0, tile: 19 })).toBe(5000 - 19 * 256);
    expect(rowsOf({ source, level: 2, tile: 1 })).toBe(313 - 256);
  });

  it("finds ancestors and the place of a row", () => {
    expect(parentOf({ source, level: 0, tile: 7 })).toEqual({ source, level: 1, tile: 1 });
    expect(parentOf({ source, level: 3, tile: 0 })).toBeNull();
    expect(placeOf(source, 700, 0)).toEqual({ key: { source, level: 0, tile: 2 }, row: 188 });
    expect(placeOf(source, 700, 1)).toEqual({ key: { source, level: 1, tile: 0 }, row: 175 });
  });
});

describe("tile store", () => {
  const small: TileSource = { ...source, units: 600, records: 4, levels: 2 };
  const keys = tilesIn(small, view(0, 600), 0);
  const bytes = (key: TileKey, fill: number): ArrayBuffer => new Uint8Array(rowsOf(key) * 4).fill(fill).buffer;
  const settled = (): Promise<void> => new Promise((done) => setTimeout(done));

  it("asks once for each wanted tile and keeps it", async () => {
    const asked: number[] = [];
    const store = new TileStore(
      async (key) => {
        asked.push(key.tile);
        return success(bytes(key, key.tile));
      },
      () => {},
    );
    store.want(keys);
    store.want(keys);
    await settled();
    store.want(keys);
    expect(asked).toEqual([0, 1, 2]);
    const tile = store.get(keys[1] as TileKey);
    expect(tile && readCell(tile, 3, 2)?.state).toBe(1);
    expect(tile && readCell(tile, 256, 0)).toBeNull();
  });

  it("drops what is wanted no more", async () => {
    const signals: AbortSignal[] = [];
    const store = new TileStore(
      (_, signal) => {
        signals.push(signal);
        return new Promise(() => {});
      },
      () => {},
    );
    store.want(keys);
    store.want(keys.slice(2));
    expect(signals.map((signal) => signal.aborted)).toEqual([true, true, false]);
  });

  it("accepts more records than were known, and refuses what is no tile", async () => {
    const answers: Result<ArrayBuffer>[] = [success(new ArrayBuffer(256 * 5)), success(new ArrayBuffer(255))];
    const store = new TileStore(
      async () => answers.shift() ?? failure("unreachable", "gone"),
      () => {},
    );
    store.want(keys);
    await settled();
    expect(store.get(keys[0] as TileKey)?.records).toBe(5);
    expect(store.get(keys[1] as TileKey)).toBeNull();
    expect(store.failure?.kind).toBe("broken");
  });

  it("shares one request between all who need a tile", async () => {
    let asked = 0;
    const store = new TileStore(
      async (key) => {
        asked++;
        return success(bytes(key, 8));
      },
      () => {},
    );
    const key = keys[0] as TileKey;
    const tiles = await Promise.all([store.ensure(key), store.ensure(key)]);
    expect(asked).toBe(1);
    expect(tiles[0]).toBe(tiles[1]);
  });
});

describe("painting", () => {
  const paint = (painter: TilePainter, what: TileKey, bytes: Uint8Array): Uint32Array => {
    const pixels = new Uint32Array(4);
    painter.paint({ key: what, rows: 2, records: 2, bytes: bytes.buffer as ArrayBuffer }, pixels);
    return pixels;
  };

  it("paints one colour per state and the paper where hidden", () => {
    const all = paint(statePainter("light", new Set()), { source, level: 0, tile: 0 }, Uint8Array.of(0, 8, 8, 4));
    expect(all[1]).toBe(all[2]);
    expect(all[0]).not.toBe(all[1]);
    const hidden = paint(
      statePainter("light", new Set(["dead"])),
      { source, level: 0, tile: 0 },
      Uint8Array.of(0, 8, 8, 4),
    );
    expect(hidden[1]).toBe(0xffffffff);
    expect(hidden[3]).toBe(all[3]);
  });

  it("never lets one dead unit of many vanish", () => {
    const mixed = Uint8Array.of(0, 8, 8, 0, 0, 1, 255, 0);
    const pixels = paint(statePainter("light", new Set()), { source, level: 1, tile: 0 }, mixed);
    const red = (pixel: number | undefined): number => (pixel ?? 0) & 255;
    expect(red(pixels[0]) - red(pixels[1])).toBeGreaterThan(20);
    expect(red(pixels[1])).toBeGreaterThan(red(pixels[2]));
  });
});

describe("changes of state", () => {
  const tile = {
    key: { source, level: 0, tile: 0 },
    rows: 2,
    records: 6,
    bytes: Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 8, 8).buffer,
  };

  it("finds the next and the previous one", () => {
    expect(nextChange(tile, 1, 0, 1)).toBe(2);
    expect(nextChange(tile, 1, 2, 1)).toBe(4);
    expect(nextChange(tile, 1, 5, -1)).toBe(4);
    expect(nextChange(tile, 1, 4, 1)).toBeNull();
    expect(nextChange(tile, 0, 0, 1)).toBeNull();
  });
});
