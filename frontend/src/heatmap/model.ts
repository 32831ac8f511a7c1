/** The open layer as the heatmap and its companions see it: one window, one focused cell, one set of tiles. */
import { computed, effect, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { TileQuery } from "../api/api";
import type { LayerAnswer } from "../api/types";
import { eventsByUnit, type UnitEvent } from "../domain/events";
import { StepScale } from "../domain/steps";
import type { Store } from "../state/store";
import type { Selection } from "./selection";
import { createSources, type Sources } from "./sources";
import { TileStore } from "./tile_store";
import { levelFor } from "./tiles";
import type { Cell, Extent, Viewport } from "./viewport";
import { createWindow } from "./window";

const ROW_HEIGHT = 22;
const LEAST_HEIGHT = 132;
const MOST_HEIGHT = 300;
const NO_EVENTS: ReadonlyMap<number, readonly UnitEvent[]> = new Map();

export interface HeatmapModel extends Sources {
  readonly layer: ReadonlySignal<LayerAnswer | null>;
  readonly steps: ReadonlySignal<StepScale>;
  readonly extent: ReadonlySignal<Extent>;
  readonly view: ReadonlySignal<Viewport>;
  /** Move the window; the address follows once it rests. */
  moveTo(view: Viewport): void;
  /** Height of the heatmap in pixels, and the level of detail that it can show. */
  readonly height: ReadonlySignal<number>;
  readonly level: ReadonlySignal<number>;
  readonly hover: Signal<Cell | null>;
  readonly focus: Signal<Cell | null>;
  readonly selection: Signal<Selection | null>;
  readonly tiles: TileStore;
  /** Changes whenever tiles came or went. */
  readonly arrivals: ReadonlySignal<number>;
  /** The unit in a row, and the reverse; null while the order is on its way. */
  unitAt(row: number): number | null;
  rowOf(unit: number): number | null;
  /** What happened to each unit, of those to which anything did. */
  readonly unitEvents: ReadonlySignal<ReadonlyMap<number, readonly UnitEvent[]>>;
  dispose(): void;
}

export function createHeatmapModel(store: Store): HeatmapModel {
  const layer = computed(() => store.layer.state.value.value);
  const steps = computed(() => new StepScale(layer.value?.steps ?? []));
  const extent = computed<Extent>(() => ({ records: layer.value?.records ?? 0, rows: layer.value?.units ?? 0 }));
  const sources = createSources(store);
  const layerWindow = createWindow(store, extent, steps);

  const room = signal(window.innerHeight);
  const measure = (): void => {
    // Hidden tabs have no height: what comes back should look as it did.
    if (window.innerHeight > 0) room.value = window.innerHeight;
  };
  window.addEventListener("resize", measure);
  const height = computed(() => heightFor(extent.value.rows, room.value));
  const level = computed(() => {
    const source = sources.stateSource.value;
    return source === null ? 0 : levelFor(source, layerWindow.view.value, height.value);
  });

  const arrivals = signal(0);
  const tiles = new TileStore(
    ({ source: { run, layer, thresholds, what, order, version }, level, tile }, abort) => {
      const query: TileQuery = { run, layer, thresholds, what, order, version, level, tile };
      return store.api.tile(query, abort);
    },
    () => {
      arrivals.value++;
    },
  );

  const hover = signal<Cell | null>(null);
  const focus = signal<Cell | null>(null);
  const selection = signal<Selection | null>(null);
  const rowMeaning = computed(() =>
    [store.run.value?.run, store.place.value.layer, store.place.value.order].join("\n"),
  );
  const stopForgetting = effect(() => {
    // Cells belong to rows: another layer or order makes them meaningless.
    void rowMeaning.value;
    hover.value = focus.value = selection.value = null;
  });

  const byIndex = computed(() => store.place.value.order === "index");
  const unitByRow = computed(() => store.order.state.value.value);
  const rowByUnit = computed(() => {
    const rows = new Map<number, number>();
    unitByRow.value?.forEach((unit, row) => {
      rows.set(unit, row);
    });
    return rows;
  });

  const unitEvents = computed(() => {
    const events = store.events.state.value.value;
    return events === null ? NO_EVENTS : eventsByUnit(events);
  });

  return {
    ...sources,
    layer,
    steps,
    extent,
    view: layerWindow.view,
    moveTo: layerWindow.moveTo,
    height,
    level,
    hover,
    focus,
    selection,
    tiles,
    arrivals,
    unitAt: (row) => (byIndex.value ? row : (unitByRow.value?.[row] ?? null)),
    rowOf: (unit) => (byIndex.value ? unit : (rowByUnit.value.get(unit) ?? null)),
    unitEvents,
    dispose: () => {
      window.removeEventListener("resize", measure);
      layerWindow.dispose();
      stopForgetting();
      tiles.dispose();
    },
  };
}

/** High enough for a readable row each, as far as half the page allows. */
function heightFor(rows: number, room: number): number {
  const most = Math.max(MOST_HEIGHT, Math.round(room * 0.5));
  return Math.min(Math.max(rows * ROW_HEIGHT, LEAST_HEIGHT), most);
}
