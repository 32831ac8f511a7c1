/** What part of units x records is on screen, and how it moves. Pure: no canvas, no events. */

export interface Viewport {
  /** First and past-the-last record, fractions allowed. */
  readonly left: number;
  readonly right: number;
  /** First and past-the-last row. */
  readonly top: number;
  readonly bottom: number;
}

export interface Extent {
  readonly records: number;
  readonly rows: number;
}

export interface Size {
  readonly width: number;
  readonly height: number;
}

export interface Cell {
  readonly row: number;
  readonly record: number;
}

/** Closer than this many records or rows one cannot zoom. */
const CLOSEST = 4;

export function whole(extent: Extent): Viewport {
  return { left: 0, right: Math.max(1, extent.records), top: 0, bottom: Math.max(1, extent.rows) };
}

/** The same part of a layer that has `factor` times as many rows. */
export function stretched(view: Viewport, factor: number): Viewport {
  return factor === 1 ? view : { ...view, top: view.top * factor, bottom: view.bottom * factor };
}

export function isWhole(view: Viewport, extent: Extent): boolean {
  return view.left <= 0 && view.top <= 0 && view.right >= extent.records && view.bottom >= extent.rows;
}

/** Keeps the window inside the data without changing its size, as far as that goes. */
export function clamp(view: Viewport, extent: Extent): Viewport {
  const [left, right] = clampSpan(view.left, view.right, Math.max(1, extent.records));
  const [top, bottom] = clampSpan(view.top, view.bottom, Math.max(1, extent.rows));
  return { left, right, top, bottom };
}

function clampSpan(low: number, high: number, end: number): [number, number] {
  const size = Math.min(high - low, end);
  const start = Math.min(Math.max(low, 0), end - size);
  return [start, start + size];
}

/** Zoom by a factor (above 1: closer) around a point given as shares of the window. */
export function zoom(
  view: Viewport,
  extent: Extent,
  factor: { readonly x: number; readonly y: number },
  at: { readonly x: number; readonly y: number },
): Viewport {
  const [left, right] = zoomSpan(view.left, view.right, factor.x, at.x, Math.max(1, extent.records));
  const [top, bottom] = zoomSpan(view.top, view.bottom, factor.y, at.y, Math.max(1, extent.rows));
  return clamp({ left, right, top, bottom }, extent);
}

function zoomSpan(low: number, high: number, factor: number, at: number, end: number): [number, number] {
  const size = high - low;
  const wanted = Math.min(Math.max(size / factor, Math.min(CLOSEST, end)), end);
  const anchor = low + size * at;
  return [anchor - wanted * at, anchor + wanted * (1 - at)];
}

/** Move by shares of the window. */
export function pan(view: Viewport, extent: Extent, x: number, y: number): Viewport {
  const across = (view.right - view.left) * x;
  const down = (view.bottom - view.top) * y;
  return clamp(
    { left: view.left + across, right: view.right + across, top: view.top + down, bottom: view.bottom + down },
    extent,
  );
}

export function cellAt(view: Viewport, extent: Extent, size: Size, x: number, y: number): Cell | null {
  if (x < 0 || y < 0 || x >= size.width || y >= size.height || extent.rows === 0 || extent.records === 0) return null;
  const record = Math.floor(view.left + (x / size.width) * (view.right - view.left));
  const row = Math.floor(view.top + (y / size.height) * (view.bottom - view.top));
  return record < extent.records && row < extent.rows ? { record, row } : null;
}

export function xOf(view: Viewport, size: Size, position: number): number {
  return ((position - view.left) / (view.right - view.left)) * size.width;
}

export function yOf(view: Viewport, size: Size, position: number): number {
  return ((position - view.top) / (view.bottom - view.top)) * size.height;
}

/** The least movement that brings a cell into the window. */
export function reveal(view: Viewport, extent: Extent, cell: Cell): Viewport {
  const shift = (low: number, high: number, place: number): number => {
    if (place < low) return place - low;
    return place + 1 > high ? place + 1 - high : 0;
  };
  const across = shift(view.left, view.right, cell.record);
  const down = shift(view.top, view.bottom, cell.row);
  return clamp(
    { left: view.left + across, right: view.right + across, top: view.top + down, bottom: view.bottom + down },
    extent,
  );
}
