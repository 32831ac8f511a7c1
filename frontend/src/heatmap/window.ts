/** The part of a layer on screen. It follows the place in the address, and the place follows it once it rests. */
import { effect, type ReadonlySignal, signal, untracked } from "@preact/signals";
import type { StepScale } from "../domain/steps";
import type { Place } from "../state/place";
import type { Store } from "../state/store";
import { clamp, type Extent, isWhole, type Viewport, whole } from "./viewport";

const SETTLE_MILLISECONDS = 250;

export interface LayerWindow {
  readonly view: ReadonlySignal<Viewport>;
  moveTo(view: Viewport): void;
  dispose(): void;
}

export function createWindow(
  store: Pick<Store, "place" | "go">,
  extent: ReadonlySignal<Extent>,
  steps: ReadonlySignal<StepScale>,
): LayerWindow {
  const view = signal<Viewport>(whole({ records: 1, rows: 1 }));
  /** What of the place the window already shows; it may show it more finely than the place can say. */
  let shown: Pick<Place, "steps" | "rows"> = { steps: null, rows: null };
  let rest: number | undefined;

  const follow = (): void => {
    const { steps: wantedSteps, rows: wantedRows } = store.place.value;
    const [all, scale] = [extent.value, steps.value];
    if (all.records === 0 || rest !== undefined) return;
    const now = view.peek();
    const range = scale.rangeOf(wantedSteps);
    const keepsSteps = wantedSteps !== null && wantedSteps === shown.steps;
    const keepsRows = wantedRows !== null && wantedRows === shown.rows;
    shown = { steps: wantedSteps, rows: wantedRows };
    const left = keepsSteps ? now.left : range.start;
    const right = keepsSteps ? now.right : range.stop;
    const top = keepsRows ? now.top : (wantedRows?.[0] ?? 0);
    const bottom = keepsRows ? now.bottom : wantedRows ? wantedRows[1] + 1 : all.rows;
    view.value = clamp({ left, right, top, bottom }, all);
  };
  const stopFollowing = effect(follow);

  const settle = (): void => {
    rest = undefined;
    const [now, all] = [view.peek(), extent.peek()];
    const allRows = now.top <= 0 && now.bottom >= all.rows;
    const rows = allRows ? null : ([Math.floor(now.top), Math.min(all.rows, Math.ceil(now.bottom)) - 1] as const);
    shown = { steps: steps.peek().stepsOf({ start: now.left, stop: now.right }), rows };
    store.go(shown);
    const { steps: keptSteps, rows: keptRows } = store.place.peek();
    shown = { steps: keptSteps, rows: keptRows };
    untracked(follow);
  };

  return {
    view,
    moveTo: (next) => {
      view.value = isWhole(next, extent.peek()) ? whole(extent.peek()) : clamp(next, extent.peek());
      window.clearTimeout(rest);
      rest = window.setTimeout(settle, SETTLE_MILLISECONDS);
    },
    dispose: () => {
      window.clearTimeout(rest);
      stopFollowing();
    },
  };
}
