/** The heatmap's twin: the units on screen with their present state and what decided it. */
import { useEffect, useState } from "preact/hooks";
import { likeText } from "../api/api";
import type { ApiError } from "../api/result";
import type { UnitRow, UnitsAnswer } from "../api/types";
import { eventText } from "../domain/events";
import { count, counted, number } from "../domain/format";
import type { HeatmapModel } from "../heatmap/model";
import { useStore } from "../state/context";
import { DataTable } from "../ui/data_table";
import { Failure, Skeleton } from "../ui/notices";
import { StateName } from "../ui/swatch";

const LIMIT = 500;

export function UnitTable({ model }: { readonly model: HeatmapModel }) {
  const { answer, error, retry } = useUnits(model);
  if (error) return <Failure error={error} retry={retry} />;
  if (!answer) return <Skeleton height={240} />;
  const statistic = model.statistic.value;
  return (
    <>
      <DataTable<UnitRow>
        caption={model.title.value}
        rows={answer.units}
        columns={[
          {
            title: "unit",
            numeric: true,
            cell: ({ unit }) => (
              <button type="button" class="link" onClick={() => model.open(unit)}>
                {count(unit)}
              </button>
            ),
          },
          { title: "state", cell: ({ state }) => <StateName state={state} /> },
          { title: "since step", numeric: true, cell: ({ since_step }) => number(since_step) },
          { title: "examples", numeric: true, cell: ({ examples }) => number(examples) },
          { title: "rate at most", numeric: true, cell: ({ rate_upper_bound }) => number(rate_upper_bound) },
          { title: "events", cell: ({ unit }) => eventText(model.unitEvents.value.get(unit) ?? [], count) },
          ...(statistic === null
            ? []
            : [{ title: statistic, numeric: true, cell: (row: UnitRow) => number(row.statistics[statistic]) }]),
          { title: "certainty", cell: ({ certificate }) => certificate?.word ?? "" },
          { title: "why", cell: ({ why }) => why },
        ]}
      />
      {answer.matching > answer.units.length && (
        <p class="hint">
          The first {counted(answer.units.length, "unit")} of {count(answer.matching)}. Export has all of them.
        </p>
      )}
    </>
  );
}

interface Units {
  readonly answer: UnitsAnswer | null;
  readonly error: ApiError | null;
  readonly retry: () => void;
}

function useUnits(model: HeatmapModel): Units {
  const store = useStore();
  const [found, setFound] = useState<Omit<Units, "retry">>({ answer: null, error: null });
  const [attempt, setAttempt] = useState(0);
  const [query, like] = [model.query.value, model.like.value];
  const { order, rows } = store.place.value;
  const version = model.layer.value?.version;
  useEffect(() => {
    if (!query || like === undefined) return;
    const controller = new AbortController();
    const { top, bottom } = model.view.peek();
    const last = Math.min(Math.ceil(bottom), model.extent.peek().rows) - 1;
    const window_ = rows ? { first: Math.floor(top), last } : {};
    void store.api.units({ ...query, ...window_, order, like, limit: LIMIT }, controller.signal).then((result) => {
      if (controller.signal.aborted) return;
      setFound(result.ok ? { answer: result.value, error: null } : { answer: null, error: result.error });
    });
    return () => controller.abort();
  }, [query, order, like && likeText(like), rows, version, attempt]);
  return { ...found, retry: () => setAttempt((times) => times + 1) };
}
