/** The examples as a row of small pictures to click. */

import { EXAMPLES } from "./examples.js";
import { paintStrokes } from "./pad.js";

const SIDE = 96;

/**
 * @param {Element} list
 * @param {(strokes: [number, number][][]) => void} onSelect
 */
export function addExamples(list, onSelect) {
  for (const { label, kind, strokes } of EXAMPLES) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `example ${kind}`;
    button.title = label;
    button.setAttribute("aria-label", label);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d");
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, SIDE, SIDE);
    paintStrokes(context, strokes, SIDE);
    button.append(canvas);
    button.addEventListener("click", () => onSelect(strokes));
    const item = document.createElement("li");
    item.append(button);
    list.append(item);
  }
}
