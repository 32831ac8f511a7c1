/** Lines over records with uPlot: loss, learning rate, and a unit's statistics. */
import type { ReadonlySignal } from "@preact/signals";
import { useComputed } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import type { Series } from "../api/types";
import { number } from "../domain/format";
import type { Range, StepScale } from "../domain/steps";
import { useStore } from "../state/context";
import { useSize } from "../ui/size";
import { CursorLine } from "./cursor";
import { type Domain, domainOf, onDomain } from "./line_domain";

export interface Line {
  readonly name: string;
  readonly values: Series;
  /** Custom property of the colour, such as `--line-unit`. */
  readonly color: string;
  readonly width?: number;
  readonly dash?: readonly number[];
}

export interface Level {
  readonly value: number;
  readonly color: string;
}

interface Props {
  readonly lines: readonly Line[];
  readonly levels?: readonly Level[];
  readonly scale: StepScale;
  readonly range: ReadonlySignal<Range>;
  readonly height: number;
  readonly label: string;
}

const AXIS_WIDTH = 52;

export function Lines({ lines, levels = [], scale, range, height, label }: Props) {
  const store = useStore();
  const { ref, size } = useSize<HTMLDivElement>();
  const plot = useRef<uPlot | null>(null);
  const theme = store.host.theme.value;

  useEffect(() => {
    const element = ref.current;
    if (!element) return;
    const domain = domainOf([...lines.map(({ values }) => values), levels.map(({ value }) => value)]);
    const data = dataOf(lines, levels, scale, domain);
    const chart = new uPlot(optionsOf(lines, levels, domain, range, size.peek().width, height, element), data, element);
    plot.current = chart;
    return () => {
      chart.destroy();
      plot.current = null;
    };
  }, [lines, levels, scale, height, theme]);

  useEffect(
    () =>
      size.subscribe(({ width }) => {
        if (width > 0) plot.current?.setSize({ width, height });
      }),
    [size, height],
  );
  useEffect(
    () =>
      range.subscribe(({ start, stop }) => {
        plot.current?.setScale("x", { min: start, max: stop });
      }),
    [range],
  );

  const cursor = useComputed(() => {
    const step = store.cursor.value;
    if (step === null) return null;
    const { start, stop } = range.value;
    const inner = size.value.width - AXIS_WIDTH;
    return AXIS_WIDTH + ((scale.recordOf(step) + 0.5 - start) / (stop - start)) * inner;
  });

  return (
    <div
      ref={ref}
      class="lines"
      style={{ height: `${height}px` }}
      role="img"
      aria-label={label}
      onPointerMove={(event) => {
        const box = event.currentTarget.getBoundingClientRect();
        const share = (event.clientX - box.left - AXIS_WIDTH) / (box.width - AXIS_WIDTH);
        const { start, stop } = range.peek();
        if (share >= 0) store.cursor.value = scale.stepAt(start + share * (stop - start));
      }}
      onPointerLeave={() => {
        store.cursor.value = null;
      }}
    >
      <CursorLine x={cursor} />
    </div>
  );
}

function dataOf(lines: readonly Line[], levels: readonly Level[], scale: StepScale, domain: Domain): uPlot.AlignedData {
  const positions = scale.steps.map((_, record) => record + 0.5);
  const flat = levels.map(({ value }) => positions.map(() => onDomain(domain, value)));
  return [positions, ...flat, ...lines.map(({ values }) => values.map((value) => onDomain(domain, value)))];
}

function optionsOf(
  lines: readonly Line[],
  levels: readonly Level[],
  domain: Domain,
  range: ReadonlySignal<Range>,
  width: number,
  height: number,
  element: HTMLElement,
): uPlot.Options {
  const style = getComputedStyle(element);
  const color = (name: string): string => style.getPropertyValue(name).trim();
  const [ink, grid] = [color("--text-2"), color("--grid")];
  return {
    width: Math.max(width, 1),
    height,
    padding: [6, 0, 4, 0],
    cursor: { show: false },
    legend: { show: false },
    scales: {
      x: { time: false, auto: false, range: () => [range.peek().start, range.peek().stop] },
      y: { distr: domain.log ? 3 : 1, range: () => [domain.low, domain.high] },
    },
    axes: [
      { show: false },
      {
        size: AXIS_WIDTH,
        gap: 4,
        font: `11px ${style.fontFamily}`,
        stroke: ink,
        grid: { stroke: grid, width: 1 },
        ticks: { show: false },
        splits: () => [...domain.ticks],
        values: (_, splits) =>
          splits.map((value) => (domain.zero !== null && value === domain.zero ? "0" : number(value))),
      },
    ],
    series: [
      {},
      ...levels.map((level) => ({ stroke: color(level.color), width: 1, dash: [5, 4], points: { show: false } })),
      ...lines.map((line) => ({
        stroke: color(line.color),
        width: line.width ?? 1.5,
        ...(line.dash ? { dash: [...line.dash] } : {}),
        spanGaps: true,
        points: { show: line.values.filter((value) => value !== null).length < 3, size: 4, fill: color(line.color) },
      })),
    ],
  };
}
