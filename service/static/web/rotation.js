/** Uncertainty and prediction as functions of the picture's rotation. */

import { predictBatch, ServiceError } from "./client.js";
import { percent } from "./decision.js";
import { draw, points } from "./plot.js";

const STEP = 15;
const ANGLES = Array.from({ length: 360 / STEP + 1 }, (_, i) => -180 + i * STEP);
const MAX_NATS = Math.log(10);
const LEFT = 30;
const RIGHT = 370;
const TOP = 38;
const BOTTOM = 150;

const x = (angle) => LEFT + ((angle + 180) / 360) * (RIGHT - LEFT);
const y = (share) => BOTTOM - share * (BOTTOM - TOP);

export class RotationCurve {
  #plot;
  #current = null;
  #retry = 0;
  #answers = null;
  #angle = 0;

  /** @param {Element} plot */
  constructor(plot) {
    this.#plot = plot;
  }

  /** Predict a picture at all angles and draw the curve, or a message if that fails.
   * @param {import("./pad.js").Pad} pad
   */
  async trace(pad) {
    this.clear();
    const controller = new AbortController();
    this.#current = controller;
    try {
      const pictures = await Promise.all(ANGLES.slice(0, -1).map((angle) => pad.picture(angle)));
      if (controller.signal.aborted) return;
      const answers = await predictBatch(pictures, controller.signal);
      if (this.#current !== controller) return;
      this.#answers = [...answers, answers[0]]; // 180° is -180°
      this.#paint();
    } catch (error) {
      if (this.#current !== controller) return;
      this.#showMessage("The curve could not be computed.");
      if (error instanceof ServiceError && error.retryAfter)
        this.#retry = setTimeout(() => this.trace(pad), 1000 * error.retryAfter);
    }
  }

  /** Mark the current angle, in degrees. */
  mark(angle) {
    this.#angle = angle;
    if (this.#answers) this.#paint();
  }

  clear() {
    this.#current?.abort();
    this.#current = null;
    clearTimeout(this.#retry);
    this.#answers = null;
    this.#plot.replaceChildren();
    this.#plot.setAttribute("aria-label", "No curve yet");
  }

  #showMessage(text) {
    draw(this.#plot, "text", { x: (LEFT + RIGHT) / 2, y: (TOP + BOTTOM) / 2, class: "tick middle" }, text);
    this.#plot.setAttribute("aria-label", text);
  }

  #paint() {
    const plot = this.#plot;
    const answered = ANGLES.map((angle, i) => ({ angle, answer: this.#answers[i] })).filter((each) => each.answer);
    plot.replaceChildren();
    for (const angle of [-180, -90, 0, 90, 180]) {
      draw(plot, "line", { x1: x(angle), x2: x(angle), y1: TOP, y2: BOTTOM, class: "grid-line" });
      draw(plot, "text", { x: x(angle), y: BOTTOM + 18, class: "tick middle" }, `${angle}°`);
    }
    draw(plot, "line", { x1: LEFT, x2: RIGHT, y1: BOTTOM, y2: BOTTOM, class: "grid-line" });
    draw(plot, "text", { x: LEFT - 5, y: BOTTOM + 2, class: "tick end" }, "0");
    draw(plot, "text", { x: LEFT - 5, y: TOP + 8, class: "tick end" }, "2.3");
    draw(plot, "text", { x: RIGHT + 5, y: BOTTOM + 2, class: "tick" }, "0 %");
    draw(plot, "text", { x: RIGHT + 5, y: TOP + 8, class: "tick" }, "100");
    draw(plot, "text", { x: LEFT, y: BOTTOM + 34, class: "tick" }, "uncertainty, nats");
    draw(plot, "text", { x: RIGHT, y: BOTTOM + 34, class: "tick end" }, "not a digit, %");
    const line = (value) => answered.map(({ angle, answer }) => [x(angle), y(value(answer))]);
    const total = line((answer) => answer.uncertainty.predictive_entropy / MAX_NATS);
    const expected = line((answer) => answer.uncertainty.expected_entropy / MAX_NATS);
    const zero = line(() => 0);
    draw(plot, "polygon", { points: points([...expected, ...zero.reverse()]), class: "area expected" });
    draw(plot, "polygon", { points: points([...total, ...expected.reverse()]), class: "area mutual" });
    draw(plot, "polyline", { points: points(total), class: "curve" });
    if (answered.every(({ answer }) => answer.not_a_digit))
      for (const name of ["halo", "curve not-a-digit"])
        draw(plot, "polyline", { points: points(line((answer) => answer.not_a_digit.probability)), class: name });
    for (const { angle, answer } of answered) {
      const accepted = answer.decision === "accept";
      draw(plot, "text", { x: x(angle), y: TOP - 14, class: `prediction ${accepted ? "accepted" : ""}` }, answer.prediction);
    }
    draw(plot, "line", { x1: x(this.#angle), x2: x(this.#angle), y1: TOP - 8, y2: BOTTOM, class: "marker" });
    plot.setAttribute("aria-label", this.#describe(answered));
  }

  #describe(answered) {
    const accepted = new Map();
    for (const { angle, answer } of answered)
      if (answer.decision === "accept")
        accepted.set(answer.prediction, [...(accepted.get(answer.prediction) ?? []), angle]);
    const parts = [...accepted].map(([label, angles]) => `${label} at ${angles.map((a) => `${a}°`).join(", ")}`);
    const entropy = ({ answer }) => answer.uncertainty.predictive_entropy;
    const most = answered.reduce((a, b) => (entropy(b) > entropy(a) ? b : a));
    return `Accepted as ${parts.join("; as ") || "nothing"}. Least certain at ${most.angle}°, with ${percent(entropy(most) / MAX_NATS)} of the uncertainty of a random guess.`;
  }
}
