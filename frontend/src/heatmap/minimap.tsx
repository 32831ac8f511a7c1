/** The whole layer in small, with the window on it. Dragging it moves the window. */
import { useRef } from "preact/hooks";
import { fitCanvas, useFrame } from "../ui/frame";
import { drawScene } from "./draw";
import type { HeatmapModel } from "./model";
import { clamp, isWhole, whole } from "./viewport";

const WIDTH = 56;

export function Minimap({ model, height }: { readonly model: HeatmapModel; readonly height: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useFrame(() => {
    const [source, painter, extent] = [model.source.value, model.painter.value, model.extent.value];
    void model.arrivals.value;
    const element = canvas.current;
    if (!element || !source || !painter) return null;
    return () => {
      const scale = fitCanvas(element, WIDTH, height);
      const context = element.getContext("2d");
      // The coarsest level is what the heatmap falls back to, so it is always here.
      const size = { width: WIDTH, height };
      const scene = { view: whole(extent), size, scale, source, level: source.levels - 1, before: null, painter };
      if (context) drawScene(context, scene, model.tiles);
    };
  }, [model, height]);

  const [view, extent] = [model.view.value, model.extent.value];
  const center = (event: PointerEvent): void => {
    if (event.buttons === 0) return;
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    const [width, rows] = [view.right - view.left, view.bottom - view.top];
    const left = ((event.clientX - box.left) / box.width) * extent.records - width / 2;
    const top = ((event.clientY - box.top) / box.height) * extent.rows - rows / 2;
    model.moveTo(clamp({ left, right: left + width, top, bottom: top + rows }, extent));
  };
  const style = {
    left: `${(view.left / extent.records) * 100}%`,
    width: `${((view.right - view.left) / extent.records) * 100}%`,
    top: `${(view.top / extent.rows) * 100}%`,
    height: `${((view.bottom - view.top) / extent.rows) * 100}%`,
  };
  return (
    <div
      class="minimap"
      aria-hidden="true"
      title="The whole layer; drag to move the window"
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        center(event);
      }}
      onPointerMove={center}
    >
      <canvas ref={canvas} />
      {!isWhole(view, extent) && <div class="minimap-window" style={style} />}
    </div>
  );
}
