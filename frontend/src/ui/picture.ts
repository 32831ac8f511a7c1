/** Pictures painted once, pixel by pixel, and drawn often. */

export type Picture = OffscreenCanvas | HTMLCanvasElement;

/**
 * @param paint fills `[height * width]` pixels, row by row, as little-endian RGBA; zero is transparent.
 * @param reuse a picture of the same size to paint over.
 */
export function paintPicture(
  width: number,
  height: number,
  paint: (pixels: Uint32Array) => void,
  reuse: Picture | null = null,
): Picture {
  const picture = reuse ?? create(width, height);
  const context = picture.getContext("2d") as CanvasRenderingContext2D | null;
  if (!context) return picture;
  const image = context.createImageData(width, height);
  paint(new Uint32Array(image.data.buffer));
  context.putImageData(image, 0, 0);
  return picture;
}

function create(width: number, height: number): Picture {
  if (typeof OffscreenCanvas !== "undefined") return new OffscreenCanvas(width, height);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}
