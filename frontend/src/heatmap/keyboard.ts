/** Keys on the heatmap: W A S D and F move the window, arrows the focused cell, brackets jump between changes. */
import type { HeatmapModel } from "./model";
import { nextChange } from "./selection";
import { placeOf } from "./tiles";
import { type Cell, pan, reveal, whole, zoom } from "./viewport";

const STEP = 0.15;
const CLOSER = 1.35;
const CENTER = { x: 0.5, y: 0.5 };

/** What the keys do, for the help page. */
export const HEATMAP_KEYS: readonly (readonly [string, string])[] = [
  ["W S", "zoom in and out"],
  ["A D", "move left and right"],
  ["Shift W S", "move up and down"],
  ["F", "fit everything"],
  ["Arrows", "move the focused cell; with Shift ten at once"],
  ["Home End", "first and last record of the unit"],
  ["[ ]", "previous and next change of the unit's state"],
  ["Enter", "open the focused unit"],
];

/** Handles a key press; returns false where the key means nothing here. */
export function press(model: HeatmapModel, event: KeyboardEvent, open: (cell: Cell) => void): boolean {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  const [view, extent] = [model.view.peek(), model.extent.peek()];
  const focus = model.focus.peek();
  const leap = event.shiftKey ? 10 : 1;
  switch (event.key) {
    case "w":
    case "+":
      model.moveTo(zoom(view, extent, { x: CLOSER, y: CLOSER }, centerOf(model)));
      return true;
    case "s":
    case "-":
      model.moveTo(zoom(view, extent, { x: 1 / CLOSER, y: 1 / CLOSER }, centerOf(model)));
      return true;
    case "W":
      model.moveTo(pan(view, extent, 0, -STEP));
      return true;
    case "S":
      model.moveTo(pan(view, extent, 0, STEP));
      return true;
    case "a":
      model.moveTo(pan(view, extent, -STEP, 0));
      return true;
    case "d":
      model.moveTo(pan(view, extent, STEP, 0));
      return true;
    case "f":
      model.moveTo(whole(extent));
      return true;
    case "ArrowLeft":
      return moveFocus(model, 0, -leap);
    case "ArrowRight":
      return moveFocus(model, 0, leap);
    case "ArrowUp":
      return moveFocus(model, -leap, 0);
    case "ArrowDown":
      return moveFocus(model, leap, 0);
    case "Home":
      return moveFocus(model, 0, Number.NEGATIVE_INFINITY);
    case "End":
      return moveFocus(model, 0, Number.POSITIVE_INFINITY);
    case "[":
      void jump(model, -1);
      return true;
    case "]":
      void jump(model, 1);
      return true;
    case "Enter":
      if (focus) open(focus);
      return focus !== null;
    default:
      return false;
  }
}

/** Zoom keeps the focused cell, or else the pointer, in place. */
function centerOf(model: HeatmapModel): { x: number; y: number } {
  const [view, cell] = [model.view.peek(), model.hover.peek() ?? model.focus.peek()];
  if (!cell) return CENTER;
  const x = (cell.record + 0.5 - view.left) / (view.right - view.left);
  const y = (cell.row + 0.5 - view.top) / (view.bottom - view.top);
  return x >= 0 && x <= 1 && y >= 0 && y <= 1 ? { x, y } : CENTER;
}

function moveFocus(model: HeatmapModel, rows: number, records: number): boolean {
  const { rows: allRows, records: allRecords } = model.extent.peek();
  if (allRows === 0 || allRecords === 0) return true;
  const view = model.view.peek();
  const from = model.focus.peek() ?? {
    row: Math.max(0, Math.ceil(view.top)),
    record: Math.min(allRecords, Math.floor(view.right)) - 1,
  };
  const isFirst = model.focus.peek() === null;
  focusOn(model, {
    row: Math.min(Math.max(from.row + (isFirst ? 0 : rows), 0), allRows - 1),
    record: Math.min(Math.max(from.record + (isFirst ? 0 : records), 0), allRecords - 1),
  });
  return true;
}

export function focusOn(model: HeatmapModel, cell: Cell): void {
  model.focus.value = cell;
  const shown = reveal(model.view.peek(), model.extent.peek(), cell);
  const now = model.view.peek();
  if (shown.left !== now.left || shown.top !== now.top) model.moveTo(shown);
}

async function jump(model: HeatmapModel, direction: 1 | -1): Promise<void> {
  const [focus, source] = [model.focus.peek(), model.stateSource.peek()];
  if (!focus || !source) {
    moveFocus(model, 0, 0);
    return;
  }
  const { key, row } = placeOf(source, focus.row, 0);
  const tile = await model.tiles.ensure(key);
  if (!tile || model.focus.peek() !== focus) return;
  const record = nextChange(tile, row, focus.record, direction);
  if (record !== null) focusOn(model, { row: focus.row, record });
}
