/** When units of the layer died and came back, on the heatmap's axis: deaths below the line, returns above it. */
import type { EventsAnswer } from "../api/types";
import { barsOf, EVENT_KINDS, type EventKind, kindAt, totalsText } from "../domain/events";
import { count } from "../domain/format";
import { LINE_COLORS } from "../domain/palette";
import type { HeatmapModel } from "../heatmap/model";
import { useStore } from "../state/context";
import { DataTable } from "../ui/data_table";
import { type Draw, Drawing } from "../ui/drawing";
import { EventName, EventSign } from "../ui/event_sign";
import { Panel } from "../ui/panel";
import { PlotRow } from "./plot_row";

const HEIGHT = 66;
const LEAST_BAR = 2;
const MOST_LISTED = 1000;

export function EventsChart({ model }: { readonly model: HeatmapModel }) {
  const store = useStore();
  const events = store.events.state.value.value;
  const layer = model.layer.value;
  if (!events || !layer || events.total === 0) return null;
  const missing = events.total - events.unit.length;
  return (
    <Panel
      name="events"
      title="Events"
      note={totalsText(events) + (missing > 0 ? `; ${count(missing)} later ones are not shown` : "")}
      table={() => <EventTable events={events} layer={layer.layer} />}
    >
      <PlotRow
        model={model}
        height={HEIGHT}
        label={`Events of layer ${layer.layer} over steps: ${totalsText(events)}`}
        ticks={[{ share: 0.5, text: "" }]}
        side={
          <div class="event-counts">
            <Counts events={events} model={model} />
          </div>
        }
      >
        <Bars events={events} model={model} />
      </PlotRow>
    </Panel>
  );
}

/** Events of each kind in the record under the cursor, else in all. */
function Counts({ events, model }: { readonly events: EventsAnswer; readonly model: HeatmapModel }) {
  const store = useStore();
  const step = store.cursor.value;
  const record = step === null ? null : model.steps.value.recordOf(step);
  const totals = new Map<EventKind, number>();
  events.step.forEach((at, index) => {
    if (record !== null && model.steps.value.recordFrom(at) !== record) return;
    const kind = kindAt(events, index);
    totals.set(kind, (totals.get(kind) ?? 0) + 1);
  });
  return EVENT_KINDS.filter((kind) => totals.has(kind)).map((kind) => (
    <span key={kind} class="side-label">
      <EventSign kind={kind} />
      {count(totals.get(kind) ?? 0)}
    </span>
  ));
}

function Bars({ events, model }: { readonly events: EventsAnswer; readonly model: HeatmapModel }) {
  const store = useStore();
  const read = (): Draw => {
    const [{ left, right }, scale] = [model.view.value, model.steps.value];
    const colors = LINE_COLORS[store.host.theme.value];
    return (context, { width, height }) => {
      const bars = barsOf(events, scale, { start: left, stop: right }, width);
      const most = Math.max(1, ...bars.map(({ deaths, returns }) => Math.max(deaths, returns)));
      const middle = height / 2;
      // Roots: a single death must stay readable beside a hundred.
      const lengthOf = (units: number): number =>
        units === 0 ? 0 : Math.max(LEAST_BAR, Math.sqrt(units / most) * (middle - 3));
      for (const { left, width: across, deaths, returns } of bars) {
        const wide = Math.max(1, across - (across > 4 ? 1 : 0));
        context.fillStyle = colors.alarm;
        context.fillRect(left, middle + 1, wide, lengthOf(deaths));
        context.fillStyle = colors.unit;
        context.fillRect(left, middle - lengthOf(returns), wide, lengthOf(returns));
      }
    };
  };
  return <Drawing read={read} inputs={[events, model]} />;
}

function EventTable({ events, layer }: { readonly events: EventsAnswer; readonly layer: string }) {
  const store = useStore();
  const rows = events.unit.slice(0, MOST_LISTED).map((unit, index) => ({ unit, index }));
  return (
    <>
      <DataTable
        caption={`Events of units of layer ${layer}, in order of steps`}
        rows={rows}
        columns={[
          { title: "step", numeric: true, cell: ({ index }) => count(events.step[index] ?? 0) },
          {
            title: "unit",
            numeric: true,
            cell: ({ unit }) => (
              <button type="button" class="link" onClick={() => store.go({ unit })}>
                {count(unit)}
              </button>
            ),
          },
          { title: "what happened", cell: ({ index }) => <EventName kind={kindAt(events, index)} /> },
        ]}
      />
      {events.total > rows.length && (
        <p class="hint">
          The first {count(rows.length)} of {count(events.total)}.
        </p>
      )}
    </>
  );
}
