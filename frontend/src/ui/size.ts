/** The size of an element on screen, as a signal. Zero while it is hidden: then there is nothing to draw. */
import { type ReadonlySignal, signal } from "@preact/signals";
import type { RefObject } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { Size } from "../heatmap/viewport";

export function useSize<T extends HTMLElement>(): {
  readonly ref: RefObject<T | null>;
  readonly size: ReadonlySignal<Size>;
} {
  const ref = useRef<T>(null);
  const size = useMemo(() => signal<Size>({ width: 0, height: 0 }), []);
  const observer = useMemo(
    () =>
      new ResizeObserver(([entry]) => {
        const element = entry?.target;
        if (!element) return;
        const next = { width: element.clientWidth, height: element.clientHeight };
        const now = size.peek();
        if (next.width !== now.width || next.height !== now.height) size.value = next;
      }),
    [size],
  );
  // The element may come late, or be another one after a render.
  const observed = useRef<T | null>(null);
  useEffect(() => {
    if (observed.current === ref.current) return;
    observer.disconnect();
    observed.current = ref.current;
    if (ref.current) observer.observe(ref.current);
  });
  useEffect(() => () => observer.disconnect(), [observer]);
  return { ref, size };
}
