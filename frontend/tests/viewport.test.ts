import { describe, expect, it } from "vitest";
import { cellAt, clamp, isWhole, pan, reveal, type Viewport, whole, zoom } from "../src/heatmap/viewport";

const extent = { records: 1000, rows: 5000 };
const size = { width: 1000, height: 500 };

describe("viewport", () => {
  it("keeps the point under the pointer in place while zooming", () => {
    const at = { x: 0.3, y: 0.7 };
    const before = whole(extent);
    const after = zoom(before, extent, { x: 2, y: 2 }, at);
    expect(after.left + (after.right - after.left) * at.x).toBeCloseTo(300);
    expect(after.top + (after.bottom - after.top) * at.y).toBeCloseTo(3500);
    expect(after.right - after.left).toBeCloseTo(500);
  });

  it("comes back to where it was after zooming in and out", () => {
    const start: Viewport = { left: 400, right: 500, top: 1000, bottom: 1500 };
    const at = { x: 0.25, y: 0.5 };
    const back = zoom(zoom(start, extent, { x: 1.7, y: 1.7 }, at), extent, { x: 1 / 1.7, y: 1 / 1.7 }, at);
    expect(back.left).toBeCloseTo(start.left);
    expect(back.bottom).toBeCloseTo(start.bottom);
  });

  it("never leaves the data, nor shows less than a few cells", () => {
    const far = pan(whole(extent), extent, 10, -10);
    expect(far).toEqual(whole(extent));
    const close = zoom(whole(extent), extent, { x: 1e9, y: 1e9 }, { x: 1, y: 1 });
    expect(close.right - close.left).toBeCloseTo(4);
    expect(close.right).toBeCloseTo(extent.records);
    const out = zoom(close, extent, { x: 1e-9, y: 1e-9 }, { x: 0.5, y: 0.5 });
    expect(isWhole(out, extent)).toBe(true);
  });

  it("shows fewer units than the least zoom as they are", () => {
    const small = { records: 2, rows: 1 };
    expect(zoom(whole(small), small, { x: 5, y: 5 }, { x: 0.5, y: 0.5 })).toEqual(whole(small));
  });

  it("finds the cell under a point, and none outside", () => {
    const view: Viewport = { left: 100, right: 200, top: 0, bottom: 50 };
    expect(cellAt(view, extent, size, 505, 255)).toEqual({ record: 150, row: 25 });
    expect(cellAt(view, extent, size, -1, 10)).toBeNull();
    expect(cellAt(view, extent, size, 10, 500)).toBeNull();
    expect(cellAt(view, { records: 0, rows: 0 }, size, 10, 10)).toBeNull();
  });

  it("moves just enough to show a cell", () => {
    const view: Viewport = { left: 100, right: 200, top: 0, bottom: 50 };
    expect(reveal(view, extent, { record: 150, row: 20 })).toEqual(view);
    expect(reveal(view, extent, { record: 210, row: 20 })).toEqual({ left: 111, right: 211, top: 0, bottom: 50 });
    expect(reveal(view, extent, { record: 150, row: 60 })).toEqual({ left: 100, right: 200, top: 11, bottom: 61 });
  });

  it("clamps a window larger than the data to the data", () => {
    expect(clamp({ left: -5, right: 2000, top: -1, bottom: 9000 }, extent)).toEqual(whole(extent));
  });
});
