/** The examples as a row of small pictures to click. */

import { EXAMPLES } from "./examples.js";
import { paintStrokes } from "./pad.js";

const SIDE = 96;

/**
 * @param {Element} list
 * @param {(strokes: [number, number][][]) => void} onChoice
 */
export function addExamples(list, onChoice) {
  for (const { label, sort, strokes } of EXAMPLES) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `example ${sort}`;
    button.title = label;
    button.setAttribute("aria-label", label);
    const sheet = document.createElement("canvas");
    sheet.width = sheet.height = SIDE;
    const context = sheet.getContext("2d");
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, SIDE, SIDE);
    paintStrokes(context, strokes, SIDE);
    button.append(sheet);
    button.addEventListener("click", () => onChoice(strokes));
    const item = document.createElement("li");
    item.append(button);
    list.append(item);
  }
}
