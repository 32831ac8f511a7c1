/** How a layer's units divide into states: a bar, worst at the left, with glyphs where they fit. */
import { count, percent } from "../domain/format";
import { present, STATE_GLYPHS, type StateCounts, totalOf } from "../domain/states";

const WIDTH = 160;
const HEIGHT = 14;
const LEAST = 3;

export function MixBar({ states }: { readonly states: StateCounts }) {
  const total = totalOf(states);
  const labels = present(states);
  // A state with any unit gets a visible sliver; the largest part gives the room.
  const widths = labels.map((label) => Math.max(LEAST, ((states[label] ?? 0) / total) * WIDTH));
  const excess = widths.reduce((sum, width) => sum + width, 0) - WIDTH;
  const largest = widths.indexOf(Math.max(...widths));
  const text = labels.map((label) => `${count(states[label] ?? 0)} ${label}`).join(", ");
  let left = 0;
  return (
    <svg class="mix" width={WIDTH} height={HEIGHT} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={text}>
      <title>
        {labels
          .map((label) => `${count(states[label] ?? 0)} ${label} (${percent((states[label] ?? 0) / total)})`)
          .join("\n")}
      </title>
      {labels.map((label, index) => {
        const width = (widths[index] ?? 0) - (index === largest ? excess : 0);
        const x = left;
        left += width;
        return (
          <g key={label}>
            <rect
              class="mix-part"
              x={x}
              width={Math.max(1, width - 1)}
              height={HEIGHT}
              style={{ fill: `var(--state-${label})` }}
            />
            {width >= 15 && STATE_GLYPHS[label] !== "" && (
              <path
                d={STATE_GLYPHS[label]}
                transform={`translate(${x + width / 2 - 6.5} 1)`}
                style={{ stroke: `var(--ink-${label})` }}
              />
            )}
          </g>
        );
      })}
    </svg>
  );
}
