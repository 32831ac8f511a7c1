/** Data that follows from where the reader is: asked for when its key changes, kept on screen until its successor. */
import { effect, type ReadonlySignal, signal } from "@preact/signals";
import type { ApiError, Result } from "../api/result";

export interface Loaded<T> {
  /** The last answer; kept while a new one is on its way. Null before the first. */
  readonly value: T | null;
  /** What the value was asked with. */
  readonly key: string | null;
  readonly loading: boolean;
  readonly error: ApiError | null;
}

export interface Resource<T> {
  readonly state: ReadonlySignal<Loaded<T>>;
  retry(): void;
}

export interface Request<T> {
  /** Two requests with the same key are the same. */
  readonly key: string;
  /** Values of another subject are not shown while this one loads: another layer is another thing. */
  readonly subject: string;
  readonly load: (signal: AbortSignal) => Promise<Result<T>>;
}

const NOTHING: Loaded<never> = { value: null, key: null, loading: false, error: null };

/**
 * @param request what is wanted now, from signals; null for nothing.
 * @param awake while false, nothing is asked for.
 */
export function resource<T>(request: () => Request<T> | null, awake: ReadonlySignal<boolean>): Resource<T> {
  const state = signal<Loaded<T>>(NOTHING);
  const attempt = signal(0);
  let inFlight: AbortController | null = null;
  let wanted: string | null = null;
  let subject: string | null = null;

  effect(() => {
    const next = request();
    const turn = `${next?.key ?? ""} ${attempt.value}`;
    if (next === null) {
      inFlight?.abort();
      wanted = subject = null;
      if (state.peek() !== NOTHING) state.value = NOTHING;
      return;
    }
    if (!awake.value || turn === wanted) return;
    wanted = turn;
    inFlight?.abort();
    const controller = new AbortController();
    inFlight = controller;
    const before = next.subject === subject ? state.peek() : NOTHING;
    subject = next.subject;
    state.value = { ...before, loading: true, error: null };
    void next.load(controller.signal).then((result) => {
      if (controller.signal.aborted) return;
      if (result.ok) state.value = { value: result.value, key: next.key, loading: false, error: null };
      else state.value = { ...state.peek(), loading: false, error: result.error };
    });
  });

  return {
    state,
    retry: () => {
      attempt.value++;
    },
  };
}
