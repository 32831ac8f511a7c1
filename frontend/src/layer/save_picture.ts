/** Downloads that the browser makes itself. */
/** What lies between two heatmaps of one picture, in its pixels. */
const GAP = 8;

/** The heatmaps beside a button, as they are on screen; two of them one above the other. */
export function savePicture(button: Element, name: string): void {
  const shown = [...(button.closest(".panel")?.querySelectorAll<HTMLCanvasElement>(".heatmap > canvas") ?? [])];
  const picture = document.createElement("canvas");
  picture.width = Math.max(0, ...shown.map(({ width }) => width));
  picture.height = shown.reduce((sum, { height }) => sum + height + GAP, -GAP);
  const context = picture.getContext("2d");
  if (!context || shown.length === 0) return;
  let top = 0;
  for (const canvas of shown) {
    context.drawImage(canvas, 0, top);
    top += canvas.height + GAP;
  }
  picture.toBlob((blob) => {
    if (blob) saveBlob(blob, name);
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
