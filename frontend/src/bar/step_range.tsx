/** Which steps are on screen: a brush over the run's flagged units, and two numbers. */
import { useComputed } from "@preact/signals";
import { useMemo, useState } from "preact/hooks";
import { drawStack, roundTop, type StateSeries } from "../charts/stack";
import { isFlagged, WORST_FIRST } from "../domain/states";
import { type Range, StepScale } from "../domain/steps";
import { useStore } from "../state/context";
import { type Draw, Drawing } from "../ui/drawing";
import { Icon } from "../ui/icons";
import { useSize } from "../ui/size";

const LEAST = 2;
/** A healthy run should look like one: few flagged units stay low. */
const LEAST_TOP = 0.2;

export function StepRange() {
  const store = useStore();
  const { ref, size } = useSize<HTMLDivElement>();
  const scale = useComputed(() => new StepScale(store.overview.state.value.value?.steps ?? []));
  const range = useComputed(() => scale.value.rangeOf(store.place.value.steps));
  const [drag, setDrag] = useState<{
    readonly part: "start" | "stop" | "all";
    readonly at: number;
    readonly from: Range;
  } | null>(null);
  if (scale.value.records < LEAST) return null;

  const all = scale.value.full;
  const show = (next: Range): void => store.go({ steps: scale.value.stepsOf(next) });
  const moved = (part: "start" | "stop" | "all", from: Range, records: number): Range => {
    const size_ = from.stop - from.start;
    if (part === "all") {
      const start = Math.min(Math.max(from.start + records, 0), all.stop - size_);
      return { start, stop: start + size_ };
    }
    if (part === "start") return { ...from, start: Math.min(Math.max(from.start + records, 0), from.stop - LEAST) };
    return { ...from, stop: Math.max(Math.min(from.stop + records, all.stop), from.start + LEAST) };
  };
  const down = (part: "start" | "stop" | "all") => (event: PointerEvent) => {
    event.stopPropagation();
    ref.current?.setPointerCapture(event.pointerId);
    setDrag({ part, at: event.clientX, from: range.peek() });
  };
  const shown = range.value;
  const share = (position: number): string => `${(position / all.stop) * 100}%`;
  const handle = (part: "start" | "stop") => {
    const record = part === "start" ? shown.start : shown.stop - 1;
    return (
      <div
        class={`handle ${part}`}
        role="slider"
        tabIndex={0}
        aria-label={part === "start" ? "First step" : "Last step"}
        aria-valuemin={scale.value.stepAt(0)}
        aria-valuemax={scale.value.stepAt(all.stop - 1)}
        aria-valuenow={scale.value.stepAt(record)}
        style={{ left: share(part === "start" ? shown.start : shown.stop) }}
        onPointerDown={down(part)}
        onKeyDown={(event) => {
          const direction = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
          if (direction === undefined) return;
          event.preventDefault();
          show(moved(part, range.peek(), direction * (event.shiftKey ? 10 : 1)));
        }}
      />
    );
  };
  return (
    <div class="step-range" role="group" aria-label="Steps on screen">
      <StepInput
        label="First step"
        value={scale.value.stepAt(shown.start)}
        onChange={(step) => store.go({ steps: ordered(step, scale.value.stepAt(shown.stop - 1)) })}
      />
      <div
        ref={ref}
        class="brush"
        title="Drag to choose the steps on screen; double-click for all"
        onPointerDown={down("all")}
        onPointerMove={(event) => {
          if (!drag) return;
          const records = ((event.clientX - drag.at) / size.value.width) * all.stop;
          show(moved(drag.part, drag.from, records));
        }}
        onPointerUp={() => setDrag(null)}
        onPointerCancel={() => setDrag(null)}
        onDblClick={() => store.go({ steps: null })}
      >
        <Backdrop scale={scale.value} />
        <div class="brush-outside" style={{ left: 0, width: share(shown.start) }} />
        <div class="brush-outside" style={{ right: 0, left: share(shown.stop) }} />
        {handle("start")}
        {handle("stop")}
      </div>
      <StepInput
        label="Last step"
        value={scale.value.stepAt(shown.stop - 1)}
        onChange={(step) => store.go({ steps: ordered(scale.value.stepAt(shown.start), step) })}
      />
      {store.place.value.steps !== null && (
        <button
          type="button"
          class="button icon quiet"
          aria-label="All steps"
          title="All steps"
          onClick={() => store.go({ steps: null })}
        >
          <Icon name="close" />
        </button>
      )}
    </div>
  );
}

function ordered(first: number, last: number): readonly [number, number] {
  return first <= last ? [first, last] : [last, first];
}

interface InputProps {
  readonly label: string;
  readonly value: number;
  readonly onChange: (step: number) => void;
}

function StepInput({ label, value, onChange }: InputProps) {
  return (
    <input
      class="input step-input"
      type="text"
      inputMode="numeric"
      aria-label={label}
      value={value.toLocaleString("en-US")}
      onChange={(event) => {
        const step = Number(event.currentTarget.value.replace(/[,\s]/g, ""));
        if (Number.isInteger(step) && step >= 0) onChange(step);
        else event.currentTarget.value = value.toLocaleString("en-US");
      }}
    />
  );
}

/** Flagged units of the whole run, faintly. */
function Backdrop({ scale }: { readonly scale: StepScale }) {
  const store = useStore();
  const overview = store.overview.state.value.value;
  const series = useMemo(() => runSeries(overview?.layers.map(({ strip }) => strip) ?? []), [overview]);
  const read = (): Draw => {
    const [theme, hidden, { records }] = [store.host.theme.value, store.hidden.value, scale];
    const top = roundTop(Math.max(LEAST_TOP, mostFlagged(series, records)));
    return (context, size) => drawStack(context, { series, range: scale.full, records, ...size, theme, hidden, top });
  };
  return <Drawing read={read} inputs={[series, scale]} />;
}

/** All layers' strips, added up. */
export function runSeries(strips: readonly StateSeries[]): StateSeries {
  const sum: Partial<Record<(typeof WORST_FIRST)[number], number[]>> = {};
  for (const strip of strips) {
    for (const label of WORST_FIRST) {
      strip[label]?.forEach((units, record) => {
        sum[label] ??= [];
        const into = sum[label];
        into[record] = (into[record] ?? 0) + units;
      });
    }
  }
  return sum;
}

function mostFlagged(series: StateSeries, records: number): number {
  let most = 0;
  for (let record = 0; record < records; record++) {
    let [flagged, all] = [0, 0];
    for (const label of WORST_FIRST) {
      const units = series[label]?.[record] ?? 0;
      all += units;
      if (isFlagged(label)) flagged += units;
    }
    if (all > 0) most = Math.max(most, flagged / all);
  }
  return most;
}
