/** A unit's states over steps as one ribbon, and the steps at which they changed. */
import { useMemo } from "preact/hooks";
import type { UnitAnswer } from "../api/types";
import { EventMarks } from "../charts/event_marks";
import { StepAxis } from "../charts/step_axis";
import { Strip } from "../charts/strip";
import { count, counted } from "../domain/format";
import { STATE_LABELS } from "../domain/states";
import type { Range, StepScale } from "../domain/steps";
import { useStore } from "../state/context";
import { EventName } from "../ui/event_sign";
import { useSize } from "../ui/size";
import { pointsAt } from "../ui/step_link";
import { StateName } from "../ui/swatch";

const SHOWN = 6;

interface Props {
  readonly value: UnitAnswer;
  readonly scale: StepScale;
  readonly range: Range;
}

export function Ribbon({ value, scale, range }: Props) {
  const store = useStore();
  const { ref, size } = useSize<HTMLDivElement>();
  const series = useMemo(
    () =>
      Object.fromEntries(
        STATE_LABELS.map((label, code) => [label, value.states.map((state) => Number(state === code))]),
      ),
    [value],
  );
  const latest = value.transitions.slice(-SHOWN);
  const older = value.transitions.length - latest.length;
  return (
    <section class="ribbon">
      <h3>States over steps</h3>
      <div class="ribbon-chart" ref={ref}>
        <EventMarks events={value.events} scale={scale} range={range} />
        <Strip series={series} scale={scale} range={range} label={`States of unit ${value.unit} over steps`} />
        <StepAxis scale={scale} range={range} width={size.value.width} title={false} />
      </div>
      {value.events.length > 0 && (
        <ul class="transitions" aria-label="Events">
          {value.events.map(({ kind, step }) => (
            <li key={`${step} ${kind}`}>
              <button type="button" class="link" {...pointsAt(store, step)}>
                step {count(step)}
              </button>
              <EventName kind={kind} />
            </li>
          ))}
        </ul>
      )}
      {value.transitions.length === 0 ? (
        <p class="hint">The state never changed.</p>
      ) : (
        <ul class="transitions" aria-label="Changes of state">
          {older > 0 && <li class="hint">{counted(older, "change")} of state before</li>}
          {latest.map(({ step, from, to }) => (
            <li key={`${step} ${to}`}>
              <button type="button" class="link" {...pointsAt(store, step)}>
                step {count(step)}
              </button>
              <StateName state={from} /> to <StateName state={to} />
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
