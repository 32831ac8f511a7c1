/** Why a unit is called what it is called: the rule, and the numbers that decided. */
import type { DecidingNumber, UnitAnswer } from "../api/types";
import { count, number, percent } from "../domain/format";
import { STATE_LEVELS } from "../domain/states";
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
      <p>{value.why}</p>
      {value.numbers.length > 0 && (
        <table class="numbers">
          <caption class="sr-only">Numbers that decided</caption>
          <tbody>
            {value.numbers.map((entry) => (
              <NumberRow key={entry.name} entry={entry} />
            ))}
          </tbody>
        </table>
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

function NumberRow({ entry }: { readonly entry: DecidingNumber }) {
  return (
    <tr>
      <th scope="row">{entry.name}</th>
      <td class="numeric strong">{number(entry.value)}</td>
      <td class="hint">
        {entry.comparison} {entry.threshold !== null && number(entry.threshold)}
      </td>
      <td class="hint name">{entry.threshold_name}</td>
    </tr>
  );
}

/** `since step 240 · born dead · on 51,200 examples · fires on at most 0.006 % of examples` */
function since(value: UnitAnswer): string {
  const parts = [];
  if (value.born === true && value.state === "dead") parts.push("born dead");
  else if (value.since_step !== null) parts.push(`since step ${count(value.since_step)}`);
  if (value.examples !== null) parts.push(`${count(value.examples)} examples`);
  if (value.rate_upper_bound !== null) parts.push(`fires on at most ${percent(value.rate_upper_bound)} (95 % bound)`);
  return parts.join(" · ");
}
