/** What the network says as the picture is turned: a curve of its uncertainty over the angle. */

import { askMany, Trouble } from "./client.js";
import { draw, points } from "./plot.js";
import { percent } from "./verdict.js";

const STEP = 15;
const ANGLES = Array.from({ length: 360 / STEP + 1 }, (_, i) => -180 + i * STEP);
const MOST = Math.log(10);
const LEFT = 30;
const RIGHT = 370;
const TOP = 38;
const BOTTOM = 150;

const x = (angle) => LEFT + ((angle + 180) / 360) * (RIGHT - LEFT);
const y = (share) => BOTTOM - share * (BOTTOM - TOP);

export class Curve {
  #plot;
  #running = null;
  #retry = 0;
  #answers = null;
  #angle = 0;

  /** @param {Element} plot */
  constructor(plot) {
    this.#plot = plot;
  }

  /** Ask about a picture at all angles, and draw the curve; a failure is said in its place.
   * @param {import("./pad.js").Pad} pad
   */
  async trace(pad) {
    this.clear();
    const mine = new AbortController();
    this.#running = mine;
    try {
      const pictures = await Promise.all(ANGLES.slice(0, -1).map((angle) => pad.picture(angle)));
      if (mine.signal.aborted) return;
      const answers = await askMany(pictures, mine.signal);
      if (this.#running !== mine) return;
      this.#answers = [...answers, answers[0]]; // 180° is -180°
      this.#paint();
    } catch (error) {
      if (this.#running !== mine) return;
      this.#say("The curve could not be worked out.");
      if (error instanceof Trouble && error.retryAfter)
        this.#retry = setTimeout(() => this.trace(pad), 1000 * error.retryAfter);
    }
  }

  /** Where the picture stands now, in degrees. */
  mark(angle) {
    this.#angle = angle;
    if (this.#answers) this.#paint();
  }

  clear() {
    this.#running?.abort();
    this.#running = null;
    clearTimeout(this.#retry);
    this.#answers = null;
    this.#plot.replaceChildren();
    this.#plot.setAttribute("aria-label", "No curve yet");
  }

  #say(sentence) {
    draw(this.#plot, "text", { x: (LEFT + RIGHT) / 2, y: (TOP + BOTTOM) / 2, class: "tick middle" }, sentence);
    this.#plot.setAttribute("aria-label", sentence);
  }

  #paint() {
    const plot = this.#plot;
    const told = ANGLES.map((angle, i) => ({ angle, answer: this.#answers[i] })).filter((each) => each.answer);
    plot.replaceChildren();
    for (const angle of [-180, -90, 0, 90, 180]) {
      draw(plot, "line", { x1: x(angle), x2: x(angle), y1: TOP, y2: BOTTOM, class: "grid" });
      draw(plot, "text", { x: x(angle), y: BOTTOM + 18, class: "tick middle" }, `${angle}°`);
    }
    draw(plot, "line", { x1: LEFT, x2: RIGHT, y1: BOTTOM, y2: BOTTOM, class: "grid" });
    draw(plot, "text", { x: LEFT - 5, y: BOTTOM + 2, class: "tick end" }, "0");
    draw(plot, "text", { x: LEFT - 5, y: TOP + 8, class: "tick end" }, "2.3");
    draw(plot, "text", { x: RIGHT + 5, y: BOTTOM + 2, class: "tick" }, "0 %");
    draw(plot, "text", { x: RIGHT + 5, y: TOP + 8, class: "tick" }, "100");
    draw(plot, "text", { x: LEFT, y: BOTTOM + 34, class: "tick" }, "nats of uncertainty");
    draw(plot, "text", { x: RIGHT, y: BOTTOM + 34, class: "tick end" }, "no digit, in %");
    const along = (value) => told.map(({ angle, answer }) => [x(angle), y(value(answer))]);
    const total = along((answer) => answer.uncertainty.predictive_entropy / MOST);
    const expected = along((answer) => answer.uncertainty.expected_entropy / MOST);
    const floor = along(() => 0);
    draw(plot, "polygon", { points: points([...expected, ...floor.reverse()]), class: "area expected" });
    draw(plot, "polygon", { points: points([...total, ...expected.reverse()]), class: "area mutual" });
    draw(plot, "polyline", { points: points(total), class: "curve" });
    if (told.every(({ answer }) => answer.not_a_digit))
      for (const kind of ["halo", "curve strange"])
        draw(plot, "polyline", { points: points(along((answer) => answer.not_a_digit.probability)), class: kind });
    for (const { angle, answer } of told) {
      const sure = answer.decision === "accept";
      draw(plot, "text", { x: x(angle), y: TOP - 14, class: `said ${sure ? "sure" : ""}` }, answer.prediction);
    }
    draw(plot, "line", { x1: x(this.#angle), x2: x(this.#angle), y1: TOP - 8, y2: BOTTOM, class: "marker" });
    plot.setAttribute("aria-label", this.#words(told));
  }

  #words(told) {
    const accepted = new Map();
    for (const { angle, answer } of told)
      if (answer.decision === "accept")
        accepted.set(answer.prediction, [...(accepted.get(answer.prediction) ?? []), angle]);
    const parts = [...accepted].map(([label, angles]) => `${label} at ${angles.map((a) => `${a}°`).join(", ")}`);
    const most = told.reduce((a, b) =>
      b.answer.uncertainty.predictive_entropy > a.answer.uncertainty.predictive_entropy ? b : a);
    const doubt = percent(most.answer.uncertainty.predictive_entropy / MOST);
    return `Accepted as ${parts.join("; as ") || "nothing"}. Least certain at ${most.angle}°, ${doubt} of a blind guess.`;
  }
}
