/** Example pictures as strokes: lists of knots [x, y] from 0 to 100. */

const round = (x, y, rx, ry, from = 0, to = 360) => {
  const n = Math.max(4, Math.round(Math.abs(to - from) / 18));
  return Array.from({ length: n + 1 }, (_, i) => {
    const angle = ((from + ((to - from) * i) / n - 90) * Math.PI) / 180;
    return [x + rx * Math.cos(angle), y + ry * Math.sin(angle)];
  });
};

const KNOTS = [
  { name: "a two", kind: "clear", strokes: [[[31, 34], [36, 23], [49, 18], [62, 23], [66, 35], [59, 48], [45, 62], [31, 78], [30, 80], [45, 79], [70, 79]]] },
  { name: "a three", kind: "clear", strokes: [[[33, 25], [43, 18], [57, 18], [65, 27], [62, 39], [50, 46], [46, 47], [58, 49], [67, 58], [66, 71], [55, 80], [42, 81], [31, 74]]] },
  { name: "a five", kind: "clear", strokes: [[[66, 19], [40, 20], [38, 22], [35, 44], [36, 45], [48, 41], [60, 45], [67, 57], [64, 71], [52, 80], [40, 80], [31, 74]]] },
  { name: "a six", kind: "clear", strokes: [[[60, 17], [47, 26], [37, 42], [33, 60], [37, 75], [49, 82], [61, 77], [66, 65], [60, 54], [48, 52], [38, 59], [35, 66]]] },
  { name: "a seven", kind: "clear", strokes: [[[30, 22], [50, 21], [68, 20], [69, 22], [60, 40], [51, 60], [45, 82]]] },
  { name: "a four or a nine", kind: "ambiguous", strokes: [[[48.5, 20], [41, 25], [34, 35], [33, 47], [44, 52], [62, 48]], [[64, 18.5], [63, 50], [60, 84]]] },
  { name: "a one or a seven", kind: "ambiguous", strokes: [[[42, 30], [50, 27], [57, 21], [58, 22], [54, 45], [50, 62], [46, 82]]] },
  { name: "a two or a seven", kind: "ambiguous", strokes: [[[32, 26], [45, 20], [60, 22], [64, 32], [56, 50], [46, 72], [45, 78], [55, 79]]] },
  { name: "a letter", kind: "not-a-digit", strokes: [[[66, 20], [65, 20], [36, 20], [35, 21], [34, 50], [34, 79], [35, 80], [66, 80]], [[34, 50], [58, 50]]] },
  { name: "a star", kind: "not-a-digit", strokes: [[[50, 14], [60, 41], [88, 41], [66, 58], [74, 85], [50, 69], [26, 85], [34, 58], [12, 41], [40, 41], [50, 14]]] },
  { name: "a face", kind: "not-a-digit", strokes: [round(50, 50, 34, 34), round(50, 48, 19, 20, 100, 260), [[39, 38], [39, 43]], [[61, 38], [61, 43]]] },
  { name: "two digits", kind: "not-a-digit", strokes: [[[30, 26], [28, 50], [27, 74]], [[58, 30], [67, 24], [76, 30], [74, 43], [64, 57], [56, 72], [68, 72], [80, 71]]] },
];

const WORDS = { clear: "easy to read", ambiguous: "ambiguous", "not-a-digit": "not a digit" };

/** Each has a `kind` (a key of WORDS), a `label`, and `strokes` from 0 to 1. */
export const EXAMPLES = KNOTS.map(({ name, kind, strokes }) => ({
  kind,
  label: `${name}: ${WORDS[kind]}`,
  strokes: strokes.map((knots) => smooth(knots).map(([x, y]) => [x / 100, y / 100])),
}));

/** A Catmull–Rom spline through all knots; a corner is two knots close together. */
function smooth(knots) {
  const points = [];
  for (let i = 0; i < knots.length - 1; i++) {
    const [a, b, c, d] = [knots[Math.max(0, i - 1)], knots[i], knots[i + 1], knots[Math.min(knots.length - 1, i + 2)]];
    for (let step = 0; step < 6; step++) {
      const t = step / 6;
      points.push([0, 1].map((k) =>
        b[k] + (t / 2) * (c[k] - a[k] + t * (2 * a[k] - 5 * b[k] + 4 * c[k] - d[k] + t * (3 * (b[k] - c[k]) + d[k] - a[k])))));
    }
  }
  points.push(knots.at(-1));
  return points;
}
