/** What the heatmap's colours mean while it shows values. */
import { number } from "../domain/format";
import { isDiverging } from "../domain/lookup";
import { DIVERGING, SEQUENTIAL, ZERO } from "../domain/palette";
import type { HeatmapModel } from "../heatmap/model";
import { useStore } from "../state/context";

export function ColorScale({ model }: { readonly model: HeatmapModel }) {
  const store = useStore();
  const scale = model.valueScale.value;
  if (store.place.value.what === "states" || scale === null) return null;
  const theme = store.host.theme.value;
  const diverging = isDiverging(scale);
  const reach = Math.max(-scale.low, scale.high);
  const stops = (diverging ? DIVERGING : SEQUENTIAL)[theme];
  return (
    <div class="color-scale">
      {!diverging && (
        <span class="key">
          <i style={{ background: ZERO[theme] }} /> exactly zero
        </span>
      )}
      <span>{number(diverging ? -reach : scale.low)}</span>
      <i class="ramp" style={{ background: `linear-gradient(90deg, ${stops.join(", ")})` }} />
      <span>{number(diverging ? reach : scale.high)}</span>
      {scale.kind === "log" && <span class="hint">log scale</span>}
    </div>
  );
}
