/** The one step cursor, in every chart at the same step. Moving it draws nothing anew. */
import { type ReadonlySignal, useSignalEffect } from "@preact/signals";
import { useRef } from "preact/hooks";

/** @param x pixels from the left edge of the chart; null hides the line. */
export function CursorLine({ x }: { readonly x: ReadonlySignal<number | null> }) {
  const line = useRef<HTMLDivElement>(null);
  useSignalEffect(() => {
    const [element, place] = [line.current, x.value];
    if (!element) return;
    element.style.display = place === null ? "none" : "block";
    if (place !== null) element.style.transform = `translateX(${Math.round(place)}px)`;
  });
  return <div ref={line} class="cursor-line" aria-hidden="true" />;
}
