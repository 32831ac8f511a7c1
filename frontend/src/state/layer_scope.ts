/** One layer of one run, and what was loaded of it. */
import { computed, type ReadonlySignal } from "@preact/signals";
import { type Api, type LayerQuery, type Like, likeText, thresholdText } from "../api/api";
import type { Result } from "../api/result";
import type { Distribution, EventsAnswer, LayerAnswer } from "../api/types";
import type { Place } from "./place";
import { type Resource, resource } from "./resource";

export interface LayerScope {
  /** What a question about the layer starts with; null while there is no layer. */
  readonly query: ReadonlySignal<LayerQuery | null>;
  readonly layer: Resource<LayerAnswer>;
  readonly events: Resource<EventsAnswer>;
  readonly distribution: Resource<Distribution>;
  readonly order: Resource<Uint32Array>;
  readonly statistic: ReadonlySignal<string | null>;
  /** The layer whose order its rows have; null for its own, undefined while that is not known. */
  readonly like: ReadonlySignal<Like | null | undefined>;
}

interface Context {
  readonly api: Api;
  readonly place: ReadonlySignal<Place>;
  readonly awake: ReadonlySignal<boolean>;
}

interface Subject {
  readonly run: ReadonlySignal<string | null>;
  /** Of the run: what was loaded is asked for again when it changes. */
  readonly version: ReadonlySignal<string>;
  readonly layer: ReadonlySignal<string | null>;
}

/** @param leader the layer it stands below: it lends its statistic, and its order where both have as many units. */
export function createLayerScope({ api, place, awake }: Context, subject: Subject, leader?: LayerScope): LayerScope {
  const thresholds = computed(() => thresholdText(place.value.thresholds));
  const orderName = computed(() => place.value.order);
  const led = (): LayerScope | null => (leader !== undefined && leader.query.value !== null ? leader : null);

  const query = computed<LayerQuery | null>(() => {
    const [run, layer] = [subject.run.value, subject.layer.value];
    void thresholds.value;
    return run === null || layer === null ? null : { run, layer, thresholds: place.peek().thresholds };
  });
  const queryKey = (given: LayerQuery): string => [given.run, given.layer, thresholdText(given.thresholds)].join("\n");

  /** Asked for with the layer's name alone, again whenever the run has grown. */
  const ofLayer = <T>(load: (given: LayerQuery, signal: AbortSignal) => Promise<Result<T>>): Resource<T> =>
    resource<T>(() => {
      const given = query.value;
      if (given === null) return null;
      return {
        key: `${queryKey(given)}\n${subject.version.value}`,
        subject: `${given.run}\n${given.layer}`,
        load: (signal) => load(given, signal),
      };
    }, awake);
  const layer = ofLayer<LayerAnswer>((given, signal) => api.layer(given, signal));
  const events = ofLayer<EventsAnswer>((given, signal) => api.events(given, signal));

  const layerVersion = computed(() => layer.state.value.value?.version ?? null);
  const statistic = computed(() => {
    const known = layer.state.value.value?.statistics ?? [];
    const head = led();
    const wanted = head === null ? place.value.statistic : head.statistic.value;
    if (wanted !== null && known.includes(wanted)) return wanted;
    return head === null ? (known[0] ?? null) : null;
  });

  const like = computed<Like | null | undefined>(() => {
    const [head, own] = [led(), layer.state.value.value];
    if (head === null || orderName.value === "index") return null;
    const { value: other, error } = head.layer.state.value;
    if (other === null || own === null) return error === null ? undefined : null;
    return other.units === own.units ? { run: other.run, layer: other.layer, version: other.version } : null;
  });

  const distribution = resource<Distribution>(() => {
    const [given, name, version] = [query.value, statistic.value, layerVersion.value];
    if (given === null || name === null || version === null) return null;
    const { run, layer } = given;
    return {
      key: [run, layer, name, version].join("\n"),
      subject: [run, layer, name].join("\n"),
      load: (signal) => api.distribution({ run, layer, statistic: name, version }, signal),
    };
  }, awake);

  const order = resource<Uint32Array>(() => {
    const [given, name, version, lender] = [query.value, orderName.value, layerVersion.value, like.value];
    if (given === null || version === null || name === "index" || lender === undefined) return null;
    return {
      key: [queryKey(given), name, version, likeText(lender)].join("\n"),
      subject: [given.run, given.layer, name].join("\n"),
      load: (signal) => api.order({ ...given, order: name, like: lender, version }, signal),
    };
  }, awake);

  return { query, layer, events, distribution, order, statistic, like };
}
