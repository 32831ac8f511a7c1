/** Lines over records: loss, learning rate, and a unit's statistics. */
import { type ReadonlySignal, useComputed } from "@preact/signals";
import { useMemo } from "preact/hooks";
import type { Series } from "../api/types";
import { number, percent } from "../domain/format";
import { LINE_COLORS, type LineColor } from "../domain/palette";
import type { Range, StepScale } from "../domain/steps";
import { useStore } from "../state/context";
import { type Draw, Drawing } from "../ui/drawing";
import { useSize } from "../ui/size";
import { CursorLine } from "./cursor";
import { type Domain, domainOf, onDomain, placeOn, shareDomain } from "./line_domain";

export interface Line {
  readonly name: string;
  readonly values: Series;
  readonly color: LineColor;
  readonly width?: number;
  /** Drawn in dashes: two lines are told apart by more than their colour. */
  readonly dashed?: boolean;
}

/** A threshold: a dashed line at one value. */
export interface Level {
  readonly value: number;
  readonly color: LineColor;
}

interface Props {
  readonly lines: readonly Line[];
  readonly levels?: readonly Level[];
  readonly scale: StepScale;
  readonly range: ReadonlySignal<Range>;
  readonly height: number;
  readonly label: string;
  /** Values are shares: the axis reads in percent and begins at zero. */
  readonly share?: boolean;
}

const NO_LEVELS: readonly Level[] = [];

export function Lines({ lines, levels = NO_LEVELS, scale, range, height, label, share = false }: Props) {
  const store = useStore();
  const { ref, size } = useSize<HTMLDivElement>();
  const domain = useMemo(
    () =>
      share
        ? shareDomain(lines.map(({ values }) => values))
        : domainOf([...lines.map(({ values }) => values), levels.map(({ value }) => value)]),
    [lines, levels, share],
  );
  const read = (): Draw => {
    const [shown, colors] = [range.value, LINE_COLORS[store.host.theme.value]];
    return (context, size) => {
      const frame = { domain, range: shown, ...size };
      for (const level of levels) drawLevel(context, frame, level.value, colors[level.color]);
      for (const line of lines) drawLine(context, frame, line, colors[line.color]);
    };
  };

  const cursor = useComputed(() => {
    const step = store.cursor.value;
    if (step === null) return null;
    const { start, stop } = range.value;
    return ((scale.recordOf(step) + 0.5 - start) / (stop - start)) * size.value.width;
  });

  return (
    <div class="lines" style={{ height: `${height}px` }}>
      <div class="axis-y" aria-hidden="true">
        {domain.ticks.map((tick) => (
          <span key={tick} class="tick-y" style={{ bottom: `calc(${placeOn(domain, tick) * 100}% - 0.6em)` }}>
            {share ? percent(tick) : tick === domain.zero ? "0" : number(tick)}
          </span>
        ))}
      </div>
      <div
        ref={ref}
        class="plot bare"
        role="img"
        aria-label={label}
        onPointerMove={(event) => {
          const box = event.currentTarget.getBoundingClientRect();
          const { start, stop } = range.peek();
          store.cursor.value = scale.stepAt(start + ((event.clientX - box.left) / box.width) * (stop - start));
        }}
        onPointerLeave={() => {
          store.cursor.value = null;
        }}
      >
        {domain.ticks.map((tick) => (
          <div key={tick} class="grid-line" style={{ bottom: `${placeOn(domain, tick) * 100}%` }} />
        ))}
        <Drawing read={read} inputs={[lines, levels, domain, scale]} />
        <CursorLine x={cursor} />
      </div>
    </div>
  );
}

interface Frame {
  readonly domain: Domain;
  readonly range: Range;
  readonly width: number;
  readonly height: number;
}

function drawLevel(
  context: CanvasRenderingContext2D,
  { domain, width, height }: Frame,
  value: number,
  color: string,
): void {
  const place = onDomain(domain, value);
  if (place === null) return;
  const y = Math.round((1 - placeOn(domain, place)) * height) + 0.5;
  context.strokeStyle = color;
  context.lineWidth = 1;
  context.setLineDash([5, 4]);
  context.beginPath();
  context.moveTo(0, y);
  context.lineTo(width, y);
  context.stroke();
  context.setLineDash([]);
}

/** Records without a value are bridged; a lone value is a dot. */
function drawLine(
  context: CanvasRenderingContext2D,
  { domain, range, width, height }: Frame,
  line: Line,
  color: string,
): void {
  context.strokeStyle = context.fillStyle = color;
  context.lineWidth = line.width ?? 1.5;
  context.lineJoin = "round";
  context.setLineDash(line.dashed ? [5, 3] : []);
  context.beginPath();
  let [drawn, x, y] = [0, 0, 0];
  const perRecord = width / (range.stop - range.start);
  line.values.forEach((value, record) => {
    const place = onDomain(domain, value);
    if (place === null) return;
    x = (record + 0.5 - range.start) * perRecord;
    y = (1 - placeOn(domain, place)) * height;
    if (drawn++ === 0) context.moveTo(x, y);
    else context.lineTo(x, y);
  });
  if (drawn > 1) context.stroke();
  else if (drawn === 1) context.fillRect(x - 2, y - 2, 4, 4);
  context.setLineDash([]);
}
