/** Errors are values: whoever asks for data also says what to show without it. */

export interface ApiError {
  /** `refused`: the server said why. `unreachable`: no answer. `broken`: an answer that makes no sense. */
  readonly kind: "refused" | "unreachable" | "broken" | "superseded";
  readonly sentence: string;
}

export type Result<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: ApiError };

export function success<T>(value: T): Result<T> {
  return { ok: true, value };
}

export function failure(kind: ApiError["kind"], sentence: string): Result<never> {
  return { ok: false, error: { kind, sentence } };
}

export function map<A, B>(result: Result<A>, change: (value: A) => B): Result<B> {
  return result.ok ? success(change(result.value)) : result;
}
