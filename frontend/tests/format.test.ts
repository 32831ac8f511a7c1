import { describe, expect, it } from "vitest";
import { count, counted, csvLine, number, percent, phrase, seconds, shortened } from "../src/domain/format";

const plain = (text: string): string => text.replaceAll("\u00A0", " ");

describe("numbers", () => {
  it.each([
    [0, "0 %"],
    [0.0000001, "< 0.01 %"],
    [0.00059, "0.059 %"],
    [0.006, "0.6 %"],
    [0.016, "1.6 %"],
    [0.094, "9.4 %"],
    [0.255, "25.5 %"],
    [0.27, "27 %"],
    [0.9996, "99.9 %"],
    [1, "100 %"],
    [Number.NaN, "–"],
  ])("reads the share %d as %s", (share, text) => {
    expect(plain(percent(share))).toBe(text);
  });

  it.each([
    [null, "–"],
    [Number.NaN, "–"],
    [Number.POSITIVE_INFINITY, "Inf"],
    [0, "0"],
    [51200, "51,200"],
    [0.4056, "0.406"],
    [1234.5, "1,235"],
    [0.000059, "5.9e-5"],
    [-0.25, "−0.25"],
    [-0.0000123, "−1.23e-5"],
    [12_345_678.9, "1.23e7"],
  ])("reads %d as %s", (value, text) => {
    expect(number(value)).toBe(text);
  });

  it("separates thousands and knows one from many", () => {
    expect(count(65536)).toBe("65,536");
    expect([counted(1, "unit"), counted(2, "unit")]).toEqual(["1 unit", "2 units"]);
    expect([seconds(0.05), seconds(0.7), seconds(600)].map(plain)).toEqual(["50 ms", "0.7 s", "10 min"]);
    expect(phrase("learning_rate_too_high")).toBe("Learning rate too high");
  });

  it("shortens a long name in its middle, because ends tell names apart", () => {
    expect(shortened("runs/mlp_seed17", 15)).toBe("runs/mlp_seed17");
    expect(shortened("experiments/mlp_lr0.001_seed17", 15)).toBe("experim…_seed17");
  });
});

describe("CSV", () => {
  it("quotes what must be quoted", () => {
    expect(csvLine([1, "a,b", 'say "x"', null, undefined, "line\nbreak"])).toBe('1,"a,b","say ""x""",,,"line\nbreak"');
  });

  it("lets no text become a formula, and leaves numbers alone", () => {
    expect(csvLine(["=1+1", "@x", "-cmd", -3.5])).toBe("'=1+1,'@x,'-cmd,-3.5");
  });
});
