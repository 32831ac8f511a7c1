/** Layers that are not observed: often many for one reason, as the embeddings of a large model. */
import type { Overview } from "../api/types";

export interface SkippedLayers {
  readonly reason: string;
  readonly layers: readonly string[];
}

/** Each reason once, with its layers in the model's order; reasons in the order of their first layer. */
export function byReason(skipped: Overview["skipped"]): SkippedLayers[] {
  const groups = new Map<string, string[]>();
  for (const { layer, reason } of skipped) {
    const layers = groups.get(reason);
    if (layers) layers.push(layer);
    else groups.set(reason, [layer]);
  }
  return [...groups].map(([reason, layers]) => ({ reason, layers }));
}
