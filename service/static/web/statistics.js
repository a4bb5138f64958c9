/** The service's statistics of its draws, for fewer of them. Entropies are in nats. */

/** The quantile `q` of numbers, linearly interpolated (NumPy's default). */
export function quantile(numbers, q) {
  const sorted = Float64Array.from(numbers).sort();
  const at = q * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}

/** Entropy of a distribution, in nats. */
export function entropy(probabilities) {
  return -probabilities.reduce((sum, p) => sum + (p > 0 ? p * Math.log(p) : 0), 0);
}

/** Index of the largest number. */
export function largest(numbers) {
  return numbers.reduce((best, value, i) => (value > numbers[best] ? i : best), 0);
}

/**
 * Summarise the first `n` draws.
 * @param {number[][]} draws S lists of C probabilities
 * @param {number} n number of draws to use
 * @param {number} level mass of the intervals
 */
export function summarise(draws, n, level) {
  const used = draws.slice(0, n);
  const classes = used[0].map((_, c) => {
    const values = used.map((draw) => draw[c]);
    const probability = values.reduce((a, b) => a + b, 0) / n;
    return {
      probability,
      lower: quantile(values, (1 - level) / 2),
      upper: quantile(values, (1 + level) / 2),
    };
  });
  const predictive = entropy(classes.map((entry) => entry.probability));
  const expected = used.reduce((sum, draw) => sum + entropy(draw), 0) / n;
  return { classes, predictive, expected, mutual: Math.max(0, predictive - expected) };
}
