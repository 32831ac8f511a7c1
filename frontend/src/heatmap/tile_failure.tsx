/** Why a part of the heatmap is not there. */
import { Failure } from "../ui/notices";
import type { HeatmapModel } from "./model";

export function TileFailure({ model }: { readonly model: HeatmapModel }) {
  void model.arrivals.value;
  const error = model.tiles.failure;
  return error && <Failure error={error} retry={() => model.tiles.retry()} />;
}
