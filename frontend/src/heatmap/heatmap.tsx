/** Units x records, painted from tiles. */
import { useComputed } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { CursorLine } from "../charts/cursor";
import { positionOf } from "../domain/events";
import { useStore } from "../state/context";
import { fitCanvas, useFrame } from "../ui/frame";
import { useSize } from "../ui/size";
import { carriesEvents, drawDetail, drawEvents, drawScene, type EventMark, type Scene } from "./draw";
import { listen } from "./gestures";
import { press } from "./keyboard";
import { CellMarks } from "./marks";
import { Minimap } from "./minimap";
import type { HeatmapModel } from "./model";
import { worstIn } from "./readout_text";
import { RowAxis } from "./row_axis";
import { rowsAt, type TileSource, tilesIn } from "./tiles";
import { type Cell, reveal, xOf } from "./viewport";

export function Heatmap({ model }: { readonly model: HeatmapModel }) {
  const store = useStore();
  const { ref, size } = useSize<HTMLDivElement>();
  const canvas = useRef<HTMLCanvasElement>(null);
  const height = model.height.value;
  const open = async (cell: Cell): Promise<void> => {
    model.focus.value = cell;
    const source = model.stateSource.peek();
    const row = source ? await worstIn(source, model, cell) : cell.row;
    model.focus.value = { ...cell, row };
    const unit = model.unitAt(row);
    if (unit !== null) model.open(unit);
  };

  usePainting(model, canvas, size);
  useReveal(model);
  useEffect(() => {
    const element = ref.current;
    if (!element) return;
    return listen(element, {
      view: () => model.view.peek(),
      extent: () => model.extent.peek(),
      size: () => size.peek(),
      moveTo: model.moveTo,
      hover: (cell) => {
        model.hover.value = cell;
        store.cursor.value = cell ? model.steps.peek().stepAt(cell.record) : null;
      },
      select: (selection) => {
        model.selection.value = selection;
      },
      open: (cell) => void open(cell),
    });
  }, [model]);

  const cursor = useComputed(() => {
    const step = store.cursor.value;
    return step === null ? null : xOf(model.view.value, size.value, model.steps.value.recordOf(step) + 0.5);
  });

  return (
    <div class="plot-row" style={{ height: `${height}px` }}>
      <RowAxis model={model} height={height} />
      <div
        ref={ref}
        class="heatmap"
        role="application"
        aria-roledescription="heatmap"
        aria-label={`${model.title.value} by steps. Arrow keys move the focused cell.`}
        tabIndex={0}
        onKeyDown={(event) => {
          if (press(model, event, (cell) => void open(cell))) event.preventDefault();
        }}
        onFocus={() => {
          if (model.focus.peek() === null && ref.current?.matches(":focus-visible"))
            press(model, new KeyboardEvent("keydown", { key: "ArrowRight" }), () => {});
        }}
      >
        <canvas ref={canvas} />
        <CellMarks model={model} size={size} />
        <CursorLine x={cursor} />
      </div>
      <Minimap model={model} height={height} />
    </div>
  );
}

/** Brings the open unit into the window, once, when it changes: its neighbours may be far away. */
function useReveal(model: HeatmapModel): void {
  const store = useStore();
  const { unit } = store.place.value;
  const row = unit === null ? null : model.rowOf(unit);
  useEffect(() => {
    const [view, extent] = [model.view.peek(), model.extent.peek()];
    if (row === null || row >= extent.rows || (row >= view.top && row + 1 <= view.bottom)) return;
    model.moveTo(reveal(view, extent, { row, record: Math.floor((view.left + view.right) / 2) }));
  }, [row, model]);
}

/** Asks for the tiles in the window and draws those that are here. */
function usePainting(
  model: HeatmapModel,
  canvas: { readonly current: HTMLCanvasElement | null },
  size: ReturnType<typeof useSize>["size"],
): void {
  const store = useStore();
  const complete = useRef<TileSource | null>(null);
  useFrame(() => {
    const [source, painter, view, { width, height }] = [
      model.source.value,
      model.painter.value,
      model.view.value,
      size.value,
    ];
    const level = model.level.value;
    const [theme, hidden] = [store.host.theme.value, store.hidden.value];
    const marks = carriesEvents(view, { width, height }) ? marksIn(model) : [];
    void model.arrivals.value;
    const element = canvas.current;
    if (!element || !source || width === 0 || height === 0) return null;
    return () => {
      const scale = fitCanvas(element, width, height);
      const context = element.getContext("2d");
      if (!context) return;
      const coarsest = tilesIn(source, view, source.levels - 1, 0);
      model.tiles.want([...tilesIn(source, view, level), ...coarsest, ...tilesIn(source, view, level, 1)]);
      if (!painter) return;
      const before = sameRows(complete.current, source) ? complete.current : null;
      const scene: Scene = { view, size: { width, height }, scale, source, level, before, painter };
      if (drawScene(context, scene, model.tiles)) complete.current = source;
      drawDetail(context, scene, model.tiles, theme, hidden);
      drawEvents(context, scene, marks, theme);
    };
  }, [model]);
}

/** Events of the units in the window. */
function marksIn(model: HeatmapModel): EventMark[] {
  const [events, view, steps] = [model.unitEvents.value, model.view.value, model.steps.value];
  const marks: EventMark[] = [];
  if (events.size === 0) return marks;
  for (let row = Math.floor(view.top); row < Math.min(view.bottom, model.extent.value.rows); row++) {
    const unit = model.unitAt(row);
    for (const { kind, step } of (unit === null ? undefined : events.get(unit)) ?? []) {
      const position = positionOf(steps, kind, step);
      if (position >= view.left && position <= view.right) marks.push({ row, position, kind });
    }
  }
  return marks;
}

/** Whether an older picture shows the same rows, merely with other verdicts or fewer records. */
function sameRows(before: TileSource | null, now: TileSource): boolean {
  return (
    before !== null &&
    before.run === now.run &&
    before.layer === now.layer &&
    before.what === now.what &&
    before.order === now.order &&
    before.like?.run === now.like?.run &&
    rowsAt(before, 0) === rowsAt(now, 0)
  );
}
