/** Which tiles hold a layer, and who paints them. */
import { computed, type ReadonlySignal } from "@preact/signals";
import type { ValueScale } from "../domain/lookup";
import { StepScale } from "../domain/steps";
import type { LayerScope } from "../state/layer_scope";
import type { Store } from "../state/store";
import { recordsOn } from "./columns";
import { statePainter, type TilePainter, valuePainter } from "./painters";
import type { Columns, TileSource } from "./tiles";

export interface Sources {
  /** What is painted, and by whom; null while it is not known how. */
  readonly source: ReadonlySignal<TileSource | null>;
  readonly painter: ReadonlySignal<TilePainter | null>;
  /** States and values of the same rows, for reading single cells. */
  readonly stateSource: ReadonlySignal<TileSource | null>;
  readonly valueSource: ReadonlySignal<TileSource | null>;
  readonly valueScale: ReadonlySignal<ValueScale | null>;
  /** Whether the run has a record in this column: where two runs share an axis, one may end before the other. */
  covers(record: number): boolean;
}

/** @param steps the axis, which may have more steps than the layer's own run. */
export function createSources(
  store: Store,
  scope: LayerScope,
  steps: ReadonlySignal<StepScale>,
  valueScale: ReadonlySignal<ValueScale | null>,
): Sources {
  const order = computed(() => store.place.value.order);
  const showsStates = computed(
    () => store.place.value.what === "states" || scope.layer.state.value.value?.statistics.length === 0,
  );

  let axes = 0;
  const columns = computed<Columns | null>(() => {
    const own = new StepScale(scope.layer.state.value.value?.steps ?? []);
    return own.equals(steps.value) ? null : { id: String(++axes), records: recordsOn(steps.value, own) };
  });

  /** Rows are judged with the reader's thresholds at once, before the layer's own answer is here. */
  const sourceOf = (what: string | null): TileSource | null => {
    const [answer, query, like] = [scope.layer.state.value.value, scope.query.value, scope.like.value];
    if (answer === null || query === null || what === null || like === undefined) return null;
    if (answer.run !== query.run || answer.layer !== query.layer) return null;
    const judged = what === "states" || order.value !== "index";
    return {
      run: query.run,
      layer: query.layer,
      what,
      order: order.value,
      like,
      columns: columns.value,
      thresholds: judged ? query.thresholds : {},
      version: answer.version,
      units: answer.units,
      records: steps.value.records,
      tileRows: answer.tile_rows,
      levels: answer.levels,
    };
  };
  const stateSource = computed(() => sourceOf("states"));
  const valueSource = computed(() => sourceOf(scope.statistic.value));

  const painter = computed<TilePainter | null>(() => {
    const theme = store.host.theme.value;
    if (showsStates.value) return statePainter(theme, store.hidden.value);
    return valueScale.value === null ? null : valuePainter(theme, valueScale.value);
  });

  const source = computed(() => (showsStates.value ? stateSource.value : valueSource.value));
  const covers = (record: number): boolean =>
    columns.value === null ? true : (columns.value.records[record] ?? -1) >= 0;
  return { source, painter, stateSource, valueSource, valueScale, covers };
}

/** The distribution knows where the values lie; its scale is the colours'. */
export function scaleOfValues({ distribution, statistic }: LayerScope): ValueScale | null {
  const found = distribution.state.value.value;
  if (found === null || found.statistic !== statistic.value || found.edges.length < 2) return null;
  return { kind: found.scale, low: found.edges[0] as number, high: found.edges.at(-1) as number };
}
