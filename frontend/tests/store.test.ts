/** The store against a server in memory: what is asked for, when, and what stays on screen meanwhile. */
import { signal } from "@preact/signals";
import { beforeEach, describe, expect, it } from "vitest";
import { Api } from "../src/api/api";
import type { Theme } from "../src/domain/palette";
import type { Host } from "../src/host/host";
import type { Link } from "../src/state/place";
import { createStore, type Store } from "../src/state/store";

const settled = (): Promise<void> => new Promise((done) => setTimeout(done, 5));

class MemoryHost implements Host {
  readonly theme = signal<Theme>("light");
  readonly written: { link: Link; journey: boolean }[] = [];
  reload = (): void => {};
  navigate: (link: Link) => void = () => {};
  constructor(readonly start: Link = {}) {}
  readLink = (): Link => this.start;
  writeLink = (link: Link, journey: boolean): void => {
    this.written.push({ link, journey });
  };
  address = (): string => "";
  onLink = (callback: (link: Link) => void): void => {
    this.navigate = callback;
  };
  onReload = (callback: () => void): void => {
    this.reload = callback;
  };
}

let asked: string[];
let version: string;
let broken: boolean;
let units: Record<string, number>;
let host: MemoryHost;

const answers = (route: string, query: URLSearchParams): object => {
  switch (route) {
    case "runs":
      return { runs: ["a", "b"].map((run) => ({ run, records: 2, layers: 1, version })), notes: [] };
    case "overview":
      return {
        run: query.get("run"),
        version,
        steps: [0, 1],
        layers: [],
        thresholds: {},
        asked: query.get("thresholds"),
      };
    case "layer":
      return {
        run: query.get("run"),
        layer: query.get("layer"),
        version,
        steps: [0, 1],
        records: 2,
        units: units[query.get("run") ?? ""] ?? 3,
        statistics: ["mean"],
      };
    case "compare": {
      const [first, second] = [query.get("run"), query.get("other")];
      const layers = [
        { layer: "dense", other: "dense", chance: 0.4 },
        { layer: "dense_1", other: "hidden", chance: 0.01 },
      ];
      return { first, second, layers, only_first: ["alone"], only_second: [] };
    }
    default:
      return {};
  }
};

function open(link: Link = {}): Store {
  host = new MemoryHost(link);
  const api = new Api((async (address: string) => {
    asked.push(address);
    if (broken) return new Response("the log directory is gone", { status: 400 });
    const [route = "", text = ""] = address.split("?");
    if (route === "order") return new Response(new Uint32Array([2, 0, 1]));
    return new Response(JSON.stringify(answers(route, new URLSearchParams(text))));
  }) as typeof fetch);
  return createStore(api, host);
}

beforeEach(() => {
  asked = [];
  version = "1";
  broken = false;
  units = {};
});

describe("store", () => {
  it("shows the first run when the link names none, and the named one otherwise", async () => {
    const first = open();
    await settled();
    expect(first.overview.state.value.value?.run).toBe("a");
    const named = open({ run: "b" });
    await settled();
    expect(named.overview.state.value.value?.run).toBe("b");
  });

  it("compares two runs, and no run with itself", async () => {
    open({ run: "a", versus: "b" });
    await settled();
    expect(asked.filter((url) => url.startsWith("compare"))).toEqual(["compare?run=a&other=b"]);
    asked = [];
    const same = open({ versus: "a" });
    await settled();
    expect(asked.filter((url) => url.startsWith("compare"))).toEqual([]);
    expect(same.versus.value).toBeNull();
  });

  it("shows the layer that differs most in both runs, and the one that was chosen", async () => {
    const store = open({ run: "a", versus: "b" });
    await settled();
    expect(store.pair.scopes.map(({ layer }) => layer.state.value.value?.layer)).toEqual(["dense_1", "hidden"]);
    asked = [];
    store.go({ pair: "dense", order: "death" });
    await settled();
    expect(asked.filter((url) => url.startsWith("layer"))).toEqual([
      "layer?run=a&layer=dense",
      "layer?run=b&layer=dense",
    ]);
    // The second has the rows of the first, so that units stand below themselves.
    expect(asked.filter((url) => url.startsWith("order"))).toEqual([
      "order?run=a&layer=dense&order=death&version=1",
      "order?run=b&layer=dense&order=death&like=a&like_layer=dense&like_version=1&version=1",
    ]);
    store.go({ pair: "alone" });
    await settled();
    expect(store.pair.scopes.map(({ layer }) => layer.state.value.value?.layer)).toEqual(["alone", undefined]);
    store.go({ layer: "dense" });
    expect(store.pair.chosen.value).toBeNull();
  });

  it("lends no order where the layers have not as many units", async () => {
    units = { b: 5 };
    const store = open({ run: "a", versus: "b", order: "death" });
    await settled();
    expect(store.pair.scopes[1].like.value).toBeNull();
    expect(asked).toContain("order?run=b&layer=hidden&order=death&version=1");
  });

  it("knows when nothing is under way", async () => {
    const store = open();
    expect(store.api.activity.quiet).toBe(false);
    await settled();
    expect(store.api.activity.quiet).toBe(true);
  });

  it("asks again only when the run has grown, and keeps what is shown meanwhile", async () => {
    const store = open();
    await settled();
    asked = [];
    host.reload();
    await settled();
    expect(asked).toEqual(["runs"]);
    version = "2";
    host.reload();
    const shown: (string | undefined)[] = [];
    store.overview.state.subscribe(({ value }) => shown.push(value?.version));
    await settled();
    expect(asked).toContain("overview?run=a");
    expect(shown).not.toContain(undefined);
    expect(shown.at(-1)).toBe("2");
  });

  it("keeps the reader's place through a reload", async () => {
    const store = open({ layer: "dense", steps: "0-1", unit: "2", thresholds: "dead_examples:9" });
    await settled();
    const before = store.place.value;
    version = "2";
    host.reload();
    await settled();
    expect(store.place.value).toBe(before);
    expect(store.layer.state.value.value?.version).toBe("2");
  });

  it("does not show one layer's data as another's", async () => {
    const store = open({ layer: "dense" });
    await settled();
    store.go({ layer: "other" });
    expect(store.layer.state.value.value).toBeNull();
    await settled();
    expect(store.layer.state.value.value?.layer).toBe("other");
  });

  it("writes links, journeys apart from adjustments, and follows the browser's Back", async () => {
    const store = open();
    store.go({ layer: "dense" });
    store.go({ order: "death" });
    store.go({ order: "death" });
    expect(host.written).toEqual([
      { link: { layer: "dense" }, journey: true },
      { link: { layer: "dense", order: "death" }, journey: false },
    ]);
    host.navigate({});
    expect(store.place.value.layer).toBeNull();
    expect(host.written).toHaveLength(2);
  });

  it("asks anew with other thresholds", async () => {
    const store = open();
    await settled();
    store.go({ thresholds: { dead_examples: 7 } });
    await settled();
    expect(store.overview.state.value.value).toMatchObject({ asked: "dead_examples:7" });
  });

  it("keeps the last answer beside an error, and recovers on retry", async () => {
    const store = open();
    await settled();
    broken = true;
    version = "2";
    store.overview.retry();
    await settled();
    expect(store.overview.state.value).toMatchObject({
      error: { sentence: "The log directory is gone" },
      value: { run: "a" },
    });
    broken = false;
    units = {};
    store.overview.retry();
    await settled();
    expect(store.overview.state.value.error).toBeNull();
  });

  it("asks for nothing while nobody can see it", async () => {
    const store = open();
    await settled();
    store.awake.value = false;
    asked = [];
    store.go({ layer: "dense" });
    await settled();
    expect(asked).toEqual([]);
    store.awake.value = true;
    await settled();
    expect(asked).toContain("layer?run=a&layer=dense");
  });
});
