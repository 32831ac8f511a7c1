/** Words, keys and thresholds, explained by the same source that judges. */
import { useEffect, useRef } from "preact/hooks";
import type { Glossary } from "../api/types";
import { EVENT_KINDS } from "../domain/events";
import { number } from "../domain/format";
import { HEATMAP_KEYS } from "../heatmap/keyboard";
import { DataQuality } from "../overview/data_quality";
import { useStore } from "../state/context";
import { EventName } from "../ui/event_sign";
import { Icon } from "../ui/icons";
import { Failure, Skeleton } from "../ui/notices";
import { StateName } from "../ui/swatch";
import { shortcutsEnabled } from "./shortcuts";

const GLOBAL_KEYS: readonly (readonly [string, string])[] = [
  ["/", "find a layer"],
  ["?", "this help"],
  ["Esc", "close what is open"],
];

const POINTER: readonly (readonly [string, string])[] = [
  ["Wheel", "zoom around the pointer; with Alt only the steps"],
  ["Drag", "move"],
  ["Shift and wheel", "move along the steps"],
  ["Shift and drag", "select units and steps"],
  ["Click", "open the unit"],
];

export function Help() {
  const store = useStore();
  const dialog = useRef<HTMLDialogElement>(null);
  const { value: glossary, error } = store.glossary.state.value;
  const overview = store.overview.state.value.value;
  useEffect(() => {
    const element = dialog.current;
    if (element && !element.open) element.showModal();
    return () => element?.close();
  }, []);
  const close = (): void => store.go({ panel: null });
  return (
    <dialog
      ref={dialog}
      class="help"
      aria-label="Help"
      onClose={close}
      onClick={(event) => {
        if (event.target === dialog.current) close();
      }}
      onKeyDown={(event) => {
        if (event.key === "Escape") close();
      }}
    >
      <div class="help-body">
        <header class="drawer-head">
          <h2>Help</h2>
          <span class="spacer" />
          <button type="button" class="button icon quiet" aria-label="Close" onClick={close}>
            <Icon name="close" />
          </button>
        </header>
        <div class="help-columns">
          <Keys title="Anywhere" keys={GLOBAL_KEYS} />
          <Keys title="In the heatmap, with the keyboard" keys={HEATMAP_KEYS} />
          <Keys title="In the heatmap, with the pointer" keys={POINTER} />
        </div>
        <label class="check">
          <input
            type="checkbox"
            checked={shortcutsEnabled.value}
            onChange={(event) => {
              shortcutsEnabled.value = event.currentTarget.checked;
            }}
          />
          Single keys anywhere (/ and ?) are shortcuts
        </label>
        {error && <Failure error={error} retry={store.glossary.retry} />}
        {overview && <DataQuality overview={overview} />}
        {glossary ? <Words glossary={glossary} /> : !error && <Skeleton height={300} />}
      </div>
    </dialog>
  );
}

function Keys({ title, keys }: { readonly title: string; readonly keys: readonly (readonly [string, string])[] }) {
  return (
    <section>
      <h3>{title}</h3>
      <dl class="keys">
        {keys.map(([key, meaning]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function Words({ glossary }: { readonly glossary: Glossary }) {
  return (
    <>
      <h3>Events</h3>
      <p class="event-words">
        {EVENT_KINDS.map((kind) => (
          <EventName key={kind} kind={kind} />
        ))}
      </p>
      <h3>States</h3>
      <p class="hint">A unit has one state at each record: the most severe whose rule holds.</p>
      <table class="table words">
        <thead>
          <tr>
            <th scope="col">State</th>
            <th scope="col">Level</th>
            <th scope="col">Means</th>
            <th scope="col">Rule</th>
            <th scope="col">Does not mean</th>
          </tr>
        </thead>
        <tbody>
          {glossary.states.map((state) => (
            <tr key={state.label}>
              <th scope="row">
                <StateName state={state.label} />
              </th>
              <td>
                <span class={`chip level-${state.level}`}>{state.level}</span>
              </td>
              <td>{state.means}</td>
              <td>{state.rule}</td>
              <td>{state.not}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <h3>Statistics</h3>
      <table class="table words">
        <tbody>
          {glossary.statistics.map((statistic) => (
            <tr key={statistic.name}>
              <th scope="row" class="name">
                {statistic.name}
              </th>
              <td>{statistic.meaning}</td>
              <td class="hint">{statistic.signal.replace("_", " ")}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <h3>Thresholds</h3>
      <table class="table words">
        <thead>
          <tr>
            <th scope="col">Threshold</th>
            <th scope="col" class="numeric">
              Default
            </th>
            <th scope="col">Unit</th>
            <th scope="col">Meaning</th>
            <th scope="col">Source</th>
          </tr>
        </thead>
        <tbody>
          {glossary.thresholds.map((threshold) => (
            <tr key={threshold.name}>
              <th scope="row" class="name">
                {threshold.name}
              </th>
              <td class="numeric">{number(threshold.default)}</td>
              <td>{threshold.unit}</td>
              <td>{threshold.meaning}</td>
              <td class="hint">{threshold.source}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}
