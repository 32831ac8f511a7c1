/** A layer and its counterpart in the run that this one is compared with. */
import { computed, type ReadonlySignal } from "@preact/signals";
import type { Api } from "../api/api";
import type { Comparison } from "../api/comparison";
import { type LayerPair, pairOf } from "../domain/comparison";
import { createLayerScope, type LayerScope } from "./layer_scope";
import type { Place } from "./place";

export interface Pair {
  /** What the comparison shows; null while there is none on screen. */
  readonly chosen: ReadonlySignal<LayerPair | null>;
  readonly scopes: readonly [LayerScope, LayerScope];
}

interface Context {
  readonly api: Api;
  readonly place: ReadonlySignal<Place>;
  readonly awake: ReadonlySignal<boolean>;
  readonly comparison: ReadonlySignal<Comparison | null>;
  readonly versionOf: (run: string) => string;
}

export function createPair({ comparison, versionOf, ...context }: Context): Pair {
  const chosen = computed<LayerPair | null>(() => {
    const [found, { layer, pair }] = [comparison.value, context.place.value];
    return found === null || layer !== null ? null : pairOf(found, pair);
  });
  const subject = (side: "first" | "second") => {
    const run = computed(() => comparison.value?.[side] ?? null);
    return {
      run,
      version: computed(() => (run.value === null ? "" : versionOf(run.value))),
      layer: computed(() => chosen.value?.[side] ?? null),
    };
  };
  const first = createLayerScope(context, subject("first"));
  return { chosen, scopes: [first, createLayerScope(context, subject("second"), first)] };
}
