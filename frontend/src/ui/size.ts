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
  useEffect(() => {
    const element = ref.current;
    if (!element) return;
    const observer = new ResizeObserver(() => {
      const next = { width: element.clientWidth, height: element.clientHeight };
      const now = size.peek();
      if (next.width !== now.width || next.height !== now.height) size.value = next;
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, [size]);
  return { ref, size };
}
