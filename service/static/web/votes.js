/** Each network's vote, and how mean and interval converge as more networks are used. */

import { percent } from "./decision.js";
import { draw, points } from "./plot.js";
import { formatInterval } from "./probabilities.js";
import { largest, summarise } from "./statistics.js";

const LEFT = 40;
const RIGHT = 392;
const TOP = 10;
const BOTTOM = 122;

/** Raises `change` when the user selects another number of networks, `n`. */
export class Votes extends EventTarget {
  #grid;
  #slider;
  #text;
  #note;
  #plot;
  #answer = null;
  #convergence = []; // of the predicted class, from 2 networks on

  /** @param {{grid: Element, slider: HTMLInputElement, text: Element, note: Element, plot: Element}} elements */
  constructor({ grid, slider, text, note, plot }) {
    super();
    [this.#grid, this.#slider, this.#text, this.#note, this.#plot] = [grid, slider, text, note, plot];
    slider.addEventListener("input", () => {
      this.#paint();
      this.dispatchEvent(new Event("change"));
    });
  }

  /** The number of networks in use. */
  get n() {
    return Number(this.#slider.value);
  }

  /** Whether all networks are in use, so that the service's own numbers apply. */
  get all() {
    return this.n === this.#answer?.draws.length;
  }

  /** Show an answer that has its draws. */
  show(answer) {
    const { draws } = answer;
    const all = !this.#answer || this.all;
    this.#answer = answer;
    this.#slider.max = draws.length;
    if (all) this.#slider.value = draws.length;
    this.#slider.disabled = false;
    const best = answer.classes.findIndex((entry) => entry.label === answer.prediction);
    const single = draws.map((probabilities) => [probabilities[best]]);
    this.#convergence = draws.slice(1).map((_, i) => summarise(single, i + 2, answer.level).classes[0]);
    this.#fillGrid();
    this.#paint();
  }

  clear() {
    this.#answer = null;
    this.#slider.disabled = true;
    this.#grid.replaceChildren();
    this.#grid.setAttribute("aria-label", "No votes yet");
    this.#plot.replaceChildren();
    this.#plot.setAttribute("aria-label", "No answer yet");
    this.#text.textContent = "–";
    this.#note.textContent = "Move the slider to see the answer of fewer networks.";
  }

  #fillGrid() {
    const { draws, classes, prediction } = this.#answer;
    while (this.#grid.children.length > draws.length) this.#grid.lastChild.remove();
    while (this.#grid.children.length < draws.length)
      this.#grid.append(document.createElement("span"));
    draws.forEach((probabilities, i) => {
      const vote = largest(probabilities);
      const cell = this.#grid.children[i];
      const { label } = classes[vote];
      cell.textContent = label;
      cell.dataset.certainty = String(Math.min(4, Math.floor(probabilities[vote] * 5)));
      cell.classList.toggle("other", label !== prediction);
    });
  }

  #paint() {
    if (!this.#answer) return;
    const { n } = this;
    const { draws, classes, level } = this.#answer;
    [...this.#grid.children].forEach((cell, i) => cell.classList.toggle("unused", i >= n));
    const counts = new Map();
    for (const probabilities of draws.slice(0, n)) {
      const { label } = classes[largest(probabilities)];
      counts.set(label, (counts.get(label) ?? 0) + 1);
    }
    const tally = [...counts].sort((a, b) => b[1] - a[1]).map(([label, count]) => `${count} predict ${label}`);
    this.#grid.setAttribute("aria-label", `Of ${n} networks, ${tally.join(", ")}`);
    this.#text.textContent = n;
    this.#slider.setAttribute("aria-valuetext", `${n} networks`);
    const few = n * (1 - level) < 2 ? " Too few networks for reliable interval bounds." : "";
    this.#note.textContent = `${tally.join(", ")}.${few}`;
    this.#paintConvergence(n);
  }

  #paintConvergence(n) {
    const plot = this.#plot;
    const { prediction } = this.#answer;
    const x = (used) => LEFT + ((used - 2) / Math.max(1, this.#convergence.length - 1)) * (RIGHT - LEFT);
    const y = (p) => BOTTOM - p * (BOTTOM - TOP);
    plot.replaceChildren();
    for (const p of [0, 0.5, 1]) {
      draw(plot, "line", { x1: LEFT, x2: RIGHT, y1: y(p), y2: y(p), class: "grid-line" });
      draw(plot, "text", { x: LEFT - 6, y: y(p) + 4, class: "tick end" }, `${100 * p} %`);
    }
    const line = (key) => this.#convergence.map((entry, i) => [x(i + 2), y(entry[key])]);
    draw(plot, "polygon", { points: points([...line("upper"), ...line("lower").reverse()]), class: "band" });
    draw(plot, "polyline", { points: points(line("probability")), class: "curve" });
    draw(plot, "line", { x1: x(n), x2: x(n), y1: TOP, y2: BOTTOM, class: "marker" });
    const current = this.#convergence[n - 2];
    draw(plot, "circle", { cx: x(n), cy: y(current.probability), r: 4, class: "dot" });
    draw(plot, "text", { x: LEFT, y: BOTTOM + 18, class: "tick" }, "2");
    draw(plot, "text", { x: RIGHT, y: BOTTOM + 18, class: "tick end" }, String(this.#convergence.length + 1));
    draw(plot, "text", { x: (LEFT + RIGHT) / 2, y: BOTTOM + 18, class: "tick middle" },
      `probability of ${prediction}, by number of networks`);
    plot.setAttribute("aria-label",
      `With ${n} networks, the probability of ${prediction} is ${percent(current.probability)}, interval ${formatInterval(current.lower, current.upper)}`);
  }
}
