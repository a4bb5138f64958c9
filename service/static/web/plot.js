/** Helpers to build SVG. */

const NAMESPACE = "http://www.w3.org/2000/svg";

/** Add an element to a parent.
 * @param {Element} parent
 * @param {string} name
 * @param {object} attributes
 * @param {string} [text]
 */
export function draw(parent, name, attributes, text) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

/** Coordinate pairs as the value of a `points` attribute. */
export function points(pairs) {
  return pairs.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
}
