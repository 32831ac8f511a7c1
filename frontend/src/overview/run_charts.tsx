/** What happened to the run as a whole: flagged units, loss and learning rate, on one axis of steps. */
import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import type { Overview } from "../api/types";
import { type Line, Lines } from "../charts/lines";
import { StepAxis } from "../charts/step_axis";
import { count, number } from "../domain/format";
import { isFlagged, STATE_LEVELS, WORST_FIRST } from "../domain/states";
import type { Range, StepScale } from "../domain/steps";
import { useStore } from "../state/context";
import { DataTable } from "../ui/data_table";
import { Panel } from "../ui/panel";
import { useSize } from "../ui/size";

const HEIGHT = 92;
const AXIS_WIDTH = 52;

interface Props {
  readonly overview: Overview;
  readonly scale: StepScale;
  readonly range: Range;
}

export function RunCharts({ overview, scale, range }: Props) {
  const store = useStore();
  const shown = useSignal(range);
  useEffect(() => {
    shown.value = range;
  }, [range, shown]);
  const series = useMemo(() => totals(overview), [overview]);
  const charts = useMemo(() => chartsOf(overview, series), [overview, series]);
  const record = useComputed(() => (store.cursor.value === null ? null : scale.recordOf(store.cursor.value)));
  const table = () => (
    <DataTable
      caption="The run over steps"
      rows={overview.steps.map((step, at) => ({ step, at }))}
      columns={[
        { title: "step", numeric: true, cell: ({ step }) => count(step) },
        { title: "in alarm", numeric: true, cell: ({ at }) => count(series.alarm[at] ?? 0) },
        { title: "in warning", numeric: true, cell: ({ at }) => count(series.warning[at] ?? 0) },
        { title: "loss", numeric: true, cell: ({ at }) => number(overview.loss[at]) },
        { title: "learning rate", numeric: true, cell: ({ at }) => number(overview.learning_rate[at]) },
      ]}
    />
  );
  return (
    <Panel name="run" title="Run over steps" table={table}>
      <div class="run-charts">
        {charts.map(({ title, lines }) => (
          <figure key={title}>
            <figcaption>
              <b>{title}</b>
              {lines.map((line) => (
                <span key={line.name} class="line-name">
                  <i style={{ background: `var(--line-${line.color})` }} />
                  {line.name} <span class="value">{number(line.values[record.value ?? line.values.length - 1])}</span>
                </span>
              ))}
            </figcaption>
            <Lines lines={lines} scale={scale} range={shown} height={HEIGHT} label={`${title} over steps`} />
            <Axis scale={scale} range={range} />
          </figure>
        ))}
      </div>
    </Panel>
  );
}

function Axis({ scale, range }: { readonly scale: StepScale; readonly range: Range }) {
  const { ref, size } = useSize<HTMLDivElement>();
  return (
    <div ref={ref} style={{ marginLeft: `${AXIS_WIDTH}px` }}>
      <StepAxis scale={scale} range={range} width={size.value.width} title={false} />
    </div>
  );
}

interface Totals {
  readonly alarm: readonly number[];
  readonly warning: readonly number[];
}

/** Flagged units of all layers at each step. */
function totals(overview: Overview): Totals {
  const sum = (level: string): number[] =>
    overview.steps.map((_, at) =>
      overview.layers.reduce(
        (all, { strip }) =>
          all +
          WORST_FIRST.filter((label) => isFlagged(label) && STATE_LEVELS[label] === level).reduce(
            (units, label) => units + (strip[label]?.[at] ?? 0),
            0,
          ),
        0,
      ),
    );
  return { alarm: sum("alarm"), warning: sum("warning") };
}

interface Chart {
  readonly title: string;
  readonly lines: readonly Line[];
}

function chartsOf(overview: Overview, series: Totals): Chart[] {
  const charts: Chart[] = [
    {
      title: "Flagged units",
      lines: [
        { name: "warning", values: series.warning, color: "warning" },
        { name: "alarm", values: series.alarm, color: "alarm", width: 2 },
      ],
    },
  ];
  const known = (values: readonly (number | null)[]): boolean => values.some((value) => value !== null);
  if (known(overview.loss)) {
    charts.push({ title: "Loss", lines: [{ name: "loss", values: overview.loss, color: "unit" }] });
  }
  if (known(overview.learning_rate)) {
    charts.push({
      title: "Learning rate",
      lines: [{ name: "rate", values: overview.learning_rate, color: "unit" }],
    });
  }
  return charts;
}
