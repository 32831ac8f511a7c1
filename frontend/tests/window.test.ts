/** The window and the address lead one another without a quarrel. */
import { computed, signal } from "@preact/signals";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { StepScale } from "../src/domain/steps";
import { createWindow, type LayerWindow } from "../src/heatmap/window";
import { type Place, START } from "../src/state/place";

const place = signal<Place>(START);
const records = signal(100);
const extent = computed(() => ({ records: records.value, rows: 50 }));
const steps = computed(() => new StepScale(Array.from({ length: records.value }, (_, record) => record * 10)));
const go = (change: Partial<Place>): void => {
  place.value = { ...place.value, ...change };
};
let shown: LayerWindow;

beforeEach(() => {
  vi.useFakeTimers();
  place.value = START;
  records.value = 100;
  shown = createWindow({ place, go }, extent, steps);
});

afterEach(() => {
  shown.dispose();
  vi.useRealTimers();
});

describe("window of a layer", () => {
  it("shows everything at first, and goes on doing so while the run grows", () => {
    expect(shown.view.value).toEqual({ left: 0, right: 100, top: 0, bottom: 50 });
    records.value = 120;
    expect(shown.view.value.right).toBe(120);
  });

  it("goes where the address says", () => {
    go({ steps: [200, 400], rows: [10, 19] });
    expect(shown.view.value).toEqual({ left: 20, right: 41, top: 10, bottom: 20 });
    go({ steps: null, rows: null });
    expect(shown.view.value).toEqual({ left: 0, right: 100, top: 0, bottom: 50 });
  });

  it("writes the address once it rests, and does not snap to it", () => {
    const view = { left: 20.4, right: 60.7, top: 5.5, bottom: 20.5 };
    shown.moveTo(view);
    expect(place.value).toBe(START);
    vi.runAllTimers();
    expect(place.value).toMatchObject({ steps: [200, 600], rows: [5, 20] });
    expect(shown.view.value).toEqual(view);
  });

  it("stays where it is while the run grows and other things change", () => {
    const view = { left: 20.4, right: 60.7, top: 0, bottom: 50 };
    shown.moveTo(view);
    vi.runAllTimers();
    records.value = 130;
    go({ unit: 3 });
    expect(shown.view.value).toEqual(view);
    expect(place.value.rows).toBeNull();
  });

  it("is not torn away in the middle of a movement", () => {
    const view = { left: 10, right: 20, top: 0, bottom: 10 };
    shown.moveTo(view);
    records.value = 140;
    expect(shown.view.value).toEqual(view);
    vi.runAllTimers();
    expect(place.value.steps).toEqual([100, 190]);
  });
});
