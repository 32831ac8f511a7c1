import { describe, expect, it } from "vitest";
import type { EventsAnswer, Overview } from "../src/api/types";
import { barsOf, EVENT_KINDS, eventsByUnit, eventText, positionOf, totalsText } from "../src/domain/events";
import { count } from "../src/domain/format";
import { StepScale } from "../src/domain/steps";
import { eventsOf, revivalText } from "../src/overview/run_events";

const scale = new StepScale([0, 10, 20, 30, 40]);
const events: EventsAnswer = {
  total: 5,
  kinds: EVENT_KINDS,
  unit: [7, 3, 3, 4, 3],
  step: [0, 11, 20, 20, 1000],
  kind: [0, 2, 4, 2, 3],
};

describe("events", () => {
  it("stand in the record that saw them, a revival behind the step it came after", () => {
    expect(scale.recordFrom(11)).toBe(2);
    expect(scale.recordFrom(10)).toBe(1);
    expect(scale.recordFrom(1000)).toBe(4);
    expect(new StepScale([]).recordFrom(5)).toBe(0);
    expect(positionOf(scale, "died", 11)).toBe(2.5);
    expect(positionOf(scale, "revived", 20)).toBe(3);
  });

  it("are told of each unit, in order", () => {
    const units = eventsByUnit(events);
    expect([...units.keys()]).toEqual([7, 3, 4]);
    expect(eventText(units.get(3) ?? [], count)).toBe(
      "died at step 11, revived with new weights at step 20, fired again by itself at step 1,000",
    );
    expect(eventText(units.get(7) ?? [], count)).toBe("born dead");
  });

  it("are counted by kind, deaths first", () => {
    expect(totalsText(events)).toBe("1 unit born dead, 2 deaths, 1 return, 1 revival");
    expect(totalsText({ ...events, kind: [] })).toBe("no unit has died");
  });

  it("make bars of whole records, deaths and returns apart", () => {
    const bars = barsOf(events, scale, { start: 0, stop: 5 }, 500);
    expect(bars).toEqual([
      { left: 0, width: 100, deaths: 1, returns: 0 },
      { left: 200, width: 100, deaths: 2, returns: 1 },
      { left: 400, width: 100, deaths: 0, returns: 1 },
    ]);
    // Half a pixel a record: bars of several records, and nothing is lost.
    const narrow = barsOf(events, scale, { start: 0, stop: 5 }, 2.5);
    expect(narrow).toEqual([{ left: 0, width: 3, deaths: 3, returns: 2 }]);
    expect(barsOf(events, scale, { start: 3, stop: 5 }, 100).map(({ left }) => left)).toEqual([50]);
  });
});

describe("events of a run", () => {
  const group = {
    kind: "died" as const,
    count: 2,
    first_step: 30,
    middle_step: 30,
    last_step: 40,
    sentence: "2 units died",
  };
  const revival = { step: 20, layer: "b", count: 40, policy: "dead units", later: [{ step: 520, alive: 31, of: 40 }] };
  const overview = {
    layers: [
      { layer: "a", events: [group, { ...group, kind: "revived" }] },
      { layer: "b", events: [{ ...group, first_step: 5 }] },
    ],
    revivals: [revival],
  } as unknown as Overview;

  it("come in order of steps, revivals with what became of the units", () => {
    expect(eventsOf(overview).map(({ layer, kind, step }) => [layer, kind, step])).toEqual([
      ["b", "died", 5],
      ["b", "revived", 20],
      ["a", "died", 30],
    ]);
    expect(revivalText(revival)).toBe("40 units given new weights (dead units); 31 of 40 alive 500 steps later");
    expect(revivalText({ ...revival, later: [], policy: "" })).toBe("40 units given new weights; no record since then");
  });
});
