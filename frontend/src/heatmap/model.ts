/** A layer as its heatmap and the charts around it see it: one window, one focused cell, one set of tiles. */
import { computed, effect, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { LayerQuery, TileQuery } from "../api/api";
import { map } from "../api/result";
import type { LayerAnswer } from "../api/types";
import { eventsByUnit, type UnitEvent } from "../domain/events";
import type { ValueScale } from "../domain/lookup";
import type { StepScale } from "../domain/steps";
import type { LayerScope } from "../state/layer_scope";
import type { Store } from "../state/store";
import { ontoColumns } from "./columns";
import type { Selection } from "./selection";
import { createShared, type Shared } from "./shared";
import { createSources, type Sources, scaleOfValues } from "./sources";
import { TileStore } from "./tile_store";
import { levelFor } from "./tiles";
import { type Cell, type Extent, stretched, type Viewport } from "./viewport";

const NO_EVENTS: ReadonlyMap<number, readonly UnitEvent[]> = new Map();

export interface HeatmapModel extends Sources {
  readonly query: ReadonlySignal<LayerQuery | null>;
  readonly layer: ReadonlySignal<LayerAnswer | null>;
  /** `Units of layer dense`; of two runs also in which. */
  readonly title: ReadonlySignal<string>;
  readonly like: LayerScope["like"];
  readonly statistic: ReadonlySignal<string | null>;
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
  /** Shows everything known of a unit. */
  open(unit: number): void;
  dispose(): void;
}

/** What a heatmap that does not stand alone has from outside. */
interface Placed {
  readonly scope: LayerScope;
  readonly shared: Shared;
  /** Of the colours, which must be the same for both. */
  readonly valueScale: ReadonlySignal<ValueScale | null>;
  readonly open: (unit: number) => void;
}

/** The open layer's. */
export function createLayerModel(store: Store): HeatmapModel {
  const shared = createShared(store, [store]);
  const valueScale = computed(() => scaleOfValues(store));
  const model = createHeatmapModel(store, { scope: store, shared, valueScale, open: (unit) => store.go({ unit }) });
  return {
    ...model,
    dispose: () => {
      model.dispose();
      shared.dispose();
    },
  };
}

export function createHeatmapModel(store: Store, { scope, shared, valueScale, open }: Placed): HeatmapModel {
  const { steps, height, hover, focus, selection } = shared;
  const layer = computed(() => scope.layer.state.value.value);
  const extent = computed<Extent>(() => ({ records: steps.value.records, rows: layer.value?.units ?? 0 }));
  const title = computed(() => {
    const { run, layer: name } = scope.query.value ?? { run: "", layer: "" };
    return `Units of layer ${name}${scope === store ? "" : ` in run ${run}`}`;
  });
  const sources = createSources(store, scope, steps, valueScale);
  const rowsEach = computed(() => extent.value.rows / Math.max(1, shared.extent.value.rows));
  const view = computed(() => stretched(shared.window.view.value, rowsEach.value));
  const level = computed(() => {
    const source = sources.stateSource.value;
    return source === null ? 0 : levelFor(source, view.value, height.value);
  });

  const arrivals = signal(0);
  const tiles = new TileStore(
    async (key, abort) => {
      const { run, layer, thresholds, what, order, like, version, columns } = key.source;
      const query: TileQuery = { run, layer, thresholds, what, order, like, version, level: key.level, tile: key.tile };
      const answer = await store.api.tile(query, abort);
      return columns === null ? answer : map(answer, (bytes) => ontoColumns(key, bytes, columns.records));
    },
    () => {
      arrivals.value++;
    },
  );

  const rowMeaning = computed(() =>
    [scope.query.value?.run, scope.query.value?.layer, store.place.value.order].join("\n"),
  );
  const stopForgetting = effect(() => {
    // Cells belong to rows: another layer or order makes them meaningless.
    void rowMeaning.value;
    hover.value = focus.value = selection.value = null;
  });

  const byIndex = computed(() => store.place.value.order === "index");
  const unitByRow = computed(() => scope.order.state.value.value);
  const rowByUnit = computed(() => {
    const rows = new Map<number, number>();
    unitByRow.value?.forEach((unit, row) => {
      rows.set(unit, row);
    });
    return rows;
  });

  const unitEvents = computed(() => {
    const events = scope.events.state.value.value;
    return events === null ? NO_EVENTS : eventsByUnit(events);
  });

  return {
    ...sources,
    query: scope.query,
    layer,
    title,
    like: scope.like,
    statistic: scope.statistic,
    steps,
    extent,
    view,
    moveTo: (next) => shared.window.moveTo(stretched(next, 1 / rowsEach.peek())),
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
    open,
    dispose: () => {
      stopForgetting();
      tiles.dispose();
    },
  };
}
