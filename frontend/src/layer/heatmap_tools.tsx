/** What the heatmap shows, in which order, and how close. */
import type { Order } from "../api/types";
import type { HeatmapModel } from "../heatmap/model";
import { whole, zoom } from "../heatmap/viewport";
import { useStore } from "../state/context";
import { Icon } from "../ui/icons";
import { savePicture } from "./save_picture";

const ORDER_NAMES: Readonly<Record<Order, string>> = {
  index: "Unit index",
  death: "Step of death",
  severity: "Severity",
  similarity: "Similarity",
};

export function HeatmapTools({ model }: { readonly model: HeatmapModel }) {
  const store = useStore();
  const place = store.place.value;
  const layer = model.layer.value;
  if (!layer) return null;
  const statistic = model.statistic.value;
  const center = { x: 0.5, y: 0.5 };
  const zoomBy = (factor: number) => () =>
    model.moveTo(zoom(model.view.peek(), model.extent.peek(), { x: factor, y: factor }, center));
  return (
    <div class="tools">
      <div class="segments" role="group" aria-label="Colour by">
        <button type="button" aria-pressed={place.what === "states"} onClick={() => store.go({ what: "states" })}>
          States
        </button>
        <button
          type="button"
          aria-pressed={place.what === "statistic"}
          disabled={statistic === null}
          onClick={() => store.go({ what: "statistic" })}
        >
          Values
        </button>
      </div>
      <label class="field">
        <span>Statistic</span>
        <select
          class="select"
          value={statistic ?? ""}
          disabled={statistic === null}
          onChange={(event) => store.go({ statistic: event.currentTarget.value })}
        >
          {layer.statistics.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <label class="field">
        <span>Order</span>
        <select
          class="select"
          value={place.order}
          onChange={(event) => store.go({ order: event.currentTarget.value as Order, rows: null })}
        >
          {layer.orders.map((order) => (
            <option key={order} value={order}>
              {ORDER_NAMES[order]}
            </option>
          ))}
        </select>
      </label>
      <div class="button-group">
        <button type="button" class="button icon" title="Zoom in (W)" aria-label="Zoom in" onClick={zoomBy(1.6)}>
          <Icon name="plus" />
        </button>
        <button type="button" class="button icon" title="Zoom out (S)" aria-label="Zoom out" onClick={zoomBy(1 / 1.6)}>
          <Icon name="minus" />
        </button>
        <button
          type="button"
          class="button icon"
          title="Fit everything (F)"
          aria-label="Fit everything"
          onClick={() => model.moveTo(whole(model.extent.peek()))}
        >
          <Icon name="fit" />
        </button>
        <button
          type="button"
          class="button icon"
          title="Save the picture as PNG"
          aria-label="Save the picture as PNG"
          onClick={(event) => savePicture(event.currentTarget, `${layer.layer}.png`)}
        >
          <Icon name="picture" />
        </button>
      </div>
    </div>
  );
}
