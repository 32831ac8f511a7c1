/** Which layers the overview lists, in which order. */
import type { LayerLevel, LayerSummary } from "../api/types";
import { deadOrDying, isAlarm, isFlagged, present } from "../domain/states";
import type { SortKey } from "../state/place";

const LEVEL_RANK: Readonly<Record<LayerLevel, number>> = { alarm: 2, warning: 1, ok: 0 };

/** Share of a layer's units whose state satisfies a test. */
export function shareOf(layer: LayerSummary, test: (label: ReturnType<typeof present>[number]) => boolean): number {
  const units = present(layer.states).filter(test);
  return units.reduce((sum, label) => sum + (layer.states[label] ?? 0), 0) / Math.max(1, layer.units);
}

type Comparison = (first: LayerSummary, second: LayerSummary) => number;

const worst: Comparison = (first, second) =>
  LEVEL_RANK[second.level] - LEVEL_RANK[first.level] ||
  shareOf(second, isAlarm) - shareOf(first, isAlarm) ||
  shareOf(second, isFlagged) - shareOf(first, isFlagged);

const COMPARISONS: Readonly<Record<SortKey, Comparison>> = {
  worst,
  order: () => 0,
  name: (first, second) => first.layer.localeCompare(second.layer, "en", { numeric: true }),
  units: (first, second) => second.units - first.units,
  share: (first, second) => deadOrDying(second.states) / second.units - deadOrDying(first.states) / first.units,
  onset: (first, second) =>
    (first.onset_step ?? Number.POSITIVE_INFINITY) - (second.onset_step ?? Number.POSITIVE_INFINITY) || 0,
};

/** Equal layers stay in the model's order. */
export function sorted(layers: readonly LayerSummary[], key: SortKey): LayerSummary[] {
  return [...layers].sort((first, second) => {
    const found = COMPARISONS[key](first, second);
    return Number.isNaN(found) || found === 0 ? first.order - second.order : found;
  });
}

/** Layers by name, kind or activation function; optionally only those that need attention. */
export function filtered(layers: readonly LayerSummary[], text: string, attention: boolean): LayerSummary[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return layers.filter((layer) => {
    const searched = `${layer.layer} ${layer.kind} ${layer.activation_function ?? ""}`.toLowerCase();
    return (!attention || layer.level !== "ok") && words.every((word) => searched.includes(word));
  });
}
