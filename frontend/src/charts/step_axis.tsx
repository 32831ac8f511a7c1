/** Steps below a chart. */

import { count } from "../domain/format";
import type { Range, StepScale } from "../domain/steps";

interface Props {
  readonly scale: StepScale;
  readonly range: Range;
  readonly width: number;
  readonly title?: boolean;
}

export function StepAxis({ scale, range, width, title = true }: Props) {
  const perRecord = width / (range.stop - range.start);
  return (
    <div class="axis-x" aria-hidden="true">
      {scale.ticks(range, width).map(({ position, step }) => (
        <span key={step} class="tick-x" style={{ left: `${(position - range.start) * perRecord}px` }}>
          {count(step)}
        </span>
      ))}
      {title && <span class="axis-x-title">step</span>}
    </div>
  );
}
