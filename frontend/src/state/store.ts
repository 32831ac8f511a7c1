/** The state of the tab: where the reader is, what was loaded for it, and what follows from both. */
import { computed, effect, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { type Api, thresholdText } from "../api/api";
import type { Comparison } from "../api/comparison";
import type { Glossary, Overview, RunEntry, RunsAnswer, UnitAnswer } from "../api/types";
import type { StateLabel } from "../domain/states";
import type { Host } from "../host/host";
import { createLayerScope, type LayerScope } from "./layer_scope";
import { createPair, type Pair } from "./pair";
import { fromLink, isJourney, type Place, samePlace, toLink } from "./place";
import { type Resource, resource } from "./resource";

/** As a `LayerScope` it is that of the open layer. */
export interface Store extends LayerScope {
  readonly api: Api;
  readonly host: Host;
  readonly place: ReadonlySignal<Place>;
  /** Go somewhere. Whatever is not named stays. */
  go(change: Partial<Place>): void;
  /** The step under the pointer, in whatever chart it is. */
  readonly cursor: Signal<number | null>;
  /** False while nobody can see the tab: nothing is asked for, nothing drawn. */
  readonly awake: Signal<boolean>;
  readonly runs: Resource<RunsAnswer>;
  readonly glossary: Resource<Glossary>;
  readonly overview: Resource<Overview>;
  /** The run it is compared with; null for none. */
  readonly versus: ReadonlySignal<string | null>;
  readonly comparison: Resource<Comparison>;
  /** The layers that the comparison shows one above the other. */
  readonly pair: Pair;
  readonly unit: Resource<UnitAnswer>;
  /** The run on screen; null while there is none. */
  readonly run: ReadonlySignal<RunEntry | null>;
  readonly hidden: ReadonlySignal<ReadonlySet<StateLabel>>;
}

export function createStore(api: Api, host: Host): Store {
  const place = signal(fromLink(host.readLink()));
  const awake = signal(true);
  const cursor = signal<number | null>(null);

  const go = (change: Partial<Place>): void => {
    const before = place.peek();
    const next = { ...before, ...change };
    if (samePlace(before, next)) return;
    place.value = next;
    host.writeLink(toLink(next), isJourney(before, next));
  };
  host.onLink((link) => {
    const next = fromLink(link);
    if (!samePlace(place.peek(), next)) place.value = next;
  });

  const reloads = signal(0);
  host.onReload(() => {
    reloads.value++;
  });

  const runs = resource<RunsAnswer>(
    () => ({ key: String(reloads.value), subject: "runs", load: (signal) => api.runs(signal) }),
    awake,
  );
  const glossary = resource<Glossary>(
    () => ({ key: "glossary", subject: "glossary", load: (signal) => api.glossary(signal) }),
    awake,
  );

  const run = computed<RunEntry | null>(() => {
    const known = runs.state.value.value?.runs ?? [];
    const wanted = place.value.run;
    if (wanted === null) return known[0] ?? null;
    return known.find((entry) => entry.run === wanted) ?? (known.length > 0 ? unknownRun(wanted) : null);
  });
  const runName = computed(() => run.value?.run ?? null);
  const versionOf = (name: string): string =>
    runs.state.value.value?.runs.find((entry) => entry.run === name)?.version ?? "";
  const runVersion = computed(() => run.value?.version ?? "");
  const thresholds = computed(() => thresholdText(place.value.thresholds));
  const layerName = computed(() => place.value.layer);
  const unitNumber = computed(() => place.value.unit);

  const overview = resource<Overview>(() => {
    const name = runName.value;
    if (name === null) return null;
    return {
      key: [name, thresholds.value, runVersion.value].join("\n"),
      subject: name,
      load: (signal) => api.overview(name, place.peek().thresholds, signal),
    };
  }, awake);

  /** A run does not differ from itself; TensorBoard may tell of a changed link key by key, too. */
  const versus = computed(() => (place.value.versus === runName.value ? null : place.value.versus));

  const comparison = resource<Comparison>(() => {
    const [name, other] = [runName.value, versus.value];
    if (name === null || other === null) return null;
    return {
      key: [name, other, thresholds.value, runVersion.value, versionOf(other)].join("\n"),
      subject: `${name}\n${other}`,
      load: (signal) => api.compare(name, other, place.peek().thresholds, signal),
    };
  }, awake);

  const scope = createLayerScope({ api, place, awake }, { run: runName, version: runVersion, layer: layerName });
  const pair = createPair({
    api,
    place,
    awake,
    comparison: computed(() => comparison.state.value.value),
    versionOf,
  });

  const unit = resource<UnitAnswer>(() => {
    const [given, number] = [scope.query.value, unitNumber.value];
    if (given === null || number === null) return null;
    return {
      key: [given.run, given.layer, thresholds.value, number, runVersion.value].join("\n"),
      subject: [given.run, given.layer].join("\n"),
      load: (signal) => api.unit(given, number, signal),
    };
  }, awake);

  const hidden = computed<ReadonlySet<StateLabel>>(() => new Set(place.value.hidden));

  effect(() => {
    void layerName.value;
    void runName.value;
    cursor.value = null;
  });

  return {
    ...scope,
    api,
    host,
    place,
    go,
    cursor,
    awake,
    runs,
    glossary,
    overview,
    versus,
    comparison,
    pair,
    unit,
    run,
    hidden,
  };
}

/** A run that a link names and nobody lists: the server says what is wrong with it. */
function unknownRun(name: string): RunEntry {
  return { run: name, first_step: 0, last_step: 0, records: 0, layers: 0, version: "" };
}
