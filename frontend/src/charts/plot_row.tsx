/** A chart between the gutters of the heatmap, so that steps stand under steps. */
import { useComputed } from "@preact/signals";
import type { ComponentChildren } from "preact";
import type { HeatmapModel } from "../heatmap/model";
import { useStore } from "../state/context";
import { useSize } from "../ui/size";
import { CursorLine } from "./cursor";

export interface ShareTick {
  /** From the bottom, 0 to 1. */
  readonly share: number;
  readonly text: string;
}

interface Props {
  readonly model: HeatmapModel;
  readonly height: number;
  readonly label: string;
  readonly ticks: readonly ShareTick[];
  readonly side?: ComponentChildren;
  readonly children: ComponentChildren;
  /** Share of the height under the pointer, from the bottom; null once it leaves. */
  readonly onPoint?: (share: number | null) => void;
}

export function PlotRow({ model, height, label, ticks, side, children, onPoint }: Props) {
  const store = useStore();
  const { ref, size } = useSize<HTMLDivElement>();
  const cursor = useComputed(() => {
    const step = store.cursor.value;
    if (step === null) return null;
    const { left, right } = model.view.value;
    return ((model.steps.value.recordOf(step) + 0.5 - left) / (right - left)) * size.value.width;
  });
  return (
    <div class="plot-row" style={{ height: `${height}px` }}>
      <div class="axis-y" aria-hidden="true">
        {ticks.map(({ share, text }) => (
          <span key={`${share} ${text}`} class="tick-y" style={{ bottom: `calc(${share * 100}% - 0.6em)` }}>
            {text}
          </span>
        ))}
      </div>
      <div
        ref={ref}
        class="plot"
        role="img"
        aria-label={label}
        onPointerMove={(event) => {
          const box = event.currentTarget.getBoundingClientRect();
          const { left, right } = model.view.peek();
          const position = left + ((event.clientX - box.left) / box.width) * (right - left);
          store.cursor.value = model.steps.peek().stepAt(position);
          onPoint?.(1 - (event.clientY - box.top) / box.height);
        }}
        onPointerLeave={() => {
          store.cursor.value = null;
          onPoint?.(null);
        }}
      >
        {ticks.map(({ share }) => (
          <div key={share} class="grid-line" style={{ bottom: `${share * 100}%` }} />
        ))}
        {children}
        <CursorLine x={cursor} />
      </div>
      <div class="side">{side}</div>
    </div>
  );
}
