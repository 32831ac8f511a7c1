/** Flagged units over steps, on the heatmap's axis. */
import { count, percent } from "../domain/format";
import { isFlagged, type StateLabel, WORST_FIRST } from "../domain/states";
import type { HeatmapModel } from "../heatmap/model";
import { useStore } from "../state/context";
import { DataTable } from "../ui/data_table";
import { type Draw, Drawing } from "../ui/drawing";
import { Panel } from "../ui/panel";
import { Swatch } from "../ui/swatch";
import { PlotRow } from "./plot_row";
import { drawStack, roundTop, type StateSeries } from "./stack";

const HEIGHT = 96;

export function StateCounts({ model }: { readonly model: HeatmapModel }) {
  const answer = model.layer.value;
  if (!answer) return null;
  const seen = WORST_FIRST.filter((label) => answer.counts[label]?.some((units) => units > 0));
  const table = () => (
    <DataTable
      caption={`Units of layer ${answer.layer} by state at each record`}
      rows={answer.steps.map((step, record) => ({ step, record }))}
      columns={[
        { title: "step", numeric: true, cell: ({ step }) => count(step) },
        ...seen.map((label) => ({
          title: label,
          numeric: true,
          cell: ({ record }: { record: number }) => count(answer.counts[label]?.[record] ?? 0),
        })),
      ]}
    />
  );
  const top = topOf(answer.counts, answer.units);
  const flagged = seen.filter(isFlagged);
  return (
    <Panel
      name="counts"
      title="Flagged units"
      note={flagged.length === 0 ? "none at any step" : `share of ${count(answer.units)} units, by state`}
      table={table}
    >
      {flagged.length > 0 && (
        <PlotRow
          model={model}
          height={HEIGHT}
          label={`Flagged units of layer ${answer.layer} over steps`}
          ticks={[0, top / 2, top].map((share) => ({ share: share / top, text: percent(share) }))}
          side={<Counts model={model} labels={flagged} />}
        >
          <Stack series={answer.counts} model={model} top={top} />
        </PlotRow>
      )}
    </Panel>
  );
}

/** Counts at the cursor, else at the last record. */
function Counts({ model, labels }: { readonly model: HeatmapModel; readonly labels: readonly StateLabel[] }) {
  const store = useStore();
  const answer = model.layer.value;
  const step = store.cursor.value;
  if (!answer) return null;
  const record = step === null ? answer.steps.length - 1 : model.steps.value.recordOf(step);
  return labels.slice(0, 5).map((label) => (
    <span key={label} class="side-label" title={`${label} at step ${count(answer.steps[record] ?? 0)}`}>
      <Swatch state={label} size={11} />
      {count(answer.counts[label]?.[record] ?? 0)}
    </span>
  ));
}

interface StackProps {
  readonly series: StateSeries;
  readonly model: HeatmapModel;
  readonly top: number;
}

function Stack({ series, model, top }: StackProps) {
  const store = useStore();
  const read = (): Draw => {
    const [{ left, right }, { records }, theme] = [model.view.value, model.extent.value, store.host.theme.value];
    const hidden = new Set([...store.hidden.value, ...WORST_FIRST.filter((label) => !isFlagged(label))]);
    const range = { start: left, stop: right };
    return (context, size) => drawStack(context, { series, range, records, ...size, theme, hidden, top });
  };
  return <Drawing read={read} inputs={[series, top, model]} />;
}

/** The axis reaches as far as flagged units ever did: two in a hundred must be readable too. */
function topOf(series: StateSeries, units: number): number {
  const flagged = WORST_FIRST.filter(isFlagged);
  const records = Math.max(0, ...flagged.map((label) => series[label]?.length ?? 0));
  let most = 0;
  for (let record = 0; record < records; record++) {
    most = Math.max(
      most,
      flagged.reduce((sum, label) => sum + (series[label]?.[record] ?? 0), 0),
    );
  }
  return roundTop(most / Math.max(1, units));
}
