/** Events as signs above a strip: what happened to one unit, or when a layer's units were revived. */

import { EVENT_WORDS, positionOf, type UnitEvent } from "../domain/events";
import { count } from "../domain/format";
import type { Range, StepScale } from "../domain/steps";
import { EventSign } from "../ui/event_sign";

interface Props {
  readonly events: readonly UnitEvent[];
  readonly scale: StepScale;
  readonly range: Range;
}

export function EventMarks({ events, scale, range }: Props) {
  const places = events
    .map((event) => ({
      event,
      share: (positionOf(scale, event.kind, event.step) - range.start) / (range.stop - range.start),
    }))
    .filter(({ share }) => share >= 0 && share <= 1);
  return (
    <div class="event-marks" aria-hidden="true">
      {places.map(({ event: { kind, step }, share }) => (
        <span
          key={`${kind} ${step}`}
          class="event-mark"
          style={{ left: `${share * 100}%` }}
          title={`${EVENT_WORDS[kind]}, step ${count(step)}`}
        >
          <EventSign kind={kind} />
        </span>
      ))}
    </div>
  );
}
