/** A canvas that fills its place and is drawn in CSS pixels, at most once a frame. */
import { useRef } from "preact/hooks";
import type { Size } from "../heatmap/viewport";
import { fitCanvas, useFrame } from "./frame";
import { useSize } from "./size";

export type Draw = (context: CanvasRenderingContext2D, size: Size) => void;

interface Props {
  /** Reads signals, so that the picture follows them, and returns how to draw it. */
  readonly read: () => Draw;
  /** As for `useEffect`: what `read` uses besides signals. */
  readonly inputs: readonly unknown[];
}

export function Drawing({ read, inputs }: Props) {
  const { ref, size } = useSize<HTMLDivElement>();
  const canvas = useRef<HTMLCanvasElement>(null);
  useFrame(() => {
    const [draw, shown, element] = [read(), size.value, canvas.current];
    if (!element || shown.width === 0 || shown.height === 0) return null;
    return () => {
      const ratio = fitCanvas(element, shown.width, shown.height);
      const context = element.getContext("2d");
      if (!context) return;
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, shown.width, shown.height);
      draw(context, shown);
    };
  }, inputs);
  return (
    <div ref={ref} class="fill">
      <canvas ref={canvas} />
    </div>
  );
}
