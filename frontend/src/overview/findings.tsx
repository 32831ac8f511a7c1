/** Judgements on the run: a cause, what supports it, what it rules out, and what to do. */
import { useState } from "preact/hooks";
import type { Finding } from "../api/types";
import { count, percent, phrase } from "../domain/format";
import { useStore } from "../state/context";
import { Name } from "../ui/name";
import { pointsAt } from "../ui/step_link";

const FOLDED_LAYERS = 6;
const FOLDED_ITEMS = 4;

export function Findings({ findings }: { readonly findings: readonly Finding[] }) {
  if (findings.length === 0) return null;
  return (
    <section class="findings" aria-label="Findings">
      {findings.map((finding) => (
        <Card key={`${finding.cause} ${finding.layers.join()}`} finding={finding} />
      ))}
    </section>
  );
}

function Card({ finding }: { readonly finding: Finding }) {
  const store = useStore();
  const { step } = finding;
  return (
    <article class={`finding level-${finding.level}`}>
      <header>
        <h2>{phrase(finding.cause)}</h2>
        <span class={`chip level-${finding.level}`}>{finding.level}</span>
        {finding.confidence !== null && <span class="hint">confidence {percent(finding.confidence)}</span>}
        <span class="spacer" />
        {step !== null && (
          <button type="button" class="link" {...pointsAt(store, step)}>
            step {count(step)}
          </button>
        )}
        {finding.layers.slice(0, FOLDED_LAYERS).map((layer) => (
          <button key={layer} type="button" class="link" onClick={() => store.go({ layer, unit: null, rows: null })}>
            <Name text={layer} />
          </button>
        ))}
        {finding.layers.length > FOLDED_LAYERS && (
          <span class="hint">and {count(finding.layers.length - FOLDED_LAYERS)} more</span>
        )}
      </header>
      <div class="finding-lists">
        <List title="Evidence" items={finding.evidence} />
        <List title="What to do" items={finding.remedies} />
        <List title="Ruled out" items={finding.ruled_out} />
      </div>
    </article>
  );
}

function List({ title, items }: { readonly title: string; readonly items: readonly string[] }) {
  const [open, setOpen] = useState(false);
  if (items.length === 0) return null;
  const shown = open || items.length <= FOLDED_ITEMS + 1 ? items : items.slice(0, FOLDED_ITEMS);
  return (
    <div class="finding-list">
      <h3>{title}</h3>
      <ul>
        {shown.map((item) => (
          <li key={item}>{item}</li>
        ))}
      </ul>
      {shown.length < items.length && (
        <button type="button" class="link hint" onClick={() => setOpen(true)}>
          {items.length - shown.length} more
        </button>
      )}
    </div>
  );
}
