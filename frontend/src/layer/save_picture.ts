/** Downloads that the browser makes itself. */
import type { HeatmapModel } from "../heatmap/model";

/** The heatmap as it is on screen. */
export function savePicture(model: HeatmapModel): void {
  const canvas = document.querySelector<HTMLCanvasElement>(".heatmap > canvas");
  canvas?.toBlob((blob) => {
    if (blob) saveBlob(blob, `${model.layer.peek()?.layer ?? "layer"}.png`);
  });
}

export function saveText(text: string, name: string): void {
  saveBlob(new Blob([text], { type: "text/csv;charset=utf-8" }), name);
}

function saveBlob(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\p{L}\p{N}._-]+/gu, "_");
  link.click();
  URL.revokeObjectURL(link.href);
}
