/** A layer's states over the steps in one table cell. */
import { useComputed } from "@preact/signals";
import { useRef } from "preact/hooks";
import type { Range, StepScale } from "../domain/steps";
import { useStore } from "../state/context";
import { fitCanvas, useFrame } from "../ui/frame";
import { useSize } from "../ui/size";
import { CursorLine } from "./cursor";
import { drawStack, type StateSeries } from "./stack";

interface Props {
  readonly series: StateSeries;
  readonly scale: StepScale;
  readonly range: Range;
  readonly label: string;
}

export function Strip({ series, scale, range, label }: Props) {
  const store = useStore();
  const { ref, size } = useSize<HTMLDivElement>();
  const canvas = useRef<HTMLCanvasElement>(null);
  useFrame(() => {
    const [{ width, height }, theme, hidden] = [size.value, store.host.theme.value, store.hidden.value];
    const element = canvas.current;
    if (!element || width === 0 || height === 0) return null;
    return () => {
      const ratio = fitCanvas(element, width, height);
      const context = element.getContext("2d");
      if (!context) return;
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      drawStack(context, { series, range, records: scale.records, width, height, theme, hidden, top: 1 });
    };
  }, [series, range, scale]);

  const cursor = useComputed(() => {
    const step = store.cursor.value;
    if (step === null) return null;
    const position = scale.recordOf(step) + 0.5 - range.start;
    return (position / (range.stop - range.start)) * size.value.width;
  });

  return (
    <div
      ref={ref}
      class="strip"
      role="img"
      aria-label={label}
      onPointerMove={(event) => {
        const box = event.currentTarget.getBoundingClientRect();
        const share = (event.clientX - box.left) / box.width;
        store.cursor.value = scale.stepAt(range.start + share * (range.stop - range.start));
      }}
      onPointerLeave={() => {
        store.cursor.value = null;
      }}
    >
      <canvas ref={canvas} />
      <CursorLine x={cursor} />
    </div>
  );
}
