/** Every layer in one row: what it is, how its units fare, and since when. */
import { useComputed } from "@preact/signals";
import { useState } from "preact/hooks";
import type { LayerSummary, Overview } from "../api/types";
import { EventMarks } from "../charts/event_marks";
import { StepAxis } from "../charts/step_axis";
import { Strip } from "../charts/strip";
import { count, counted, percent, phrase } from "../domain/format";
import { deadOrDying, isFlagged, present } from "../domain/states";
import type { Range, StepScale } from "../domain/steps";
import { useStore } from "../state/context";
import type { SortKey } from "../state/place";
import { Name } from "../ui/name";
import { Panel } from "../ui/panel";
import { useSize } from "../ui/size";
import { StateName } from "../ui/swatch";
import { MixBar } from "./mix_bar";
import { filtered, sorted } from "./sorting";
import { StripTable } from "./strip_table";

/** More rows come on request: each has a canvas, and the worst come first. */
const FIRST_ROWS = 100;

interface Props {
  readonly overview: Overview;
  readonly scale: StepScale;
  readonly range: Range;
}

export function LayerTable({ overview, scale, range }: Props) {
  const store = useStore();
  const { sort, find, attention } = store.place.value;
  const { ref, size } = useSize<HTMLDivElement>();
  const needy = overview.layers.filter(({ level }) => level !== "ok").length;
  const rows = sorted(filtered(overview.layers, find, attention), sort);
  const [all, setAll] = useState(false);
  const shown = all ? rows : rows.slice(0, FIRST_ROWS);
  return (
    <Panel
      name="layers"
      title="Layers"
      tools={<Tools total={overview.layers.length} needy={needy} />}
      table={() => <StripTable layers={rows} steps={overview.steps} />}
    >
      <table class="layers">
        <colgroup>
          {["layer", "units", "mix", "share", "strip", "onset", "cause"].map((name) => (
            <col key={name} class={`of-${name}`} />
          ))}
        </colgroup>
        <thead>
          <tr>
            <Heading sort="name" title="Layer" />
            <Heading sort="units" title="Units" numeric />
            <th scope="col">States now</th>
            <Heading sort="share" title="Dead, dying" numeric />
            <th scope="col">States over steps</th>
            <Heading sort="onset" title="Onset" numeric />
            <th scope="col">Cause</th>
          </tr>
        </thead>
        <tbody>
          {shown.map((layer) => (
            <Row key={layer.layer} layer={layer} scale={scale} range={range} />
          ))}
        </tbody>
        <tfoot>
          <tr>
            <td colSpan={4}>
              {rows.length === 0 && <NoRows />}
              {shown.length < rows.length && (
                <button type="button" class="button" onClick={() => setAll(true)}>
                  Show {counted(rows.length - shown.length, "more layer")}
                </button>
              )}
            </td>
            <td>
              <div ref={ref}>
                {rows.length > 0 && <StepAxis scale={scale} range={range} width={size.value.width} />}
              </div>
            </td>
            <td colSpan={2} />
          </tr>
        </tfoot>
      </table>
    </Panel>
  );
}

function Row({
  layer,
  scale,
  range,
}: {
  readonly layer: LayerSummary;
  readonly scale: StepScale;
  readonly range: Range;
}) {
  const store = useStore();
  const open = (): void => store.go({ layer: layer.layer, unit: null, rows: null });
  const share = deadOrDying(layer.states) / Math.max(1, layer.units);
  const flagged = present(layer.states).filter(isFlagged);
  const revived = (store.overview.state.value.value?.revivals ?? [])
    .filter((revival) => revival.layer === layer.layer)
    .map(({ step }) => ({ kind: "revived" as const, step }));
  const kind = [layer.kind, layer.activation_function, layer.role === "output" ? "output" : null];
  return (
    <tr class={`layer-row level-${layer.level}`} onClick={open}>
      <th scope="row">
        <button type="button" class="link" onClick={open}>
          <Name text={layer.layer} />
        </button>
        <span class="kind">{kind.filter(Boolean).join(" · ")}</span>
      </th>
      <td class="numeric">{count(layer.units)}</td>
      <td class="mix-cell">
        <MixBar states={layer.states} />
        <span class="mix-text">
          {flagged.slice(0, 2).map((label) => (
            <span key={label} class="mix-count">
              {count(layer.states[label] ?? 0)} <StateName state={label} />
            </span>
          ))}
          {flagged.length > 2 && <span class="hint">{flagged.length - 2} more</span>}
        </span>
      </td>
      <td class={share > 0 ? "numeric strong" : "numeric hint"}>{percent(share)}</td>
      <td>
        {revived.length > 0 && <EventMarks events={revived} scale={scale} range={range} />}
        <Strip series={layer.strip} scale={scale} range={range} label={`States of ${layer.layer} over steps`} />
      </td>
      <td class="numeric">{layer.onset_step === null ? <span class="hint">–</span> : count(layer.onset_step)}</td>
      <td class="cause">{layer.cause === null ? <span class="hint">–</span> : phrase(layer.cause)}</td>
    </tr>
  );
}

function Heading({
  sort,
  title,
  numeric = false,
}: {
  readonly sort: SortKey;
  readonly title: string;
  readonly numeric?: boolean;
}) {
  const store = useStore();
  const active = useComputed(() => store.place.value.sort === sort);
  return (
    <th scope="col" class={numeric ? "numeric" : undefined} aria-sort={active.value ? "other" : "none"}>
      <button
        type="button"
        class={active.value ? "sort active" : "sort"}
        onClick={() => store.go({ sort: active.peek() ? "worst" : sort })}
      >
        {title}
      </button>
    </th>
  );
}

function Tools({ total, needy }: { readonly total: number; readonly needy: number }) {
  const store = useStore();
  const { sort, attention, find } = store.place.value;
  return (
    <div class="tools">
      <input
        class="input"
        type="search"
        placeholder="Filter layers"
        aria-label="Filter layers"
        value={find}
        onInput={(event) => store.go({ find: event.currentTarget.value })}
      />
      <div class="segments" role="group" aria-label="Which layers">
        <button type="button" aria-pressed={!attention} onClick={() => store.go({ attention: false })}>
          All {count(total)}
        </button>
        <button type="button" aria-pressed={attention} onClick={() => store.go({ attention: true })}>
          Need attention {count(needy)}
        </button>
      </div>
      <div class="segments" role="group" aria-label="Order of layers">
        <button type="button" aria-pressed={sort === "worst"} onClick={() => store.go({ sort: "worst" })}>
          Worst first
        </button>
        <button type="button" aria-pressed={sort === "order"} onClick={() => store.go({ sort: "order" })}>
          Model order
        </button>
      </div>
    </div>
  );
}

function NoRows() {
  const store = useStore();
  return (
    <p class="hint">
      No layer matches.{" "}
      <button type="button" class="link" onClick={() => store.go({ find: "", attention: false })}>
        Show all
      </button>
    </p>
  );
}
