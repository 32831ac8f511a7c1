/** The open layer as the heatmap and its companions see it: one window, one cursor, one focused cell. */
import { computed, effect, type ReadonlySignal, type Signal, signal, untracked } from "@preact/signals";
import type { TileQuery } from "../api/api";
import type { LayerAnswer } from "../api/types";
import type { ValueScale } from "../domain/lookup";
import { StepScale } from "../domain/steps";
import type { Place } from "../state/place";
import type { Store } from "../state/store";
import { statePainter, type TilePainter, valuePainter } from "./painters";
import type { Selection } from "./selection";
import { TileStore } from "./tile_store";
import { levelFor, type TileSource } from "./tiles";
import { type Cell, clamp, type Extent, isWhole, type Viewport, whole } from "./viewport";

const SETTLE_MILLISECONDS = 250;
const ROW_HEIGHT = 22;
const LEAST_HEIGHT = 132;
const MOST_HEIGHT = 300;

export interface HeatmapModel {
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
  /** What is painted; null while it is not known how. */
  readonly source: ReadonlySignal<TileSource | null>;
  readonly painter: ReadonlySignal<TilePainter | null>;
  /** States and values of the same rows, for reading single cells. */
  readonly stateSource: ReadonlySignal<TileSource | null>;
  readonly valueSource: ReadonlySignal<TileSource | null>;
  readonly valueScale: ReadonlySignal<ValueScale | null>;
  /** The unit in a row, and the reverse; null while the order is on its way. */
  unitAt(row: number): number | null;
  rowOf(unit: number): number | null;
  dispose(): void;
}

/** High enough for a readable row each, as far as half the window allows. */
function heightFor(rows: number): number {
  const most = Math.max(MOST_HEIGHT, Math.round(window.innerHeight * 0.5));
  return Math.min(Math.max(rows * ROW_HEIGHT, LEAST_HEIGHT), most);
}

export function createHeatmapModel(store: Store): HeatmapModel {
  const layer = computed(() => store.layer.state.value.value);
  const steps = computed(() => new StepScale(layer.value?.steps ?? []));
  const extent = computed<Extent>(() => ({ records: layer.value?.records ?? 0, rows: layer.value?.units ?? 0 }));

  const arrivals = signal(0);
  const tiles = new TileStore(
    ({ source, level, tile }, abort) => {
      const { run, layer, thresholds, what, order, version } = source;
      const query: TileQuery = { run, layer, thresholds, what, order, version, level, tile };
      return store.api.tile(query, abort);
    },
    () => {
      arrivals.value++;
    },
  );

  const sourceOf = (what: string | null): TileSource | null => {
    const [answer, key] = [layer.value, store.layer.state.value.key];
    if (answer === null || what === null || key === null) return null;
    const { run, thresholds } = untracked(() => store.query.value) ?? { run: answer.run, thresholds: {} };
    return {
      run,
      layer: answer.layer,
      what,
      order: store.place.value.order,
      thresholds: what === "states" || store.place.value.order !== "index" ? thresholds : {},
      version: answer.version,
      units: answer.units,
      records: answer.records,
      tileRows: answer.tile_rows,
      levels: answer.levels,
    };
  };
  const stateSource = computed(() => sourceOf("states"));
  const valueSource = computed(() => sourceOf(store.statistic.value));
  const showsStates = computed(() => store.place.value.what === "states" || store.statistic.value === null);
  const source = computed(() => (showsStates.value ? stateSource.value : valueSource.value));

  const valueScale = computed<ValueScale | null>(() => {
    const found = store.distribution.state.value.value;
    if (found === null || found.statistic !== store.statistic.value || found.edges.length < 2) return null;
    return { kind: found.scale, low: found.edges[0] as number, high: found.edges.at(-1) as number };
  });
  const painter = computed<TilePainter | null>(() => {
    const theme = store.host.theme.value;
    if (showsStates.value) return statePainter(theme, store.hidden.value);
    return valueScale.value === null ? null : valuePainter(theme, valueScale.value);
  });

  const view = signal<Viewport>(whole({ records: 1, rows: 1 }));
  const height = computed(() => heightFor(extent.value.rows));
  const level = computed(() => (stateSource.value ? levelFor(stateSource.value, view.value, height.value) : 0));
  const hover = signal<Cell | null>(null);
  const focus = signal<Cell | null>(null);
  const selection = signal<Selection | null>(null);

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

  const moveTo = (next: Viewport): void => {
    view.value = isWhole(next, extent.peek()) ? whole(extent.peek()) : clamp(next, extent.peek());
    window.clearTimeout(rest);
    rest = window.setTimeout(settle, SETTLE_MILLISECONDS);
  };

  /** Cells belong to rows: another layer or order makes them meaningless. */
  const stopForgetting = effect(() => {
    void store.place.value.layer;
    void store.place.value.order;
    void store.place.value.run;
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

  return {
    height,
    level,
    layer,
    steps,
    extent,
    view,
    moveTo,
    hover,
    focus,
    selection,
    tiles,
    arrivals,
    source,
    painter,
    stateSource,
    valueSource,
    valueScale,
    unitAt: (row) => (byIndex.value ? row : (unitByRow.value?.[row] ?? null)),
    rowOf: (unit) => (byIndex.value ? unit : (rowByUnit.value.get(unit) ?? null)),
    dispose: () => {
      window.clearTimeout(rest);
      stopFollowing();
      stopForgetting();
      tiles.dispose();
    },
  };
}
