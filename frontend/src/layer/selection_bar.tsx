/** What was brushed: which units, which steps, their states at both ends, and a CSV of them. */
import { useEffect, useState } from "preact/hooks";
import { count, counted, csvLine } from "../domain/format";
import { WORST_FIRST } from "../domain/states";
import type { HeatmapModel } from "../heatmap/model";
import { countSelection, MOST_SELECTED, type Selection, type SelectionCounts, type Tally } from "../heatmap/selection";
import { useStore } from "../state/context";
import { Swatch } from "../ui/swatch";
import { saveText } from "./save_picture";

const MOST_ROWS = 5000;

interface Props {
  readonly model: HeatmapModel;
  /** The run, where there are two. */
  readonly run?: string | undefined;
}

export function SelectionBar({ model, run }: Props) {
  const selection = model.selection.value;
  return selection && <Bar model={model} run={run} selection={selection} />;
}

function Bar({ model, run, selection }: Props & { readonly selection: Selection }) {
  const store = useStore();
  const counts = useCounts(model, selection);
  const [failed, setFailed] = useState<string | null>(null);
  const { firstRow, lastRow, firstRecord, lastRecord } = selection;
  const units = lastRow - firstRow + 1;
  const steps = model.steps.value.steps;
  const [first, last] = [steps[firstRecord] ?? 0, steps[lastRecord] ?? 0];
  const download = async (): Promise<void> => {
    const [query, like] = [model.query.peek(), model.like.peek() ?? null];
    const order = store.place.peek().order;
    if (!query) return;
    const asked = { ...query, first: firstRow, last: lastRow, order, like, limit: MOST_ROWS };
    const answer = await store.api.units(asked, new AbortController().signal);
    setFailed(answer.ok ? null : answer.error.sentence);
    if (!answer.ok) return;
    const statistics = Object.keys(answer.value.units[0]?.statistics ?? {});
    const lines = answer.value.units.map((unit) =>
      csvLine([
        unit.unit,
        unit.state,
        unit.since_step,
        unit.examples,
        unit.rate_upper_bound,
        unit.why,
        unit.certificate?.word,
        ...statistics.map((name) => unit.statistics[name]),
      ]),
    );
    const named = ["unit", "state", "since_step", "examples", "rate_upper_bound", "why", "certainty"];
    const head = csvLine([...named, ...statistics]);
    saveText([head, ...lines, ""].join("\n"), `${[run, query.layer].filter(Boolean).join("_")}_selection.csv`);
  };
  return (
    <div class="selection-bar" role="status">
      {run !== undefined && <span class="name">{run}</span>}
      <b>{counted(units, "unit")}</b>
      <span>
        rows {count(firstRow)} to {count(lastRow)}, steps {count(first)} to {count(last)}
      </span>
      {counts && (
        <>
          <TallyView title={`at step ${count(first)}`} tally={counts.atFirst} />
          <TallyView title={`at step ${count(last)}`} tally={counts.atLast} />
        </>
      )}
      {failed !== null && <span class="hint">{failed}</span>}
      {units > MOST_SELECTED && <span class="hint">too many units to count here</span>}
      <span class="spacer" />
      <button
        type="button"
        class="button"
        onClick={() => model.moveTo({ left: firstRecord, right: lastRecord + 1, top: firstRow, bottom: lastRow + 1 })}
      >
        Zoom to it
      </button>
      <button type="button" class="button" onClick={() => void download()}>
        CSV
      </button>
      <button
        type="button"
        class="button"
        onClick={() => {
          model.selection.value = null;
        }}
      >
        Clear
      </button>
    </div>
  );
}

function TallyView({ title, tally }: { readonly title: string; readonly tally: Tally }) {
  return (
    <span class="tally">
      <span class="hint">{title}</span>
      {WORST_FIRST.filter((label) => tally[label]).map((label) => (
        <span key={label} class="tally-part" title={label}>
          <Swatch state={label} size={12} />
          {count(tally[label] ?? 0)} {label}
        </span>
      ))}
    </span>
  );
}

function useCounts(model: HeatmapModel, selection: Selection): SelectionCounts | null {
  const [counts, setCounts] = useState<SelectionCounts | null>(null);
  const source = model.stateSource.value;
  useEffect(() => {
    let current = true;
    const timer = window.setTimeout(async () => {
      const found = source && (await countSelection(source, model.tiles, selection));
      if (current) setCounts(found);
    }, 80);
    return () => {
      current = false;
      window.clearTimeout(timer);
    };
  }, [model, source, selection]);
  return counts;
}
