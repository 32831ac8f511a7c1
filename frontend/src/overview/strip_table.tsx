/** The strips' twin: flagged units of each layer at a few steps, as numbers. */
import type { LayerSummary } from "../api/types";
import { count } from "../domain/format";
import { isFlagged, WORST_FIRST } from "../domain/states";
import { DataTable } from "../ui/data_table";

const COLUMNS = 8;

export function StripTable({
  layers,
  steps,
}: {
  readonly layers: readonly LayerSummary[];
  readonly steps: readonly number[];
}) {
  const last = steps.length - 1;
  const shown = Array.from({ length: Math.min(COLUMNS, steps.length) }, (_, index) =>
    Math.round((index * last) / Math.max(1, Math.min(COLUMNS, steps.length) - 1)),
  );
  const at = (layer: LayerSummary, record: number): string => {
    const parts = WORST_FIRST.filter(isFlagged)
      .map((label) => ({ label, units: layer.strip[label]?.[record] ?? 0 }))
      .filter(({ units }) => units > 0);
    return parts.length === 0 ? "0" : parts.map(({ label, units }) => `${count(units)} ${label}`).join(", ");
  };
  return (
    <DataTable<LayerSummary>
      caption="Flagged units of each layer over steps"
      rows={layers}
      columns={[
        { title: "layer", cell: ({ layer }) => layer },
        { title: "units", numeric: true, cell: ({ units }) => count(units) },
        ...shown.map((record) => ({
          title: `step ${count(steps[record] ?? 0)}`,
          cell: (layer: LayerSummary) => at(layer, record),
        })),
      ]}
    />
  );
}
