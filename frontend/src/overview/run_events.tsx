/** What happened to units of each layer, in sentences: births, deaths, returns, and what became of the revived. */
import type { Overview, Revival } from "../api/types";
import type { EventKind } from "../domain/events";
import { count, counted, sentence } from "../domain/format";
import { useStore } from "../state/context";
import { EventSign } from "../ui/event_sign";
import { Name } from "../ui/name";
import { pointsAt } from "../ui/step_link";

interface Told {
  readonly key: string;
  readonly layer: string;
  readonly kind: EventKind;
  readonly step: number;
  readonly text: string;
}

const SHOWN = 12;

export function RunEvents({ overview }: { readonly overview: Overview }) {
  const store = useStore();
  const told = eventsOf(overview);
  if (told.length === 0) return null;
  const more = told.length - SHOWN;
  return (
    <section class="panel" aria-label="Events">
      <header class="panel-head">
        <h2>Events</h2>
        <span class="panel-note">deaths and returns of units, in order of steps</span>
      </header>
      <ul class="run-events">
        {told.slice(0, SHOWN).map(({ key, layer, kind, step, text }) => (
          <li key={key}>
            <button type="button" class="link step" {...pointsAt(store, step)}>
              step {count(step)}
            </button>
            <EventSign kind={kind} />
            <button
              type="button"
              class="link"
              aria-label={`Open layer ${layer}`}
              onClick={() => store.go({ layer, unit: null, rows: null })}
            >
              <Name text={layer} />
            </button>
            <span>{text}</span>
          </li>
        ))}
        {more > 0 && (
          <li>
            <span class="hint">{counted(more, "more event")} in the layers above.</span>
          </li>
        )}
      </ul>
    </section>
  );
}

/** Revivals are told from the log, with what became of them; everything else from the units' lives. */
export function eventsOf(overview: Overview): Told[] {
  const lives = overview.layers.flatMap(({ layer, events }) =>
    events
      .filter(({ kind }) => kind !== "revived")
      .map((group) => ({
        key: `${layer} ${group.kind}`,
        layer,
        kind: group.kind,
        step: group.first_step,
        text: sentence(group.sentence),
      })),
  );
  const revived = overview.revivals.map((revival) => ({
    key: `${revival.layer} revived ${revival.step}`,
    layer: revival.layer,
    kind: "revived" as const,
    step: revival.step,
    text: revivalText(revival),
  }));
  return [...lives, ...revived].sort((one, other) => one.step - other.step);
}

/** `40 units given new weights (dead units); 31 of 40 alive 500 steps later` */
export function revivalText({ step, count: units, policy, later }: Revival): string {
  const by = policy === "" ? "" : ` (${policy})`;
  const last = later.at(-1);
  const since = last
    ? `${count(last.alive)} of ${count(last.of)} alive ${counted(last.step - step, "step")} later`
    : "no record since then";
  return `${counted(units, "unit")} given new weights${by}; ${since}`;
}
