/** Which tiles hold the open layer, and who paints them. */
import { computed, type ReadonlySignal } from "@preact/signals";
import type { ValueScale } from "../domain/lookup";
import type { Store } from "../state/store";
import { statePainter, type TilePainter, valuePainter } from "./painters";
import type { TileSource } from "./tiles";

export interface Sources {
  /** What is painted, and by whom; null while it is not known how. */
  readonly source: ReadonlySignal<TileSource | null>;
  readonly painter: ReadonlySignal<TilePainter | null>;
  /** States and values of the same rows, for reading single cells. */
  readonly stateSource: ReadonlySignal<TileSource | null>;
  readonly valueSource: ReadonlySignal<TileSource | null>;
  readonly valueScale: ReadonlySignal<ValueScale | null>;
}

export function createSources(store: Store): Sources {
  const order = computed(() => store.place.value.order);
  const showsStates = computed(() => store.place.value.what === "states" || store.statistic.value === null);

  /** Rows are judged with the reader's thresholds at once, before the layer's own answer is here. */
  const sourceOf = (what: string | null): TileSource | null => {
    const [answer, query] = [store.layer.state.value.value, store.query.value];
    if (answer === null || query === null || what === null) return null;
    if (answer.run !== query.run || answer.layer !== query.layer) return null;
    const judged = what === "states" || order.value !== "index";
    return {
      run: query.run,
      layer: query.layer,
      what,
      order: order.value,
      thresholds: judged ? query.thresholds : {},
      version: answer.version,
      units: answer.units,
      records: answer.records,
      tileRows: answer.tile_rows,
      levels: answer.levels,
    };
  };
  const stateSource = computed(() => sourceOf("states"));
  const valueSource = computed(() => sourceOf(store.statistic.value));

  /** The distribution knows where the values lie; its scale is the colours'. */
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

  const source = computed(() => (showsStates.value ? stateSource.value : valueSource.value));
  return { source, painter, stateSource, valueSource, valueScale };
}
