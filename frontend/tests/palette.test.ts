/** States must be told apart by people who see colours differently: Machado 2009 at full severity, distances in OKLab. */
import { describe, expect, it } from "vitest";
import { contrast, inkOn, LINE_COLORS, PALETTES, PAPER, parseHex, type Theme } from "../src/domain/palette";
import { STATE_GLYPHS, STATE_LABELS, type StateLabel } from "../src/domain/states";

type Vector = readonly [number, number, number];
type Matrix = readonly [Vector, Vector, Vector];

const VISIONS: Readonly<Record<string, Matrix>> = {
  typical: [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ],
  protanopia: [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  deuteranopia: [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.01182, 0.04294, 0.968881],
  ],
  tritanopia: [
    [1.255528, -0.076749, -0.178779],
    [-0.078411, 0.930809, 0.147602],
    [0.004733, 0.691367, 0.3039],
  ],
};

/** These touch one another in the same rows; the others are rarer and also carry a glyph and a name. */
const OFTEN_TOUCHING: readonly StateLabel[] = [
  "active",
  "sparse",
  "dying",
  "saturated",
  "dead",
  "constant",
  "non_finite",
];
const LEAST_OFTEN_TOUCHING = 7;
const LEAST_OF_ALL = 7;

function linear(hex: string): Vector {
  const [red, green, blue] = parseHex(hex).map((channel) => {
    const value = channel / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return [red ?? 0, green ?? 0, blue ?? 0];
}

function seen(matrix: Matrix, color: Vector): Vector {
  const [red, green, blue] = matrix.map((row) => {
    const value = row[0] * color[0] + row[1] * color[1] + row[2] * color[2];
    return Math.min(1, Math.max(0, value));
  });
  return [red ?? 0, green ?? 0, blue ?? 0];
}

function oklab([red, green, blue]: Vector): Vector {
  const long = Math.cbrt(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue);
  const middle = Math.cbrt(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue);
  const short = Math.cbrt(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue);
  return [
    0.2104542553 * long + 0.793617785 * middle - 0.0040720468 * short,
    1.9779984951 * long - 2.428592205 * middle + 0.4505937099 * short,
    0.0259040371 * long + 0.7827717662 * middle - 0.808675766 * short,
  ];
}

function distance(matrix: Matrix, first: string, second: string): number {
  const [one, other] = [oklab(seen(matrix, linear(first))), oklab(seen(matrix, linear(second)))];
  return 100 * Math.hypot(one[0] - other[0], one[1] - other[1], one[2] - other[2]);
}

const themes: readonly Theme[] = ["light", "dark"];
const cases = themes.flatMap((theme) => Object.keys(VISIONS).map((vision) => ({ theme, vision })));

describe.each(cases)("state colours, $theme, $vision", ({ theme, vision }) => {
  const matrix = VISIONS[vision] as Matrix;
  const palette = PALETTES[theme];
  const pairs = STATE_LABELS.flatMap((first, index) =>
    STATE_LABELS.slice(index + 1).map((second) => [first, second] as const),
  );

  it("keeps every pair of states apart", () => {
    for (const [first, second] of pairs) {
      const both = OFTEN_TOUCHING.includes(first) && OFTEN_TOUCHING.includes(second);
      const least = both ? LEAST_OFTEN_TOUCHING : LEAST_OF_ALL;
      expect(distance(matrix, palette[first], palette[second]), `${first} and ${second}`).toBeGreaterThan(least);
    }
  });

  it("keeps alarms far from active", () => {
    for (const alarm of ["dead", "saturated", "constant", "non_finite", "disconnected"] as const) {
      expect(distance(matrix, palette[alarm], palette.active), alarm).toBeGreaterThan(15);
    }
  });
});

describe.each(themes)("signs, %s", (theme) => {
  it("draws every glyph in an ink that reads on its ground", () => {
    for (const label of STATE_LABELS) {
      expect(contrast(inkOn(PALETTES[theme][label]), PALETTES[theme][label]), label).toBeGreaterThan(3);
    }
  });

  it("gives each state but active a glyph of its own", () => {
    const glyphs = STATE_LABELS.map((label) => STATE_GLYPHS[label]);
    expect(new Set(glyphs).size).toBe(STATE_LABELS.length);
    expect(STATE_GLYPHS.active).toBe("");
  });

  it("draws lines that stand out from the page", () => {
    for (const [name, color] of Object.entries(LINE_COLORS[theme])) {
      expect(contrast(color, PAPER[theme]), name).toBeGreaterThan(3);
    }
  });
});
