/** The open unit's row, the focused cell and the brushed rectangle, over the picture. */
import { type ReadonlySignal, useComputed } from "@preact/signals";
import { useStore } from "../state/context";
import type { HeatmapModel } from "./model";
import type { Selection } from "./selection";
import { type Size, xOf, yOf } from "./viewport";

interface Props {
  readonly model: HeatmapModel;
  readonly size: ReadonlySignal<Size>;
}

export function CellMarks({ model, size }: Props) {
  const store = useStore();
  const boxOf = (selection: Selection | null, least: number): string | null => {
    if (!selection) return null;
    const [view, now] = [model.view.value, size.value];
    const [left, right] = [xOf(view, now, selection.firstRecord), xOf(view, now, selection.lastRecord + 1)];
    const [top, bottom] = [yOf(view, now, selection.firstRow), yOf(view, now, selection.lastRow + 1)];
    const [width, height] = [Math.max(right - left, least), Math.max(bottom - top, least)];
    return `transform:translate(${left}px,${top}px);width:${width}px;height:${height}px`;
  };
  const focus = useComputed(() => {
    const cell = model.focus.value;
    const single = cell && { firstRow: cell.row, lastRow: cell.row, firstRecord: cell.record, lastRecord: cell.record };
    return boxOf(single, 5);
  });
  const brushed = useComputed(() => boxOf(model.selection.value, 2));
  const opened = useComputed(() => {
    const { unit } = store.place.value;
    const row = unit === null ? null : model.rowOf(unit);
    if (row === null) return null;
    const [view, now] = [model.view.value, size.value];
    const [top, bottom] = [yOf(view, now, row), yOf(view, now, row + 1)];
    return `transform:translateY(${top}px);height:${Math.max(bottom - top, 3)}px`;
  });
  return (
    <>
      {opened.value && <div class="mark-row" style={opened.value} />}
      {brushed.value && <div class="mark-selection" style={brushed.value} />}
      {focus.value && <div class="mark-focus" style={focus.value} />}
    </>
  );
}
