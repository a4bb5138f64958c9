/** The table of class probabilities: bars with credible intervals, and a row for "not a digit". */

import { percent } from "./decision.js";

/** Creates its rows once and then updates them. */
export class Probabilities {
  #body;
  #rows = new Map();

  /** @param {HTMLTableElement} table */
  constructor(table) {
    this.#body = table.tBodies[0];
    for (let digit = 0; digit < 10; digit++) this.#row(String(digit));
    this.clear();
  }

  /**
   * @param {{label: string, probability: number, lower: number, upper: number}[]} classes
   * @param {object|null} notADigit the same for "not a digit", from all networks
   * @param {boolean} all whether the classes are from all networks, too
   */
  show(classes, notADigit, all) {
    const best = classes.reduce((a, b) => (b.probability > a.probability ? b : a));
    for (const entry of classes) this.#fill(this.#row(entry.label), entry, entry === best);
    if (!notADigit) return;
    const row = this.#row("not a digit");
    row.element.classList.add("not-a-digit");
    this.#fill(row, notADigit, notADigit.probability > 0.5);
    if (!all) row.interval.textContent = "from all networks";
  }

  clear() {
    for (const row of this.#rows.values())
      this.#fill(row, { probability: 0, lower: 0, upper: 0 }, false, true);
  }

  #row(label) {
    if (this.#rows.has(label)) return this.#rows.get(label);
    const element = this.#body.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = label;
    element.append(head);
    const track = document.createElement("div");
    track.className = "track";
    track.setAttribute("aria-hidden", "true");
    const [bar, whisker] = ["bar", "whisker"].map((name) => {
      const part = document.createElement("span");
      part.className = name;
      track.append(part);
      return part;
    });
    element.insertCell().append(track);
    const [mean, interval] = [element.insertCell(), element.insertCell()];
    mean.className = "mean";
    interval.className = "interval";
    const row = { element, bar, whisker, mean, interval };
    this.#rows.set(label, row);
    return row;
  }

  #fill(row, { probability, lower, upper }, best, empty = false) {
    row.element.classList.toggle("best", best);
    row.bar.style.width = `${100 * probability}%`;
    row.whisker.style.left = `${100 * lower}%`;
    row.whisker.style.width = `${100 * (upper - lower)}%`;
    row.whisker.hidden = empty;
    row.mean.textContent = empty ? "–" : percent(probability);
    row.interval.textContent = empty ? "" : formatInterval(lower, upper);
  }
}

/** An interval in percent. */
export function formatInterval(lower, upper) {
  const digits = upper < 0.0995 || lower > 0.9005 ? 1 : 0;
  const format = (p) => {
    const short = percent(p).match(/^[<>]/) ? percent(p) : `${(100 * p).toFixed(digits)} %`;
    return short.replace(/ %$/, "");
  };
  const [from, to] = [format(lower), format(upper)];
  return from === to ? `${from} %` : `${from} to ${to} %`;
}
