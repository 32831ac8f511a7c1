/** An event's sign: its shape, in the colour of deaths or of returns. */
import { EVENT_GLYPHS, EVENT_WORDS, type EventKind, isDeath } from "../domain/events";

export function EventSign({ kind, size = 11 }: { readonly kind: EventKind; readonly size?: number }) {
  return (
    <svg
      class={isDeath(kind) ? "event-sign death" : "event-sign return"}
      width={size}
      height={size}
      viewBox="0 0 12 12"
      aria-hidden="true"
      focusable="false"
    >
      <path d={EVENT_GLYPHS[kind]} fill-rule="evenodd" />
    </svg>
  );
}

/** Sign and words. */
export function EventName({ kind }: { readonly kind: EventKind }) {
  return (
    <span class="state-name">
      <EventSign kind={kind} />
      {EVENT_WORDS[kind]}
    </span>
  );
}
