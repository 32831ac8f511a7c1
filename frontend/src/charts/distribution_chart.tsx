/** The distribution of one statistic across the layer's units over steps. */
import { useComputed, useSignal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import type { Distribution } from "../api/types";
import { count, number } from "../domain/format";
import { LINE_COLORS } from "../domain/palette";
import type { HeatmapModel } from "../heatmap/model";
import { SharedAxis } from "../heatmap/shared_axis";
import { useStore } from "../state/context";
import { DataTable } from "../ui/data_table";
import { type Draw, Drawing } from "../ui/drawing";
import { Failure, Skeleton } from "../ui/notices";
import { Panel } from "../ui/panel";
import {
  bandsOf,
  columnsOf,
  drawDistribution,
  drawQuantile,
  paintDistribution,
  scaleOf,
  valueTicks,
} from "./distribution";
import { PlotRow } from "./plot_row";

const HEIGHT = 148;

export function DistributionChart({ model }: { readonly model: HeatmapModel }) {
  const store = useStore();
  const { value: data, error } = store.distribution.state.value;
  const pointed = useSignal<number | null>(null);
  const statistic = store.statistic.value;
  const entry = store.glossary.state.value.value?.statistics.find(({ name }) => name === statistic);
  if (statistic === null) return null;
  const title = `Distribution of ${statistic}`;
  if (!data) {
    return (
      <Panel name="distribution" title={title}>
        {error ? <Failure error={error} retry={store.distribution.retry} /> : <Skeleton height={HEIGHT} />}
      </Panel>
    );
  }
  const bands = bandsOf(data, HEIGHT);
  const scale = scaleOf(data);
  const share = (value: number): number => {
    const place =
      data.scale === "log"
        ? Math.log(value / scale.low) / Math.log(scale.high / scale.low)
        : (value - scale.low) / (scale.high - scale.low);
    return (HEIGHT - bands.bottom + (bands.bottom - bands.top) * place) / HEIGHT;
  };
  const ticks = valueTicks(scale).map((value) => ({ share: share(value), text: number(value) }));
  if (bands.zeros !== null) ticks.unshift({ share: 6 / HEIGHT, text: "zero" });
  if (bands.nonFinite !== null) ticks.push({ share: 1 - 6 / HEIGHT, text: "NaN, Inf" });
  return (
    <Panel name="distribution" title={title} note={entry?.meaning} table={() => <Twin data={data} />}>
      <PlotRow
        model={model}
        height={HEIGHT}
        label={`${title} across ${counted(data)} units over steps`}
        ticks={ticks}
        side={<Legend />}
        onPoint={(at) => {
          pointed.value = at;
        }}
      >
        <Picture data={data} model={model} />
      </PlotRow>
      <SharedAxis model={model} />
      <Readout data={data} model={model} pointed={pointed.value} />
    </Panel>
  );
}

function counted(data: Distribution): string {
  const first = data.counts[0] ?? [];
  return count(first.reduce((sum, units) => sum + units, 0) + (data.zeros[0] ?? 0) + (data.non_finite[0] ?? 0));
}

function Legend() {
  return (
    <>
      <span class="side-label">
        <i class="line-key strong" /> median
      </span>
      <span class="side-label">
        <i class="line-key" /> 5, 95 %
      </span>
    </>
  );
}

function Picture({ data, model }: { readonly data: Distribution; readonly model: HeatmapModel }) {
  const store = useStore();
  const steps = model.steps.value;
  const columns = useMemo(() => columnsOf(data, steps), [data, steps]);
  const [units, theme] = [model.extent.value.rows, store.host.theme.value];
  const picture = useMemo(() => paintDistribution(data, units, theme), [data, units, theme]);
  const read = (): Draw => {
    const { left, right } = model.view.value;
    return (context, { width, height }) => {
      const drawing = { data, picture, columns, range: { start: left, stop: right }, width, height };
      drawDistribution(context, drawing);
      context.strokeStyle = LINE_COLORS[theme].quantile;
      context.lineWidth = 1;
      context.setLineDash([3, 3]);
      drawQuantile(context, drawing, data.quantiles.p05);
      drawQuantile(context, drawing, data.quantiles.p95);
      context.setLineDash([]);
      context.lineWidth = 2;
      drawQuantile(context, drawing, data.quantiles.p50);
    };
  };
  return <Drawing read={read} inputs={[data, columns, picture, theme, model]} />;
}

interface ReadoutProps {
  readonly data: Distribution;
  readonly model: HeatmapModel;
  readonly pointed: number | null;
}

/** What the histogram under the cursor says. */
function Readout({ data, model, pointed }: ReadoutProps) {
  const store = useStore();
  const text = useComputed(() => {
    const step = store.cursor.value;
    if (step === null) return "";
    const record = model.steps.value.recordOf(step);
    const columns = columnsOf(data, model.steps.value);
    const column = columns.findLast(({ from }) => from <= record);
    if (!column) return "";
    const at = column.index;
    const parts = [`step ${count(data.steps[at] ?? 0)}`];
    const median = data.quantiles.p50[at];
    parts.push(
      `median ${number(median)}`,
      `5 % ${number(data.quantiles.p05[at])}`,
      `95 % ${number(data.quantiles.p95[at])}`,
    );
    parts.push(`${count(data.zeros[at] ?? 0)} exactly zero`);
    if ((data.non_finite[at] ?? 0) > 0) parts.push(`${count(data.non_finite[at] ?? 0)} NaN or Inf`);
    const bands = bandsOf(data, HEIGHT);
    const place = pointed === null ? -1 : (pointed * HEIGHT - (HEIGHT - bands.bottom)) / (bands.bottom - bands.top);
    const bin = Math.floor(place * (data.edges.length - 1));
    const units = data.counts[at]?.[bin];
    if (units !== undefined) {
      parts.push(`${count(units)} from ${number(data.edges[bin])} to ${number(data.edges[bin + 1])}`);
    }
    return parts.join(" · ");
  });
  return <p class="readout small">{text}</p>;
}

function Twin({ data }: { readonly data: Distribution }) {
  const rows = data.steps.map((step, at) => ({ step, at }));
  return (
    <DataTable
      caption={`Quantiles of ${data.statistic} at each step`}
      rows={rows}
      columns={[
        { title: "step", numeric: true, cell: ({ step }) => count(step) },
        { title: "5 %", numeric: true, cell: ({ at }) => number(data.quantiles.p05[at]) },
        { title: "median", numeric: true, cell: ({ at }) => number(data.quantiles.p50[at]) },
        { title: "95 %", numeric: true, cell: ({ at }) => number(data.quantiles.p95[at]) },
        { title: "exactly zero", numeric: true, cell: ({ at }) => count(data.zeros[at] ?? 0) },
        { title: "NaN, Inf", numeric: true, cell: ({ at }) => count(data.non_finite[at] ?? 0) },
      ]}
    />
  );
}
