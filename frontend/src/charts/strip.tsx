/** A layer's states over the steps in one table cell. */
import { useComputed } from "@preact/signals";
import type { Range, StepScale } from "../domain/steps";
import { useStore } from "../state/context";
import { type Draw, Drawing } from "../ui/drawing";
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
  const read = (): Draw => {
    const [theme, hidden] = [store.host.theme.value, store.hidden.value];
    return (context, size) =>
      drawStack(context, { series, range, records: scale.records, ...size, theme, hidden, top: 1 });
  };

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
      <Drawing read={read} inputs={[series, range, scale]} />
      <CursorLine x={cursor} />
    </div>
  );
}
