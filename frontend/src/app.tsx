/** The tab: bar, view, and what opens beside it. */
import { effect, useSignalEffect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Bar } from "./bar/bar";
import { ThresholdsPanel } from "./bar/thresholds_panel";
import { CompareView } from "./compare/compare_view";
import { inkOn, LINE_COLORS, PALETTES } from "./domain/palette";
import { STATE_LABELS } from "./domain/states";
import { EmptyState } from "./help/empty";
import { Help } from "./help/help";
import { listenForShortcuts } from "./help/shortcuts";
import { LayerView } from "./layer/layer_view";
import { OverviewView } from "./overview/overview";
import { StoreContext } from "./state/context";
import type { Store } from "./state/store";
import { Failure, Skeleton } from "./ui/notices";
import { UnitDrawer } from "./unit/drawer";

export function App({ store }: { readonly store: Store }) {
  const root = useRef<HTMLDivElement>(null);
  const theme = store.host.theme.value;
  useSignalEffect(() => paintRoot(store));
  useEffect(() => (root.current ? listenForShortcuts(root.current) : undefined), []);
  useEffect(() => (root.current ? watchVisibility(root.current, store) : undefined), [store]);
  useEffect(() => (root.current ? tellWhenSettled(root.current, store) : undefined), [store]);
  return (
    <StoreContext.Provider value={store}>
      <div ref={root} class="app" data-theme={theme}>
        <Content store={store} />
      </div>
    </StoreContext.Provider>
  );
}

function Content({ store }: { readonly store: Store }) {
  const { value: runs, error } = store.runs.state.value;
  const { layer, unit, panel } = store.place.value;
  if (!runs) {
    return (
      <main class="view">
        {error ? (
          <Failure title="The runs cannot be listed" error={error} retry={store.runs.retry} />
        ) : (
          <Skeleton height={120} label="Loading the runs" />
        )}
      </main>
    );
  }
  if (runs.runs.length === 0) return <EmptyState notes={runs.notes} />;
  const open = ["body", panel === "thresholds" && "with-thresholds", layer !== null && unit !== null && "with-drawer"];
  return (
    <>
      <Bar />
      {error && <Failure error={error} retry={store.runs.retry} />}
      <div class={open.filter(Boolean).join(" ")}>
        {panel === "thresholds" && <ThresholdsPanel />}
        {layer !== null ? <LayerView /> : store.versus.value !== null ? <CompareView /> : <OverviewView />}
        {layer !== null && unit !== null && <UnitDrawer />}
      </div>
      {panel === "help" && <Help />}
    </>
  );
}

/** State colours as custom properties, and the theme on the page itself. */
function paintRoot(store: Store): void {
  const theme = store.host.theme.value;
  const { style } = document.documentElement;
  for (const label of STATE_LABELS) {
    style.setProperty(`--state-${label}`, PALETTES[theme][label]);
    style.setProperty(`--ink-${label}`, inkOn(PALETTES[theme][label]));
  }
  for (const [name, color] of Object.entries(LINE_COLORS[theme])) style.setProperty(`--line-${name}`, color);
  document.documentElement.dataset.theme = theme;
  document.documentElement.lang = "en";
  document.title = "Dead Units";
}

/** TensorBoard keeps hidden tabs alive at zero height: nothing is loaded or drawn there. */
function watchVisibility(element: HTMLElement, store: Store): () => void {
  const update = (): void => {
    store.awake.value = !document.hidden && window.innerHeight > 0 && window.innerWidth > 0;
  };
  const observer = new ResizeObserver(update);
  observer.observe(element);
  window.addEventListener("resize", update);
  document.addEventListener("visibilitychange", update);
  update();
  return () => {
    observer.disconnect();
    window.removeEventListener("resize", update);
    document.removeEventListener("visibilitychange", update);
  };
}

/** What has arrived is rendered, measured and drawn in one frame each, before anything can follow from it. */
const QUIET_FRAMES = 6;

/** `data-settled` is there while nothing is under way: what tests and pictures wait for. */
function tellWhenSettled(element: HTMLElement, store: Store): () => void {
  let frame = 0;
  const wait = (frames: number): void => {
    frame = requestAnimationFrame(() => (frames > 0 ? wait(frames - 1) : element.setAttribute("data-settled", "")));
  };
  const stop = effect(() => {
    cancelAnimationFrame(frame);
    element.removeAttribute("data-settled");
    if (store.api.activity.quiet) wait(QUIET_FRAMES);
  });
  return () => {
    stop();
    cancelAnimationFrame(frame);
  };
}
