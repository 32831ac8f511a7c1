import { describe, expect, it } from "vitest";
import { Api, thresholdText } from "../src/api/api";
import { LruCache } from "../src/api/lru";
import { RequestQueue } from "../src/api/queue";

function gate(): { readonly promise: Promise<void>; readonly open: () => void } {
  let open = (): void => {};
  const promise = new Promise<void>((done) => {
    open = done;
  });
  return { promise, open };
}

const never = new AbortController().signal;
const settled = (): Promise<void> => new Promise((done) => setTimeout(done));

describe("request queue", () => {
  it("runs no more than its limit, even as places free up", async () => {
    const queue = new RequestQueue(2);
    let [running, most] = [0, 0];
    const task = async (): Promise<void> => {
      most = Math.max(most, ++running);
      await settled();
      running--;
    };
    await Promise.all(Array.from({ length: 12 }, () => queue.run(task, never)));
    expect(most).toBe(2);
    expect(queue.running).toBe(0);
  });

  it("drops what was aborted while it waited, and serves the urgent first", async () => {
    const queue = new RequestQueue(1);
    const first = gate();
    const order: string[] = [];
    const run = (name: string, signal: AbortSignal, urgent = false) =>
      queue.run(
        async () => {
          order.push(name);
          return name;
        },
        signal,
        urgent,
      );
    const blocking = queue.run(() => first.promise, never);
    const dropped = new AbortController();
    const waiting = [run("late", never), run("dropped", dropped.signal), run("urgent", never, true)];
    dropped.abort();
    first.open();
    await blocking;
    expect(await Promise.all(waiting)).toEqual(["late", null, "urgent"]);
    expect(order).toEqual(["urgent", "late"]);
  });

  it("goes on after a task that fails", async () => {
    const queue = new RequestQueue(1);
    await expect(queue.run(() => Promise.reject(new Error("no")), never)).rejects.toThrow("no");
    expect(await queue.run(async () => 1, never)).toBe(1);
  });
});

describe("LRU cache", () => {
  it("evicts what was used longest ago", () => {
    const evicted: number[] = [];
    const cache = new LruCache<number>(2, (value) => evicted.push(value));
    cache.set("a", 1);
    cache.set("b", 2);
    cache.get("a");
    cache.set("c", 3);
    expect(evicted).toEqual([2]);
    expect([cache.get("a"), cache.get("b"), cache.get("c")]).toEqual([1, undefined, 3]);
  });

  it("does not count a peek as use", () => {
    const cache = new LruCache<number>(2);
    cache.set("a", 1);
    cache.set("b", 2);
    cache.peek("a");
    cache.set("c", 3);
    expect(cache.peek("a")).toBeUndefined();
    expect(cache.size).toBe(2);
  });
});

describe("api", () => {
  const answering = (response: () => Response, seen: string[] = []) =>
    new Api((async (address: string) => {
      seen.push(address);
      return response();
    }) as typeof fetch);

  it("asks relative addresses with escaped names and sorted thresholds", async () => {
    const seen: string[] = [];
    const api = answering(() => new Response("{}"), seen);
    await api.layer({ run: "a/b c", layer: "<x>&y", thresholds: { dying_share: 0.02, dead_examples: 5 } }, never);
    await api.runs(never);
    expect(seen).toEqual([
      "layer?run=a%2Fb+c&layer=%3Cx%3E%26y&thresholds=dead_examples%3A5%2Cdying_share%3A0.02",
      "runs",
    ]);
    expect(thresholdText({})).toBe("");
  });

  it("hands on the server's sentence, and makes one where a page came instead", async () => {
    const refused = await answering(() => new Response("Not found: there is no run 'x'", { status: 404 })).runs(never);
    expect(refused).toEqual({ ok: false, error: { kind: "refused", sentence: "There is no run 'x'" } });
    const page = await answering(() => new Response("<html>", { status: 502, statusText: "Bad Gateway" })).runs(never);
    expect(page.ok ? "" : page.error.sentence).toContain("502 Bad Gateway");
  });

  it("tells no answer, a broken answer and a superseded question apart", async () => {
    const silent = new Api(() => Promise.reject(new TypeError("network")));
    expect(await silent.runs(never)).toMatchObject({ error: { kind: "unreachable" } });
    expect(await answering(() => new Response("{")).runs(never)).toMatchObject({ error: { kind: "broken" } });
    const gone = new AbortController();
    gone.abort();
    expect(await silent.runs(gone.signal)).toMatchObject({ error: { kind: "superseded" } });
  });
});
