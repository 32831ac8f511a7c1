/** A state's sign: its colour and its glyph. */
import { STATE_GLYPHS, type StateLabel } from "../domain/states";

interface Props {
  readonly state: StateLabel;
  readonly size?: number;
}

export function Swatch({ state, size = 14 }: Props) {
  const glyph = STATE_GLYPHS[state];
  return (
    <svg class="swatch" width={size} height={size} viewBox="0 0 12 12" aria-hidden="true" focusable="false">
      <rect class="swatch-ground" width="12" height="12" rx="2.5" style={{ fill: `var(--state-${state})` }} />
      {glyph !== "" && <path d={glyph} style={{ stroke: `var(--ink-${state})` }} />}
    </svg>
  );
}

/** Sign and name. */
export function StateName({ state }: { readonly state: StateLabel }) {
  return (
    <span class="state-name">
      <Swatch state={state} />
      {state}
    </span>
  );
}
