/** The draws themselves: each network's vote, and how mean and interval settle as more are used. */

import { draw, points } from "./plot.js";
import { largest, summarise } from "./statistics.js";
import { between } from "./bars.js";
import { percent } from "./verdict.js";

const LEFT = 40;
const RIGHT = 392;
const TOP = 10;
const BOTTOM = 122;

/** Raises `use` when another number of networks is asked for; `n` says how many. */
export class Votes extends EventTarget {
  #jury;
  #slider;
  #text;
  #note;
  #plot;
  #answer = null;
  #course = [];

  /** @param {{jury: Element, slider: HTMLInputElement, text: Element, note: Element, plot: Element}} parts */
  constructor({ jury, slider, text, note, plot }) {
    super();
    [this.#jury, this.#slider, this.#text, this.#note, this.#plot] = [jury, slider, text, note, plot];
    slider.addEventListener("input", () => {
      this.#paint();
      this.dispatchEvent(new Event("use"));
    });
  }

  /** How many networks are in use. */
  get n() {
    return Number(this.#slider.value);
  }

  /** Whether all are in use, so that the service's own figures hold. */
  get all() {
    return this.n === this.#answer?.draws.length;
  }

  /** Show an answer that came with its draws. */
  show(answer) {
    const { draws } = answer;
    const all = !this.#answer || this.all;
    this.#answer = answer;
    this.#slider.max = draws.length;
    if (all) this.#slider.value = draws.length;
    this.#slider.disabled = false;
    const best = answer.classes.findIndex((entry) => entry.label === answer.prediction);
    const alone = draws.map((probabilities) => [probabilities[best]]);
    this.#course = draws.slice(1).map((_, i) => summarise(alone, i + 2, answer.level).classes[0]);
    this.#fillJury();
    this.#paint();
  }

  clear() {
    this.#answer = null;
    this.#slider.disabled = true;
    this.#jury.replaceChildren();
    this.#jury.setAttribute("aria-label", "No votes yet");
    this.#plot.replaceChildren();
    this.#plot.setAttribute("aria-label", "No answer yet");
    this.#text.textContent = "–";
    this.#note.textContent = "Move it, and watch the bars settle.";
  }

  #fillJury() {
    const { draws, classes } = this.#answer;
    while (this.#jury.children.length > draws.length) this.#jury.lastChild.remove();
    while (this.#jury.children.length < draws.length)
      this.#jury.append(document.createElement("span"));
    const winner = this.#answer.prediction;
    draws.forEach((probabilities, i) => {
      const vote = largest(probabilities);
      const cell = this.#jury.children[i];
      const { label } = classes[vote];
      cell.textContent = label;
      cell.dataset.sure = String(Math.min(4, Math.floor(probabilities[vote] * 5)));
      cell.classList.toggle("other", label !== winner);
    });
  }

  #paint() {
    if (!this.#answer) return;
    const { n } = this;
    const { draws, classes, level } = this.#answer;
    [...this.#jury.children].forEach((cell, i) => cell.classList.toggle("unused", i >= n));
    const counts = new Map();
    for (const probabilities of draws.slice(0, n)) {
      const { label } = classes[largest(probabilities)];
      counts.set(label, (counts.get(label) ?? 0) + 1);
    }
    const tally = [...counts].sort((a, b) => b[1] - a[1]).map(([label, count]) => `${count} say ${label}`);
    this.#jury.setAttribute("aria-label", `Of ${n} networks, ${tally.join(", ")}`);
    this.#text.textContent = n;
    this.#slider.setAttribute("aria-valuetext", `${n} networks`);
    const few = n * (1 - level) < 2 ? " So few say little about the ends of the interval." : "";
    this.#note.textContent = `${tally.join(", ")}.${few}`;
    this.#paintCourse(n);
  }

  #paintCourse(n) {
    const plot = this.#plot;
    const { prediction } = this.#answer;
    const x = (used) => LEFT + ((used - 2) / Math.max(1, this.#course.length - 1)) * (RIGHT - LEFT);
    const y = (p) => BOTTOM - p * (BOTTOM - TOP);
    plot.replaceChildren();
    for (const p of [0, 0.5, 1]) {
      draw(plot, "line", { x1: LEFT, x2: RIGHT, y1: y(p), y2: y(p), class: "grid" });
      draw(plot, "text", { x: LEFT - 6, y: y(p) + 4, class: "tick end" }, `${100 * p} %`);
    }
    const at = (key) => this.#course.map((entry, i) => [x(i + 2), y(entry[key])]);
    draw(plot, "polygon", { points: points([...at("upper"), ...at("lower").reverse()]), class: "band" });
    draw(plot, "polyline", { points: points(at("probability")), class: "curve" });
    draw(plot, "line", { x1: x(n), x2: x(n), y1: TOP, y2: BOTTOM, class: "marker" });
    const now = this.#course[n - 2];
    draw(plot, "circle", { cx: x(n), cy: y(now.probability), r: 4, class: "dot" });
    draw(plot, "text", { x: LEFT, y: BOTTOM + 18, class: "tick" }, "2");
    draw(plot, "text", { x: RIGHT, y: BOTTOM + 18, class: "tick end" }, String(this.#course.length + 1));
    draw(plot, "text", { x: (LEFT + RIGHT) / 2, y: BOTTOM + 18, class: "tick middle" },
      `networks used, for “it is a ${prediction}”`);
    plot.setAttribute("aria-label",
      `With ${n} networks, a ${prediction} is ${percent(now.probability)} probable, interval ${between(now.lower, now.upper)}`);
  }
}
