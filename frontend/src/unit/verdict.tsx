/** Why a unit is called what it is called: the rule, and the numbers that decided. */
import type { Certificate, DecidingNumber, UnitAnswer } from "../api/types";
import { CERTAINTY_MEANS } from "../domain/certainty";
import { count, number, sentence } from "../domain/format";
import { isFlagged, STATE_LEVELS } from "../domain/states";
import { useStore } from "../state/context";
import { Swatch } from "../ui/swatch";

export function Verdict({ value }: { readonly value: UnitAnswer }) {
  const store = useStore();
  const level = STATE_LEVELS[value.state];
  const rule = store.glossary.state.value.value?.states.find(({ label }) => label === value.rule);
  return (
    <section class={`verdict level-${level}`}>
      <p class="verdict-state">
        <Swatch state={value.state} size={20} />
        <b>{value.state}</b>
        {level !== "ok" && <span class={`chip level-${level}`}>{level}</span>}
        <span class="hint">{since(value)}</span>
      </p>
      <p>{sentence(value.why)}.</p>
      {value.certificate && <CertificateNote value={value.certificate} />}
      {value.numbers.length > 0 && (
        <dl class="numbers" aria-label="Numbers that decided">
          {value.numbers.map((entry) => (
            <NumberRow key={entry.name} entry={entry} />
          ))}
        </dl>
      )}
      {rule && (
        <details>
          <summary>The rule for {value.rule}</summary>
          <p>{rule.rule}</p>
          {rule.means && <p>{rule.means}</p>}
          {rule.not && <p class="hint">{rule.not}</p>}
        </details>
      )}
    </section>
  );
}

function CertificateNote({ value }: { readonly value: Certificate }) {
  return (
    <p class="certificate">
      <span class="chip" title={CERTAINTY_MEANS[value.word]}>
        {value.word}
      </span>{" "}
      {sentence(value.why)}.
    </p>
  );
}

function NumberRow({ entry }: { readonly entry: DecidingNumber }) {
  return (
    <div>
      <dt>{entry.name}</dt>
      <dd>
        <b>{number(entry.value)}</b>
        {entry.threshold !== null && (
          <span class="hint" title={entry.threshold_name ?? undefined}>
            {entry.comparison} {number(entry.threshold)}
          </span>
        )}
      </dd>
    </div>
  );
}

/** `since step 240 · 51,200 examples` */
function since(value: UnitAnswer): string {
  const parts = [];
  const flagged = isFlagged(value.state);
  if (value.born === true && value.state === "dead") parts.push("born dead");
  else if (value.since_step !== null) parts.push(`since step ${count(value.since_step)}`);
  if (flagged && value.examples !== null) parts.push(`${count(value.examples)} examples`);
  return parts.join(" · ");
}
