/** Unit numbers beside the rows. */
import { count } from "../domain/format";
import { roundStride } from "../domain/steps";
import { useStore } from "../state/context";
import type { HeatmapModel } from "./model";
import { yOf } from "./viewport";

const GAP = 26;

export function RowAxis({ model, height }: { readonly model: HeatmapModel; readonly height: number }) {
  const store = useStore();
  const [view, { rows }] = [model.view.value, model.extent.value];
  const rowHeight = height / (view.bottom - view.top);
  const stride = roundStride(GAP / rowHeight);
  const ordered = store.place.value.order !== "index";
  const labels = [];
  for (let row = Math.ceil(view.top / stride) * stride; row < Math.min(view.bottom, rows); row += stride) {
    const y = yOf(view, { width: 1, height }, row + 0.5);
    if (y < 6 || y > height - 6) continue;
    const unit = model.unitAt(row);
    labels.push(
      <span key={row} class="tick-y" style={{ top: `${y}px` }}>
        {unit === null ? "…" : count(unit)}
      </span>,
    );
  }
  return (
    <div class="axis-y" aria-hidden="true">
      <span class="axis-title">{ordered ? "unit, in order" : "unit"}</span>
      {labels}
    </div>
  );
}
