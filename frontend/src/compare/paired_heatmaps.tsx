/** One layer in both runs, one heatmap above the other: the same units, steps and colours. */
import { useComputed } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import type { Comparison } from "../api/comparison";
import type { LayerPair } from "../domain/comparison";
import { count, counted } from "../domain/format";
import { jointScale, type ValueScale } from "../domain/lookup";
import { isFlagged, present } from "../domain/states";
import { Heatmap } from "../heatmap/heatmap";
import { createHeatmapModel, type HeatmapModel } from "../heatmap/model";
import { CellReadout } from "../heatmap/readout";
import { apart, createShared } from "../heatmap/shared";
import { SharedAxis } from "../heatmap/shared_axis";
import { scaleOfValues } from "../heatmap/sources";
import { TileFailure } from "../heatmap/tile_failure";
import { ColorScale } from "../layer/color_scale";
import { HeatmapTools } from "../layer/heatmap_tools";
import { SelectionBar } from "../layer/selection_bar";
import { UnitTable } from "../layer/unit_table";
import { useStore } from "../state/context";
import type { LayerScope } from "../state/layer_scope";
import type { Store } from "../state/store";
import { Name } from "../ui/name";
import { Failure, Skeleton } from "../ui/notices";
import { Panel } from "../ui/panel";
import { pairCaveats, pairSentence } from "./pair_words";

const PANEL = "pair";

/** Shows the heatmaps of a layer, and brings them on screen: the list of layers is below. */
export function showPair(store: Store, layer: string): void {
  store.go({ pair: layer, rows: null });
  document.getElementById(PANEL)?.scrollIntoView({ block: "start" });
}

interface Side {
  readonly run: string;
  readonly layer: string;
  readonly scope: LayerScope;
  /** Shows a unit of this run beside its layer. */
  readonly open: (unit: number | null) => void;
}

export function PairedHeatmaps({ comparison }: { readonly comparison: Comparison }) {
  const store = useStore();
  const pair = store.pair.chosen.value;
  if (pair === null) return null;
  const sides = sidesOf(store, comparison, pair);
  const failed = sides.find(({ scope: { layer } }) => layer.state.value.error !== null);
  const loaded = sides.every(({ scope: { layer } }) => layer.state.value.value !== null);
  const title = `Units over steps in ${pair.first ?? pair.second}`;
  if (!loaded) {
    const error = failed?.scope.layer.state.value.error;
    return (
      <Panel name={PANEL} title={title}>
        {failed && error ? <Failure error={error} retry={failed.scope.layer.retry} /> : <Skeleton height={420} />}
      </Panel>
    );
  }
  // Cells, windows and tiles belong to this pair: another one begins anew.
  const units = sides.map(({ scope: { layer } }) => layer.state.value.value?.units);
  const key = [...sides.flatMap(({ run, layer }) => [run, layer]), ...units].join("\n");
  return <Heatmaps key={key} title={title} comparison={comparison} pair={pair} sides={sides} />;
}

function sidesOf(store: Store, { first, second }: Comparison, pair: LayerPair): Side[] {
  const [one, other] = store.pair.scopes;
  const goTo = (run: string, versus: string, layer: string) => (unit: number | null) =>
    store.go({ run, versus, pair: layer, layer, unit, rows: null });
  const sides: Side[] = [];
  if (pair.first !== null) {
    sides.push({ run: first, layer: pair.first, scope: one, open: goTo(first, second, pair.first) });
  }
  if (pair.second !== null) {
    sides.push({ run: second, layer: pair.second, scope: other, open: goTo(second, first, pair.second) });
  }
  return sides;
}

interface Props {
  readonly title: string;
  readonly comparison: Comparison;
  readonly pair: LayerPair;
  readonly sides: readonly Side[];
}

function Heatmaps({ title, comparison, pair, sides }: Props) {
  const store = useStore();
  const models = useModels(sides);
  const first = models[0] as HeatmapModel;
  const answers = models.flatMap(({ layer }) => layer.value ?? []);
  const [one, other] = answers;
  const shown = models.map(({ statistic }) => statistic.value) as [string | null, string | null];
  const statistics = store.place.value.what === "states" ? null : shown;
  const caveats = one && other ? pairCaveats(comparison, pair, [one, other], statistics) : [];
  return (
    <div id={PANEL}>
      <Panel
        name={PANEL}
        title={title}
        tools={<HeatmapTools model={first} />}
        table={() =>
          models.map((model, at) => (
            <section key={at} class="pair-table">
              <h3>
                <Name text={sides[at]?.run ?? ""} />
              </h3>
              <UnitTable model={model} />
            </section>
          ))
        }
      >
        <p>
          {pairSentence(comparison, pair)} <span class="hint">{caveats.join(" ")}</span>
        </p>
        {models.map((model, at) => (
          <div key={at} class="pair-side">
            <SideHead side={sides[at] as Side} model={model} />
            <TileFailure model={model} />
            <Heatmap model={model} />
          </div>
        ))}
        <SharedAxis model={first} />
        <div class="readout-row">
          <span class="spacer" />
          <ColorScale model={first} />
        </div>
        {models.map((model, at) => (
          <SelectionBar key={at} model={model} run={sides[at]?.run} />
        ))}
      </Panel>
    </div>
  );
}

/** One window for both. With as many units in each, one focused cell, too: then rows are the same units. */
function useModels(sides: readonly Side[]): readonly HeatmapModel[] {
  const store = useStore();
  const scopes = sides.map(({ scope }) => scope);
  const valueScale = useComputed(() => jointOf(scopes));
  const [shared, models] = useMemo(() => {
    const shared = createShared(store, scopes);
    const units = new Set(scopes.map(({ layer }) => layer.state.peek().value?.units));
    const models = sides.map(({ scope, open }) =>
      createHeatmapModel(store, { scope, shared: units.size > 1 ? apart(shared) : shared, valueScale, open }),
    );
    return [shared, models] as const;
  }, [store]);
  useEffect(
    () => () => {
      for (const model of models) model.dispose();
      shared.dispose();
    },
    [models, shared],
  );
  return models;
}

/** Colours wait for the distributions of both, so that they never change their meaning. */
function jointOf(scopes: readonly LayerScope[]): ValueScale | null {
  const found = scopes.filter(({ statistic }) => statistic.value !== null).map(scaleOfValues);
  return found.reduce((one, other) => one && other && jointScale(one, other), found[0] ?? null);
}

/** Whose heatmap it is, how the run ended; and the cell that is looked at, in both at the same place. */
function SideHead({ side, model }: { readonly side: Side; readonly model: HeatmapModel }) {
  const answer = model.layer.value;
  if (!answer) return null;
  const flagged = present(answer.states).filter(isFlagged);
  const counts = flagged.map((label) => `${count(answer.states[label] ?? 0)} ${label}`);
  return (
    <div class="pair-head">
      <b>
        <Name text={side.run} />
      </b>
      <CellReadout model={model} run={side.run}>
        <Name text={side.layer} /> · {counted(answer.units, "unit")}: {counts.join(", ") || "none flagged"} at step{" "}
        {count(answer.steps.at(-1) ?? 0)}
      </CellReadout>
      <span class="spacer" />
      <button type="button" class="link" onClick={() => side.open(null)}>
        Open layer
      </button>
    </div>
  );
}
