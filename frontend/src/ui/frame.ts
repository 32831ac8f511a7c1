/** Drawing at most once a frame, and only while somebody can see it. */
import { effect } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { useStore } from "../state/context";

/**
 * Run `read` whenever a signal it reads changes, and the drawing it returns in the next frame.
 *
 * @param read reads signals; returns what to draw, or null for nothing.
 * @param inputs as for `useEffect`.
 */
export function useFrame(read: () => (() => void) | null, inputs: readonly unknown[]): void {
  const { api, awake } = useStore();
  useEffect(() => {
    let frame = 0;
    let draw: (() => void) | null = null;
    let drawn = (): void => {};
    const stop = effect(() => {
      draw = awake.value ? read() : null;
      if (draw === null || frame !== 0) return;
      drawn = api.activity.begin();
      frame = requestAnimationFrame(() => {
        frame = 0;
        draw?.();
        drawn();
      });
    });
    return () => {
      stop();
      cancelAnimationFrame(frame);
      drawn();
    };
  }, inputs);
}

/** Gives a canvas as many pixels as it covers; returns how many device pixels make one of CSS. */
export function fitCanvas(canvas: HTMLCanvasElement, width: number, height: number): number {
  const scale = window.devicePixelRatio || 1;
  const [across, down] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== across) canvas.width = across;
  if (canvas.height !== down) canvas.height = down;
  return scale;
}
