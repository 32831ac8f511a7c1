/** What stands where data would be: on its way, refused, or not there. */
import type { ComponentChildren } from "preact";
import type { ApiError } from "../api/result";

export function Skeleton({ height, label = "Loading" }: { readonly height: number; readonly label?: string }) {
  return (
    <div class="skeleton" style={{ height: `${height}px` }} role="status">
      <span class="sr-only">{label}</span>
    </div>
  );
}

const ADVICE: Readonly<Record<ApiError["kind"], string>> = {
  refused: "",
  unreachable: "What is on screen stays as it was.",
  broken: "If this stays, the plugin and the page may be of different versions: reload the page.",
  superseded: "",
};

interface FailureProps {
  /** Heads a view that has nothing else to show. */
  readonly title?: string;
  readonly error: ApiError;
  readonly retry: () => void;
  readonly children?: ComponentChildren;
}

/** The server's sentence, and what to do now. */
export function Failure({ title, error, retry, children }: FailureProps) {
  return (
    <div class="notice failure" role="alert">
      {title && <h1>{title}</h1>}
      <p>
        {error.sentence} {ADVICE[error.kind]}
      </p>
      <div class="notice-actions">
        <button type="button" class="button" onClick={retry}>
          Try again
        </button>
        {children}
      </div>
    </div>
  );
}
