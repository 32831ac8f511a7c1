/** The run at a glance: one sentence, what is wrong and why, and the layers, worst first. */
import { useComputed } from "@preact/signals";
import { StepScale } from "../domain/steps";
import { useStore } from "../state/context";
import { Failure, Skeleton } from "../ui/notices";
import { DataQuality } from "./data_quality";
import { Findings } from "./findings";
import { Headline } from "./headline";
import { LayerTable } from "./layer_table";
import { RunCharts } from "./run_charts";
import { RunEvents } from "./run_events";

export function OverviewView() {
  const store = useStore();
  const { value: overview, error, loading } = store.overview.state.value;
  const scale = useComputed(() => new StepScale(store.overview.state.value.value?.steps ?? []));
  const range = useComputed(() => scale.value.rangeOf(store.place.value.steps));
  if (!overview) {
    return (
      <main class="view">
        {error ? (
          <Failure title="This run cannot be shown" error={error} retry={store.overview.retry} />
        ) : (
          <OverviewSkeleton />
        )}
      </main>
    );
  }
  return (
    <main class={loading ? "view refreshing" : "view"}>
      <Headline overview={overview} />
      {error && <Failure error={error} retry={store.overview.retry} />}
      {overview.records === 0 ? (
        <p class="notice">
          This run has begun and has no record yet. Records appear here as training goes on; nothing needs to be
          reloaded.
        </p>
      ) : (
        <>
          <Findings findings={overview.findings} />
          <LayerTable overview={overview} scale={scale.value} range={range.value} />
          <RunEvents overview={overview} />
          <RunCharts overview={overview} scale={scale.value} range={range.value} />
        </>
      )}
      <DataQuality overview={overview} />
    </main>
  );
}

function OverviewSkeleton() {
  return (
    <>
      <Skeleton height={64} label="Loading the run" />
      <Skeleton height={120} />
      {[0, 1, 2, 3, 4].map((row) => (
        <Skeleton key={row} height={40} />
      ))}
    </>
  );
}
