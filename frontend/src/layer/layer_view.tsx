/** One layer: which units do what, when; and how a statistic spreads across them. */
import { useEffect, useMemo } from "preact/hooks";
import { DistributionChart } from "../charts/distribution_chart";
import { EventsChart } from "../charts/events_chart";
import { StateCounts } from "../charts/state_counts";
import { Heatmap } from "../heatmap/heatmap";
import { createLayerModel } from "../heatmap/model";
import { CellReadout } from "../heatmap/readout";
import { SharedAxis } from "../heatmap/shared_axis";
import { TileFailure } from "../heatmap/tile_failure";
import { useStore } from "../state/context";
import { Failure, Skeleton } from "../ui/notices";
import { Panel } from "../ui/panel";
import { ColorScale } from "./color_scale";
import { HeatmapTools } from "./heatmap_tools";
import { LayerHeader } from "./layer_header";
import { SelectionBar } from "./selection_bar";
import { UnitTable } from "./unit_table";

export function LayerView() {
  const store = useStore();
  const model = useMemo(() => createLayerModel(store), [store]);
  useEffect(() => () => model.dispose(), [model]);
  const { value: layer, error, loading } = store.layer.state.value;
  if (!layer) {
    return (
      <main class="view">
        {error ? (
          <Failure title="This layer cannot be shown" error={error} retry={store.layer.retry}>
            <button type="button" class="button" onClick={() => store.go({ layer: null, unit: null })}>
              Back to the overview
            </button>
          </Failure>
        ) : (
          <LayerSkeleton />
        )}
      </main>
    );
  }
  return (
    <main class={loading ? "view refreshing" : "view"}>
      <LayerHeader layer={layer} />
      {error && <Failure error={error} retry={store.layer.retry} />}
      {layer.records === 0 ? (
        <p class="notice">This layer has no records yet. They appear here as training goes on.</p>
      ) : (
        <>
          <Panel
            name="heatmap"
            title="Units over steps"
            tools={<HeatmapTools model={model} />}
            table={() => <UnitTable model={model} />}
          >
            <TileFailure model={model} />
            <Heatmap model={model} />
            <SharedAxis model={model} />
            <div class="readout-row">
              <CellReadout model={model} />
              <span class="spacer" />
              <ColorScale model={model} />
            </div>
            <SelectionBar model={model} />
          </Panel>
          <EventsChart model={model} />
          <StateCounts model={model} />
          {model.statistic.value === null ? <SharedAxis model={model} /> : <DistributionChart model={model} />}
        </>
      )}
    </main>
  );
}

function LayerSkeleton() {
  return (
    <>
      <Skeleton height={56} label="Loading the layer" />
      <Skeleton height={360} />
      <Skeleton height={96} />
      <Skeleton height={148} />
    </>
  );
}
