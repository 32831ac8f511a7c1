/** Pointer and wheel on the heatmap, as movements of the window. */
import { between, type Selection } from "./selection";
import { type Cell, cellAt, type Extent, isWhole, pan, type Size, type Viewport, zoom } from "./viewport";

export interface GestureTarget {
  readonly view: () => Viewport;
  readonly extent: () => Extent;
  readonly size: () => Size;
  moveTo(view: Viewport): void;
  hover(cell: Cell | null): void;
  select(selection: Selection | null): void;
  open(cell: Cell): void;
}

/** Movement below this many pixels is a click. */
const CLICK_SLACK = 4;
const WHEEL_SPEED = 0.0016;

/** Wheel zooms, drag moves, shift and drag selects, click opens. Returns how to stop listening. */
export function listen(element: HTMLElement, target: GestureTarget): () => void {
  let drag: { x: number; y: number; view: Viewport; from: Cell | null; selecting: boolean; moved: boolean } | null =
    null;

  const place = (event: MouseEvent): { x: number; y: number } => {
    const box = element.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const cell = (at: { x: number; y: number }): Cell | null =>
    cellAt(target.view(), target.extent(), target.size(), at.x, at.y);
  const inside = (at: { x: number; y: number }): { x: number; y: number } => {
    const { width, height } = target.size();
    return { x: Math.min(Math.max(at.x, 0), width - 1), y: Math.min(Math.max(at.y, 0), height - 1) };
  };

  const wheel = (event: WheelEvent): void => {
    const { width, height } = target.size();
    const at = place(event);
    const sideways = event.shiftKey ? event.deltaX || event.deltaY : event.deltaX;
    if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) {
      event.preventDefault();
      target.moveTo(pan(target.view(), target.extent(), sideways / width, 0));
      return;
    }
    // Whole already: further out there is nothing, so the page scrolls instead.
    if (event.deltaY > 0 && isWhole(target.view(), target.extent())) return;
    event.preventDefault();
    const factor = Math.exp(-event.deltaY * (event.deltaMode === 1 ? 16 : 1) * WHEEL_SPEED * (event.ctrlKey ? 4 : 1));
    const factors = { x: factor, y: event.altKey ? 1 : factor };
    target.moveTo(zoom(target.view(), target.extent(), factors, { x: at.x / width, y: at.y / height }));
  };

  const down = (event: PointerEvent): void => {
    if (event.button !== 0) return;
    const at = place(event);
    drag = { ...at, view: target.view(), from: cell(at), selecting: event.shiftKey, moved: false };
    element.setPointerCapture(event.pointerId);
  };
  const move = (event: PointerEvent): void => {
    const at = place(event);
    target.hover(cell(drag?.selecting ? inside(at) : at));
    if (!drag) return;
    drag.moved ||= Math.hypot(at.x - drag.x, at.y - drag.y) > CLICK_SLACK;
    if (!drag.moved) return;
    if (drag.selecting) {
      const to = cell(inside(at));
      if (drag.from && to) target.select(between(drag.from, to));
      return;
    }
    const { width, height } = target.size();
    target.moveTo(pan(drag.view, target.extent(), (drag.x - at.x) / width, (drag.y - at.y) / height));
  };
  const up = (event: PointerEvent): void => {
    const ended = drag;
    drag = null;
    if (!ended || ended.moved) return;
    if (ended.selecting) target.select(null);
    else if (ended.from && event.type === "pointerup") target.open(ended.from);
  };
  const leave = (): void => {
    if (!drag) target.hover(null);
  };

  element.addEventListener("wheel", wheel, { passive: false });
  element.addEventListener("pointerdown", down);
  element.addEventListener("pointermove", move);
  element.addEventListener("pointerup", up);
  element.addEventListener("pointercancel", up);
  element.addEventListener("pointerleave", leave);
  return () => {
    element.removeEventListener("wheel", wheel);
    element.removeEventListener("pointerdown", down);
    element.removeEventListener("pointermove", move);
    element.removeEventListener("pointerup", up);
    element.removeEventListener("pointercancel", up);
    element.removeEventListener("pointerleave", leave);
  };
}
