/** What heatmaps one above the other have in common: the steps, the window, and the cell that is looked at. */
import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { StepScale } from "../domain/steps";
import type { LayerScope } from "../state/layer_scope";
import type { Store } from "../state/store";
import type { Selection } from "./selection";
import type { Cell, Extent } from "./viewport";
import { createWindow, type LayerWindow } from "./window";

const ROW_HEIGHT = 22;
const LEAST_HEIGHT = 132;
/** Of the page, for all heatmaps together; each has so many pixels in any case. */
const [MOST_SHARE, MOST_HEIGHT] = [0.5, 300];

const NO_STEPS = new StepScale([]);

export interface Shared {
  readonly steps: ReadonlySignal<StepScale>;
  /** The larger layer's rows; of a smaller one the window shows the same part. */
  readonly extent: ReadonlySignal<Extent>;
  readonly window: LayerWindow;
  /** Height of each heatmap in pixels. */
  readonly height: ReadonlySignal<number>;
  readonly hover: Signal<Cell | null>;
  readonly focus: Signal<Cell | null>;
  readonly selection: Signal<Selection | null>;
  dispose(): void;
}

export function createShared(store: Store, scopes: readonly LayerScope[]): Shared {
  const answers = computed(() =>
    scopes.flatMap(({ layer }) => (layer.state.value.value === null ? [] : [layer.state.value.value])),
  );
  const steps = computed(() =>
    answers.value.map(({ steps }) => new StepScale(steps)).reduce((one, other) => one.with(other), NO_STEPS),
  );
  const extent = computed<Extent>(() => ({
    records: steps.value.records,
    rows: Math.max(0, ...answers.value.map(({ units }) => units)),
  }));
  const room = signal(window.innerHeight);
  const measure = (): void => {
    // Hidden tabs have no height: what comes back should look as it did.
    if (window.innerHeight > 0) room.value = window.innerHeight;
  };
  window.addEventListener("resize", measure);
  const shown = createWindow(store, extent, steps);
  return {
    steps,
    extent,
    window: shown,
    height: computed(() => heightFor(extent.value.rows, room.value, scopes.length)),
    ...cells(),
    dispose: () => {
      window.removeEventListener("resize", measure);
      shown.dispose();
    },
  };
}

/** Cells of its own for a heatmap whose rows are other units than those of its neighbour. */
export function apart(shared: Shared): Shared {
  return { ...shared, ...cells() };
}

function cells() {
  return {
    hover: signal<Cell | null>(null),
    focus: signal<Cell | null>(null),
    selection: signal<Selection | null>(null),
  };
}

/** High enough for a readable row each, as far as half the page allows. */
function heightFor(rows: number, room: number, heatmaps: number): number {
  const most = Math.max(MOST_HEIGHT, Math.round((room * MOST_SHARE) / heatmaps));
  return Math.min(Math.max(rows * ROW_HEIGHT, LEAST_HEIGHT), most);
}
