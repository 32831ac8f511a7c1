/** The only module that knows URLs. Routes are relative to the page's base, so path prefixes and experiments work. */
import { sentence } from "../domain/format";
import { Activity } from "./activity";
import type { Comparison } from "./comparison";
import { RequestQueue } from "./queue";
import { failure, type Result, success } from "./result";
import type {
  Distribution,
  EventsAnswer,
  Glossary,
  LayerAnswer,
  Order,
  Overview,
  RunsAnswer,
  ThresholdValues,
  UnitAnswer,
  UnitsAnswer,
} from "./types";

type Parameters = Readonly<Record<string, string | number | null | undefined>>;

export interface LayerQuery {
  readonly run: string;
  readonly layer: string;
  readonly thresholds: ThresholdValues;
}

/** The layer of another run whose order rows have, and in which version. */
export interface Like {
  readonly run: string;
  readonly layer: string;
  readonly version: string;
}

interface OrderQuery extends LayerQuery {
  readonly order: Order;
  readonly like: Like | null;
}

export interface TileQuery extends OrderQuery {
  readonly what: string;
  readonly level: number;
  readonly tile: number;
  readonly version: string;
}

export interface UnitsQuery extends OrderQuery {
  readonly first?: number;
  readonly last?: number;
  readonly limit: number;
}

export class Api {
  readonly activity = new Activity();
  readonly #queue = new RequestQueue(6);
  readonly #fetch: typeof fetch;

  constructor(fetcher: typeof fetch = (...given) => fetch(...given)) {
    this.#fetch = fetcher;
  }

  runs(signal: AbortSignal): Promise<Result<RunsAnswer>> {
    return this.#json("runs", {}, signal);
  }

  glossary(signal: AbortSignal): Promise<Result<Glossary>> {
    return this.#json("glossary", {}, signal);
  }

  overview(run: string, thresholds: ThresholdValues, signal: AbortSignal): Promise<Result<Overview>> {
    return this.#json("overview", { run, thresholds: thresholdText(thresholds) }, signal);
  }

  layer(query: LayerQuery, signal: AbortSignal): Promise<Result<LayerAnswer>> {
    return this.#json("layer", of(query), signal);
  }

  unit(query: LayerQuery, unit: number, signal: AbortSignal): Promise<Result<UnitAnswer>> {
    return this.#json("unit", { ...of(query), unit }, signal);
  }

  units(query: UnitsQuery, signal: AbortSignal): Promise<Result<UnitsAnswer>> {
    const { first, last, limit } = query;
    return this.#json("units", { ...of(query), ...orderOf(query), first, last, limit }, signal);
  }

  events(query: LayerQuery, signal: AbortSignal): Promise<Result<EventsAnswer>> {
    return this.#json("events", of(query), signal);
  }

  compare(run: string, other: string, thresholds: ThresholdValues, signal: AbortSignal): Promise<Result<Comparison>> {
    return this.#json("compare", { run, other, thresholds: thresholdText(thresholds) }, signal);
  }

  distribution(
    query: { run: string; layer: string; statistic: string; version: string },
    signal: AbortSignal,
  ): Promise<Result<Distribution>> {
    return this.#json("distribution", query, signal);
  }

  order(query: OrderQuery & { version: string }, signal: AbortSignal): Promise<Result<Uint32Array>> {
    const parameters = { ...of(query), ...orderOf(query), version: query.version };
    return this.#bytes("order", parameters, signal, (bytes) => new Uint32Array(bytes));
  }

  tile(query: TileQuery, signal: AbortSignal): Promise<Result<ArrayBuffer>> {
    const { what, level, tile, version } = query;
    return this.#bytes(
      "tile",
      { ...of(query), what, ...orderOf(query), level, tile, version },
      signal,
      (bytes) => bytes,
    );
  }

  /** Address of a download: a whole run, or one layer of it. */
  exportAddress(run: string, layer: string | null, thresholds: ThresholdValues): string {
    return address("export", { run, layer, thresholds: thresholdText(thresholds) });
  }

  #json<T>(route: string, parameters: Parameters, signal: AbortSignal): Promise<Result<T>> {
    const misread = `The answer to "${route}" could not be read.`;
    return this.#read(route, parameters, signal, true, async (answer) => (await answer.json()) as T, misread);
  }

  #bytes<T>(
    route: string,
    parameters: Parameters,
    signal: AbortSignal,
    as: (bytes: ArrayBuffer) => T,
  ): Promise<Result<T>> {
    const misread = `The answer to "${route}" ended early.`;
    return this.#read(route, parameters, signal, false, async (answer) => as(await answer.arrayBuffer()), misread);
  }

  async #read<T>(
    route: string,
    parameters: Parameters,
    signal: AbortSignal,
    urgent: boolean,
    body: (answer: Response) => Promise<T>,
    misread: string,
  ): Promise<Result<T>> {
    const over = this.activity.begin();
    try {
      const answer = await this.#ask(route, parameters, signal, urgent);
      return answer.ok ? success(await body(answer.value)) : answer;
    } catch {
      return signal.aborted ? superseded() : failure("broken", misread);
    } finally {
      over();
    }
  }

  async #ask(route: string, parameters: Parameters, signal: AbortSignal, urgent: boolean): Promise<Result<Response>> {
    try {
      const response = await this.#queue.run(() => this.#fetch(address(route, parameters), { signal }), signal, urgent);
      if (response === null) return superseded();
      if (response.ok) return success(response);
      return failure("refused", await sentenceOf(response));
    } catch {
      if (signal.aborted) return superseded();
      return failure("unreachable", "TensorBoard did not answer. Is its process still running?");
    }
  }
}

function superseded(): Result<never> {
  return failure("superseded", "");
}

function of({ run, layer, thresholds }: LayerQuery): Parameters {
  return { run, layer, thresholds: thresholdText(thresholds) };
}

function orderOf({ order, like }: OrderQuery): Parameters {
  return { order, like: like?.run, like_layer: like?.layer, like_version: like?.version };
}

function address(route: string, parameters: Parameters): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, String(value));
  }
  const text = query.toString();
  return text === "" ? route : `${route}?${text}`;
}

/** `name:value,name:value`, sorted, so that equal thresholds make equal addresses. */
export function thresholdText(thresholds: ThresholdValues): string {
  return Object.keys(thresholds)
    .sort()
    .map((name) => `${name}:${thresholds[name]}`)
    .join(",");
}

/** Names whose order it is. */
export function likeText(like: Like | null): string {
  return like === null ? "" : [like.run, like.layer, like.version].join("\n");
}

/** The server's one sentence; something honest where a proxy answered with a page instead. */
async function sentenceOf(response: Response): Promise<string> {
  // TensorBoard puts the kind of error before it.
  const text = sentence((await response.text()).trim().replace(/^(Invalid argument|Not found): /, ""));
  if (text === "" || text.startsWith("<") || text.length > 600) {
    return `TensorBoard answered with an error (${response.status} ${response.statusText}).`;
  }
  return text;
}
