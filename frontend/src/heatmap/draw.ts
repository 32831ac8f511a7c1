/** Draws a window of tiles. Each frame is a few `drawImage` calls of pictures made once. */
import { EVENT_GLYPHS, type EventKind, isDeath } from "../domain/events";
import { inkOn, LINE_COLORS, PALETTES, PAPER, type Theme } from "../domain/palette";
import { STATE_GLYPHS, STATE_LABELS, type StateLabel } from "../domain/states";
import type { TilePainter } from "./painters";
import type { TileStore } from "./tile_store";
import { parentOf, type TileKey, type TileSource, tilesIn, unitsPerRow } from "./tiles";
import { type Size, type Viewport, xOf, yOf } from "./viewport";

export interface Scene {
  readonly view: Viewport;
  readonly size: Size;
  readonly scale: number;
  readonly source: TileSource;
  readonly level: number;
  /** The source shown before, drawn where tiles of the present one are still on their way. */
  readonly before: TileSource | null;
  readonly painter: TilePainter;
}

/** Cells at least this wide and high carry the glyph of their state. */
const GLYPH_CELL = 13;
/** Rows at least this high are parted by a hairline. */
const PARTED_ROW = 7;
/** Rows at least this high carry the signs of events, whose size has bounds of its own. */
const SIGNED_ROW = 4.5;
const [SMALLEST_SIGN, LARGEST_SIGN] = [6, 11];

/** Draws what is here and returns false where something is still missing. */
export function drawScene(context: CanvasRenderingContext2D, scene: Scene, tiles: TileStore): boolean {
  const { size, scale, source, view, level } = scene;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, size.width * scale, size.height * scale);
  let complete = true;
  for (const key of tilesIn(source, view, level)) {
    if (drawTile(context, scene, tiles, key)) continue;
    complete = false;
    if (drawFallback(context, scene, tiles, key)) continue;
    if (scene.before !== null) drawTile(context, scene, tiles, { ...key, source: scene.before });
  }
  return complete;
}

/** Device pixels between which a tile lies; snapped, so that neighbours neither overlap nor part. */
function spanOf(scene: Scene, key: TileKey): { readonly top: number; readonly bottom: number } {
  const units = key.source.tileRows * unitsPerRow(key.level);
  const y = (unit: number): number => Math.round(yOf(scene.view, scene.size, unit) * scene.scale);
  return { top: y(key.tile * units), bottom: y((key.tile + 1) * units) };
}

function drawTile(context: CanvasRenderingContext2D, scene: Scene, tiles: TileStore, key: TileKey): boolean {
  const picture = tiles.picture(key, scene.painter);
  if (!picture) return false;
  const { view, size, scale } = scene;
  const { top } = spanOf(scene, key);
  const rowHeight = (unitsPerRow(key.level) * size.height * scale) / (view.bottom - view.top);
  const left = Math.max(0, Math.floor(view.left));
  const right = Math.min(picture.width, Math.ceil(view.right));
  if (right <= left) return true;
  const x = Math.round(xOf(view, size, left) * scale);
  const width = Math.round(xOf(view, size, right) * scale) - x;
  const bottom = Math.round(
    yOf(view, size, key.tile * key.source.tileRows * unitsPerRow(key.level)) * scale + picture.height * rowHeight,
  );
  context.imageSmoothingEnabled = width < (right - left) * 0.9;
  context.drawImage(picture, left, 0, right - left, picture.height, x, top, width, bottom - top);
  return true;
}

/** A coarser picture of the same rows, for the moment. */
function drawFallback(context: CanvasRenderingContext2D, scene: Scene, tiles: TileStore, key: TileKey): boolean {
  for (let parent = parentOf(key); parent !== null; parent = parentOf(parent)) {
    if (!tiles.get(parent)) continue;
    const { top, bottom } = spanOf(scene, key);
    context.save();
    context.beginPath();
    context.rect(0, top, scene.size.width * scene.scale, bottom - top);
    context.clip();
    drawTile(context, scene, tiles, parent);
    context.restore();
    return true;
  }
  return false;
}

/** Hairlines between rows, and glyphs in cells, once they are large enough to carry them. */
export function drawDetail(
  context: CanvasRenderingContext2D,
  scene: Scene,
  tiles: TileStore,
  theme: Theme,
  hidden: ReadonlySet<StateLabel>,
): void {
  const { view, size, scale, source } = scene;
  const rowHeight = size.height / (view.bottom - view.top);
  const columnWidth = size.width / (view.right - view.left);
  if (rowHeight < PARTED_ROW) return;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.fillStyle = theme === "dark" ? "rgba(0,0,0,0.35)" : "rgba(255,255,255,0.55)";
  for (let row = Math.ceil(view.top); row < view.bottom; row++) {
    context.fillRect(0, Math.round(yOf(view, size, row) * scale) / scale, size.width, 1);
  }
  if (columnWidth < GLYPH_CELL || rowHeight < GLYPH_CELL) return;
  for (let record = Math.ceil(view.left); record < view.right; record++) {
    context.fillRect(Math.round(xOf(view, size, record) * scale) / scale, 0, 1, size.height);
  }
  if (source.what === "states") drawGlyphs(context, scene, tiles, theme, hidden);
}

function drawGlyphs(
  context: CanvasRenderingContext2D,
  scene: Scene,
  tiles: TileStore,
  theme: Theme,
  hidden: ReadonlySet<StateLabel>,
): void {
  const { view, size, source } = scene;
  const glyphs = STATE_LABELS.map((label) => ({
    path: hidden.has(label) || STATE_GLYPHS[label] === "" ? null : new Path2D(STATE_GLYPHS[label]),
    ink: inkOn(PALETTES[theme][label]),
  }));
  context.lineWidth = 1.5;
  context.lineCap = "round";
  const { a: scale } = context.getTransform();
  for (const key of tilesIn(source, view, 0)) {
    const tile = tiles.get(key);
    if (!tile) continue;
    const states = new Uint8Array(tile.bytes, 0, tile.rows * tile.records);
    const first = key.tile * source.tileRows;
    const lastRow = Math.min(first + tile.rows, Math.ceil(view.bottom));
    for (let row = Math.max(first, Math.floor(view.top)); row < lastRow; row++) {
      const y = yOf(view, size, row + 0.5) - 6;
      for (let record = Math.max(0, Math.floor(view.left)); record < Math.min(tile.records, view.right); record++) {
        const glyph = glyphs[states[(row - first) * tile.records + record] as number];
        if (!glyph?.path) continue;
        const x = xOf(view, size, record + 0.5) - 6;
        context.setTransform(scale, 0, 0, scale, x * scale, y * scale);
        context.strokeStyle = glyph.ink;
        context.stroke(glyph.path);
      }
    }
  }
  context.setTransform(scale, 0, 0, scale, 0, 0);
}

export interface EventMark {
  readonly row: number;
  /** In records. */
  readonly position: number;
  readonly kind: EventKind;
}

/** Signs of events over the cells, once rows are high enough: with a rim, so that they stand out on any colour. */
export function drawEvents(
  context: CanvasRenderingContext2D,
  scene: Scene,
  marks: readonly EventMark[],
  theme: Theme,
): void {
  const { view, size, scale } = scene;
  const rowHeight = size.height / (view.bottom - view.top);
  const side = Math.max(SMALLEST_SIGN, Math.min(LARGEST_SIGN, rowHeight * 0.85));
  context.lineJoin = "round";
  for (const { row, position, kind } of marks) {
    const center = Math.min(Math.max(xOf(view, size, position), side * 0.6), size.width - side * 0.6);
    const [x, y] = [center - side / 2, yOf(view, size, row + 0.5) - side / 2];
    const unit = (scale * side) / 12;
    const path = new Path2D(EVENT_GLYPHS[kind]);
    context.setTransform(unit, 0, 0, unit, x * scale, y * scale);
    context.strokeStyle = PAPER[theme];
    context.lineWidth = 4;
    context.stroke(path);
    context.fillStyle = isDeath(kind) ? LINE_COLORS[theme].alarm : LINE_COLORS[theme].unit;
    context.fill(path, "evenodd");
  }
}

/** Whether rows are high enough for signs. */
export function carriesEvents(view: Viewport, size: Size): boolean {
  return size.height / (view.bottom - view.top) >= SIGNED_ROW;
}
