/** Every statistic of a unit over steps, with its layer's median and the thresholds that judge it. */
import type { ReadonlySignal } from "@preact/signals";
import { useComputed } from "@preact/signals";
import { useMemo, useRef } from "preact/hooks";
import type { UnitAnswer } from "../api/types";
import { type Level, type Line, Lines } from "../charts/lines";
import { StepAxis } from "../charts/step_axis";
import { count, number } from "../domain/format";
import type { Range, StepScale } from "../domain/steps";
import { useStore } from "../state/context";
import { DataTable } from "../ui/data_table";
import { useSize } from "../ui/size";

const HEIGHT = 66;
const AXIS_WIDTH = 52;
const NAME = "unit";

interface Props {
  readonly value: UnitAnswer;
  readonly scale: StepScale;
  readonly range: ReadonlySignal<Range>;
}

export function StatisticCharts({ value, scale, range }: Props) {
  const store = useStore();
  const { tables } = store.place.value;
  const asTable = tables.includes(NAME);
  const names = Object.keys(value.statistics);
  const { ref, size } = useSize<HTMLDivElement>();
  return (
    <section class="statistics">
      <header class="panel-head">
        <h3>Statistics</h3>
        <span class="spacer" />
        <span class="line-name">
          <i style={{ background: "var(--line-unit)" }} />
          unit
        </span>
        <span class="line-name">
          <i style={{ background: "var(--line-median)" }} />
          layer median
        </span>
        <span class="line-name">
          <i style={{ background: "var(--line-threshold)" }} />
          threshold
        </span>
        <button
          type="button"
          class="button quiet"
          aria-pressed={asTable}
          onClick={() => store.go({ tables: asTable ? tables.filter((name) => name !== NAME) : [...tables, NAME] })}
        >
          {asTable ? "Chart" : "Table"}
        </button>
      </header>
      {asTable ? (
        <Twin value={value} names={names} />
      ) : (
        names.map((name) => <Chart key={name} name={name} value={value} scale={scale} range={range} />)
      )}
      {!asTable && (
        <div ref={ref} style={{ marginLeft: `${AXIS_WIDTH}px` }}>
          <StepAxis scale={scale} range={range.value} width={size.value.width} title={false} />
        </div>
      )}
    </section>
  );
}

function Chart({ name, value, scale, range }: Props & { readonly name: string }) {
  const store = useStore();
  const values = value.statistics[name] ?? [];
  const median = value.layer_median[name] ?? [];
  const given = value.lines[name] ?? [];
  const lines = useMemo<Line[]>(
    () => [
      { name: "layer median", values: median, color: "median", width: 1.25 },
      { name: "unit", values, color: "unit", width: 1.4 },
    ],
    [value, name],
  );
  const levels = useMemo<Level[]>(
    () => given.map((line) => ({ value: line.value, color: "threshold" })),
    [value, name],
  );
  const meaning = store.glossary.state.value.value?.statistics.find((entry) => entry.name === name)?.meaning;
  return (
    <figure>
      <figcaption>
        <b class="name" title={meaning}>
          {name}
        </b>
        <Value values={values} scale={scale} />
        <span class="spacer" />
        {given.map((line) => (
          <span key={line.threshold} class="hint name">
            {line.threshold} {number(line.value)}
          </span>
        ))}
      </figcaption>
      <Lines
        lines={lines}
        levels={levels}
        scale={scale}
        range={range}
        height={HEIGHT}
        label={`${name} of unit ${value.unit} over steps`}
      />
    </figure>
  );
}

/** The value under the cursor, else the last one recorded. */
function Value({ values, scale }: { readonly values: readonly (number | null)[]; readonly scale: StepScale }) {
  const store = useStore();
  const last = useRef(0);
  last.current = values.findLastIndex((value) => value !== null);
  const step = useComputed(() => store.cursor.value);
  const record = step.value === null ? last.current : scale.recordOf(step.value);
  return <span class="value">{number(values[record])}</span>;
}

function Twin({ value, names }: { readonly value: UnitAnswer; readonly names: readonly string[] }) {
  return (
    <DataTable
      caption={`Statistics of unit ${value.unit} at each record`}
      rows={value.steps.map((step, record) => ({ step, record }))}
      columns={[
        { title: "step", numeric: true, cell: ({ step }) => count(step) },
        ...names.map((name) => ({
          title: name,
          numeric: true,
          cell: ({ record }: { record: number }) => number(value.statistics[name]?.[record]),
        })),
      ]}
    />
  );
}
