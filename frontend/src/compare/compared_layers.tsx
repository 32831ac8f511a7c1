/** The layers of both runs: units in trouble in each, over steps as two curves, and what chance has to say. */
import { useSignal } from "@preact/signals";
import { useMemo, useState } from "preact/hooks";
import type { Comparison, LayerComparison, Side } from "../api/comparison";
import { type Line, Lines } from "../charts/lines";
import { StepAxis } from "../charts/step_axis";
import { chanceText, isUntouched, sampled, worstDifferenceFirst } from "../domain/comparison";
import { count, counted, number, percent } from "../domain/format";
import { StepScale } from "../domain/steps";
import { useStore } from "../state/context";
import { DataTable } from "../ui/data_table";
import { Name } from "../ui/name";
import { Panel } from "../ui/panel";
import { useSize } from "../ui/size";
import { showPair } from "./paired_heatmaps";

const HEIGHT = 64;
const AXIS_WIDTH = 52;
const FIRST_ROWS = 40;
const TABLE_STEPS = 6;

export function ComparedLayers({ comparison }: { readonly comparison: Comparison }) {
  const [all, setAll] = useState(false);
  const rows = worstDifferenceFirst(comparison.layers);
  const shown = all ? rows : rows.slice(0, FIRST_ROWS);
  const { first, second } = comparison;
  return (
    <Panel
      name="compared"
      title="Layers"
      note="units that are dead, dying, or in another alarm state"
      tools={
        <>
          <span class="line-name">
            <i style={{ background: "var(--line-unit)" }} />
            {first}
          </span>
          <span class="line-name">
            <i class="dashed" style={{ color: "var(--line-threshold)" }} />
            {second}
          </span>
        </>
      }
      table={() => <Twin comparison={comparison} rows={rows} />}
    >
      <table class="layers compared">
        <colgroup>
          {["layer", "side", "side", "chance", "curve"].map((name, index) => (
            <col key={index} class={`of-${name}`} />
          ))}
        </colgroup>
        <thead>
          <tr>
            <th scope="col">Layer</th>
            <th scope="col" class="numeric">
              {first}
            </th>
            <th scope="col" class="numeric">
              {second}
            </th>
            <th scope="col">By chance</th>
            <th scope="col">Share of the units over steps</th>
          </tr>
        </thead>
        <tbody>
          {shown.map((layer) => (
            <Row key={layer.layer} layer={layer} comparison={comparison} />
          ))}
        </tbody>
      </table>
      {shown.length < rows.length && (
        <button type="button" class="button" onClick={() => setAll(true)}>
          Show {counted(rows.length - shown.length, "more layer")}
        </button>
      )}
    </Panel>
  );
}

function Row({ layer, comparison }: { readonly layer: LayerComparison; readonly comparison: Comparison }) {
  const store = useStore();
  return (
    <tr class={store.pair.chosen.value?.compared === layer ? "layer-row chosen" : "layer-row"}>
      <th scope="row">
        <button
          type="button"
          class="link"
          aria-pressed={store.pair.chosen.value?.compared === layer}
          title="Show its heatmaps"
          onClick={() => showPair(store, layer.layer)}
        >
          <Name text={layer.layer} />
        </button>
        <span class="kind">
          {layer.kind}
          {layer.role === "output" && " · output"}
          {layer.matched === "place" && ` · ${layer.other} in ${comparison.second}, matched by place`}
        </span>
      </th>
      <SideCell side={layer.first} trouble={layer.trouble} />
      <SideCell side={layer.second} trouble={layer.trouble} />
      <td>
        <span class={layer.differs ? "strong" : "hint"}>{isUntouched(layer) ? "–" : chanceText(layer.chance)}</span>
      </td>
      <td>
        {layer.shares.flat().some((share) => (share ?? 0) > 0) ? (
          <Curves layer={layer} comparison={comparison} />
        ) : (
          <span class="hint">no unit in trouble at any step</span>
        )}
      </td>
    </tr>
  );
}

function SideCell({ side, trouble }: { readonly side: Side; readonly trouble: string }) {
  if (side.judged === 0) return <td class="numeric hint">not judged yet</td>;
  return (
    <td class="numeric">
      <b>{percent(side.troubled / side.judged)}</b>
      <span class="kind">
        {count(side.troubled)} of {count(side.judged)} {trouble}
      </span>
    </td>
  );
}

function Curves({ layer, comparison }: { readonly layer: LayerComparison; readonly comparison: Comparison }) {
  const scale = useMemo(() => new StepScale(layer.steps), [layer]);
  const range = useSignal(scale.full);
  range.value = scale.full;
  const { ref, size } = useSize<HTMLDivElement>();
  const lines = useMemo<Line[]>(
    () => [
      { name: comparison.first, values: layer.shares[0], color: "unit", width: 1.75 },
      { name: comparison.second, values: layer.shares[1], color: "threshold", width: 1.75, dashed: true },
    ],
    [layer, comparison],
  );
  return (
    <>
      <Lines
        lines={lines}
        scale={scale}
        range={range}
        height={HEIGHT}
        share
        label={`Share of units of ${layer.layer} in trouble over steps, in both runs`}
      />
      <div ref={ref} style={{ marginLeft: `${AXIS_WIDTH}px` }}>
        <StepAxis scale={scale} range={scale.full} width={size.value.width} title={false} />
      </div>
    </>
  );
}

function Twin({ comparison, rows }: { readonly comparison: Comparison; readonly rows: readonly LayerComparison[] }) {
  const sides = rows.flatMap((layer) => [
    { layer, run: comparison.first, curve: layer.shares[0] },
    { layer, run: comparison.second, curve: layer.shares[1] },
  ]);
  return (
    <DataTable
      caption="Share of units in trouble over steps, layer by layer"
      rows={sides}
      columns={[
        { title: "layer", cell: ({ layer }) => layer.layer },
        { title: "run", cell: ({ run }) => run },
        { title: "by chance", cell: ({ layer }) => chanceText(layer.chance) },
        ...Array.from({ length: TABLE_STEPS }, (_, column) => ({
          title: column === 0 ? "at first" : column === TABLE_STEPS - 1 ? "at last" : `${number(column * 20)} %`,
          numeric: true,
          cell: ({ layer, curve }: (typeof sides)[number]) => {
            const record = sampled(layer.steps.length, TABLE_STEPS)[column] ?? 0;
            const share = curve[record];
            return (
              <>
                {share === null || share === undefined ? "–" : percent(share)}{" "}
                <span class="hint">step {count(layer.steps[record] ?? 0)}</span>
              </>
            );
          },
        })),
      ]}
    />
  );
}
