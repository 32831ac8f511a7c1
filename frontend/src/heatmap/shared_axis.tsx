/** The steps below a heatmap, or below the last of the charts that stand under it. */
import { StepAxis } from "../charts/step_axis";
import { useSize } from "../ui/size";
import type { HeatmapModel } from "./model";

export function SharedAxis({ model }: { readonly model: HeatmapModel }) {
  const { ref, size } = useSize<HTMLDivElement>();
  const { left, right } = model.view.value;
  return (
    <div class="plot-row axis-row">
      <span />
      <div ref={ref}>
        <StepAxis scale={model.steps.value} range={{ start: left, stop: right }} width={size.value.width} />
      </div>
    </div>
  );
}
