/** The line below the heatmap: the cell under the pointer, else the focused one; spoken where focus moved it. */
import type { ReadonlySignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { count, number } from "../domain/format";
import { StateName } from "../ui/swatch";
import type { HeatmapModel } from "./model";
import { askExact, NO_RECORD_HERE, type Readout, readoutOf, sentenceOf } from "./readout_text";
import type { Cell } from "./viewport";

const REST_MILLISECONDS = 60;
const SPEAK_MILLISECONDS = 250;

interface Props {
  readonly model: HeatmapModel;
  /** The run, where there are two: spoken, not shown. */
  readonly run?: string | undefined;
}

const HINT = "Point at a cell, or press an arrow key, to read it.";

/** @param children what stands there while no cell is looked at. */
export function CellReadout({ model, run, children = HINT }: Props & { readonly children?: ComponentChildren }) {
  const cell = model.hover.value ?? model.focus.value;
  void model.arrivals.value;
  useExactCells(model, cell);
  const readout = cell ? readoutOf(model, cell) : null;
  return (
    <div class="readout">
      {readout ? <Facts readout={readout} /> : <span class="hint">{children}</span>}
      <Spoken model={model} run={run} focus={model.focus} />
    </div>
  );
}

function Facts({ readout }: { readonly readout: Readout }) {
  return (
    <>
      <b>unit {readout.unit === null ? "…" : count(readout.unit)}</b>
      <span>step {count(readout.step)}</span>
      {readout.state !== null ? (
        <StateName state={readout.state} />
      ) : (
        <span class="hint">{readout.recorded ? "…" : NO_RECORD_HERE}</span>
      )}
      {readout.statistic !== null && readout.value !== null && (
        <span>
          {readout.statistic} <b>{Number.isNaN(readout.value) ? "not recorded" : number(readout.value)}</b>
        </span>
      )}
      {readout.happened !== null && <b>{readout.happened}</b>}
      {readout.group !== null && <span class="hint">{readout.group}</span>}
    </>
  );
}

/** Once the pointer rests, the tiles with the exact cells are asked for. */
function useExactCells(model: HeatmapModel, cell: Cell | null): void {
  const [, refresh] = useState(0);
  useEffect(() => {
    if (!cell) return;
    const timer = window.setTimeout(() => {
      void askExact(model, cell).then(() => refresh((times) => times + 1));
    }, REST_MILLISECONDS);
    return () => window.clearTimeout(timer);
  }, [cell?.row, cell?.record, model]);
}

interface SpokenProps extends Props {
  readonly focus: ReadonlySignal<Cell | null>;
}

function Spoken({ model, run, focus }: SpokenProps) {
  const [text, setText] = useState("");
  const cell = focus.value;
  useEffect(() => {
    if (!cell) return;
    const timer = window.setTimeout(async () => {
      await askExact(model, cell);
      const sentence = sentenceOf(readoutOf(model, cell));
      setText(run === undefined ? sentence : `${run}: ${sentence}`);
    }, SPEAK_MILLISECONDS);
    return () => window.clearTimeout(timer);
  }, [cell, model, run]);
  return (
    <span class="sr-only" aria-live="polite">
      {text}
    </span>
  );
}
