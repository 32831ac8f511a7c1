/** A step named in a text points at that step in all charts, and narrows them to it when pressed. */
import { StepScale } from "../domain/steps";
import type { Store } from "../state/store";

/** Share of the run shown on either side of the step. */
const REACH = 0.12;

export function pointsAt(store: Store, step: number) {
  const point = (): void => {
    store.cursor.value = step;
  };
  const forget = (): void => {
    store.cursor.value = null;
  };
  const narrow = (): void => {
    const scale = new StepScale(store.overview.state.peek().value?.steps ?? []);
    const [record, reach] = [scale.recordOf(step), Math.max(3, Math.round(scale.records * REACH))];
    const range = { start: Math.max(0, record - reach), stop: Math.min(scale.records, record + reach + 1) };
    store.go({ steps: scale.stepsOf(range) });
  };
  return {
    title: "Show the steps around this one",
    onMouseEnter: point,
    onFocus: point,
    onMouseLeave: forget,
    onBlur: forget,
    onClick: narrow,
  };
}
