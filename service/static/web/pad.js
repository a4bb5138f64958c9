/** The drawing pad: strokes by mouse, pen, finger or keys, or a picture; rotated by any angle. */

const INK = "#16181d";
const PAPER = "#ffffff";
const PEN = 0.085; // stroke width relative to the pad
const KEY_STEP = 0.025;
const SENT_SIDE = 280; // of the picture that is sent
const MAX_SIDE = 1120; // of a picture that is kept to be shown and rotated
const MAX_UNDO = 30; // replaced pictures that undo can restore

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * Raises `change` when the picture changes (`detail.settled` once the pen is up), and `pen` when the
 * keyboard sets the pen down or lifts it.
 */
export class Pad extends EventTarget {
  #canvas;
  #strokes = [];
  #image = null; // an uploaded picture from `readImage`
  #past = []; // replaced pictures with their angles
  #drawing = null;
  #angle = 0;
  #pen = { x: 0.5, y: 0.5, down: false, shown: false };

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    super();
    this.#canvas = canvas;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "lostpointercapture"])
      canvas.addEventListener(end, (event) => this.#end(event));
    canvas.addEventListener("pointercancel", (event) => this.#cancel(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#showPen(false));
    this.#paint();
  }

  /** Whether the pad is empty. */
  get empty() {
    return !this.#image && this.#strokes.length === 0;
  }

  /** Rotation in degrees, clockwise. */
  get angle() {
    return this.#angle;
  }

  set angle(degrees) {
    this.#angle = degrees;
    this.#paint();
  }

  /** Replace the picture by strokes: lists of [x, y] from 0 to 1. */
  show(strokes) {
    this.#replace({ strokes: strokes.map((stroke) => [...stroke]), image: null });
  }

  /** Replace the picture by one from `readImage`. */
  showImage(image) {
    this.#replace({ strokes: [], image });
  }

  /** Remove the last stroke, or restore the replaced picture. */
  undo() {
    this.#drawing = null;
    this.#lift();
    if (this.#strokes.length) {
      this.#strokes.pop();
      if (this.empty) this.#angle = 0;
    } else if (this.#past.length) {
      const before = this.#past.pop();
      this.#strokes = before.strokes;
      this.#image = before.image;
      this.#angle = before.angle;
    } else return;
    this.#changed(true);
  }

  clear() {
    if (!this.empty) this.#replace({ strokes: [], image: null });
  }

  /** From now on, send the picture as shown instead of its file.
   * @returns {boolean} whether there was a file
   */
  forgetFile() {
    if (!this.#image?.file) return false;
    this.#image = { ...this.#image, file: null };
    return true;
  }

  /** The picture to send: the uploaded file itself, unless it is rotated.
   * @param {number} angle in degrees; default: as shown
   * @returns {Promise<Blob>}
   */
  async picture(angle = this.#angle) {
    if (this.#image?.file && angle % 360 === 0) return this.#image.file;
    const canvas = document.createElement("canvas");
    // A rotated picture needs room for its corners.
    canvas.width = canvas.height = angle % 90 === 0 ? SENT_SIDE : Math.ceil(SENT_SIDE * Math.SQRT2);
    this.#paintOn(canvas, angle, SENT_SIDE);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }

  #replace(next) {
    this.#lift();
    this.#put(next);
    this.#changed(true);
  }

  #put({ strokes, image }) {
    if (!this.empty) {
      this.#past.push({ strokes: this.#strokes, image: this.#image, angle: this.#angle });
      if (this.#past.length > MAX_UNDO) this.#past.shift();
    }
    this.#strokes = strokes;
    this.#image = image;
    this.#drawing = null;
    this.#angle = 0;
  }

  #changed(settled) {
    this.#paint();
    this.dispatchEvent(new CustomEvent("change", { detail: { settled } }));
  }

  #at(event) {
    const box = this.#canvas.getBoundingClientRect();
    return this.#unrotated(
      (event.clientX - box.left) / box.width,
      (event.clientY - box.top) / box.height,
    );
  }

  /** Undo the rotation of a point. */
  #unrotated(x, y) {
    const radians = (-this.#angle * Math.PI) / 180;
    const [dx, dy] = [x - 0.5, y - 0.5];
    return [
      0.5 + dx * Math.cos(radians) - dy * Math.sin(radians),
      0.5 + dx * Math.sin(radians) + dy * Math.cos(radians),
    ];
  }

  #begin(event) {
    // Only the first finger, the left button or the tip of a pen draws.
    if (this.#drawing || event.button !== 0 || event.ctrlKey) return;
    event.preventDefault();
    this.#canvas.focus({ preventScroll: true });
    this.#canvas.setPointerCapture(event.pointerId);
    this.#showPen(false);
    if (this.#image) this.#put({ strokes: [], image: null });
    this.#drawing = { id: event.pointerId, stroke: [this.#at(event)] };
    this.#strokes.push(this.#drawing.stroke);
    this.#changed(false);
  }

  #move(event) {
    if (this.#drawing?.id !== event.pointerId) return;
    if (event.buttons === 0) {
      this.#end(event); // the pen was lifted outside the window
      return;
    }
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.#drawing.stroke.push(this.#at(each));
    this.#changed(false);
  }

  #end(event) {
    if (this.#drawing?.id !== event.pointerId) return;
    this.#drawing = null;
    this.#changed(true);
  }

  /** The system took the pointer for a palm or a gesture, so it was not a stroke. */
  #cancel(event) {
    if (this.#drawing?.id === event.pointerId) this.undo();
  }

  #key(event) {
    const undo = event.key.toLowerCase() === "z" && !event.shiftKey;
    if (event.altKey || ((event.ctrlKey || event.metaKey) && !undo)) return;
    const pen = this.#pen;
    if (event.key in ARROWS) {
      const step = event.shiftKey ? KEY_STEP / 2.5 : KEY_STEP;
      const [dx, dy] = ARROWS[event.key];
      pen.x = Math.min(0.97, Math.max(0.03, pen.x + dx * step));
      pen.y = Math.min(0.97, Math.max(0.03, pen.y + dy * step));
      pen.shown = true;
      if (pen.down) {
        this.#strokes.at(-1).push(this.#unrotated(pen.x, pen.y));
        this.#changed(false);
      } else this.#paint();
    } else if (event.key === " " || event.key === "Enter") {
      if (event.repeat) return;
      this.#setPen(!pen.down);
    } else if (undo) this.undo();
    else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else return;
    event.preventDefault();
  }

  #setPen(down) {
    const pen = this.#pen;
    if (down && this.#image) this.#put({ strokes: [], image: null });
    pen.down = down;
    pen.shown = true;
    if (down) this.#strokes.push([this.#unrotated(pen.x, pen.y)]);
    this.dispatchEvent(new CustomEvent("pen", { detail: { down } }));
    this.#changed(!down);
  }

  /** Lift the keyboard's pen before another change of the picture. */
  #lift() {
    if (!this.#pen.down) return;
    this.#pen.down = false;
    this.dispatchEvent(new CustomEvent("pen", { detail: { down: false } }));
  }

  #showPen(shown) {
    if (!shown && this.#pen.down) this.#setPen(false);
    this.#pen.shown = shown;
    this.#paint();
  }

  #paint() {
    this.#paintOn(this.#canvas, this.#angle, this.#canvas.width);
    if (this.#pen.shown) this.#paintPen();
  }

  /** Paint a square of the given side in the middle of a canvas. */
  #paintOn(canvas, angle, side) {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = this.#image?.edge ?? PAPER;
    context.fillRect(0, 0, canvas.width, canvas.width);
    context.translate(canvas.width / 2, canvas.width / 2);
    context.rotate((angle * Math.PI) / 180);
    context.translate(-side / 2, -side / 2);
    if (this.#image) paintImage(context, this.#image.pixels, side);
    paintStrokes(context, this.#strokes, side);
    context.setTransform(1, 0, 0, 1, 0, 0);
  }

  #paintPen() {
    const side = this.#canvas.width;
    const context = this.#canvas.getContext("2d");
    context.beginPath();
    context.arc(this.#pen.x * side, this.#pen.y * side, (PEN * side) / 2, 0, 2 * Math.PI);
    context.lineWidth = 5;
    context.strokeStyle = "#c2410c";
    context.stroke();
    if (this.#pen.down) {
      context.fillStyle = "#c2410c";
      context.fill();
    }
  }
}

/**
 * Paint strokes as smooth lines through the midpoints of their points.
 * @param {CanvasRenderingContext2D} context
 * @param {[number, number][][]} strokes from 0 to 1
 * @param {number} side of the canvas
 */
export function paintStrokes(context, strokes, side) {
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = PEN * side;
  context.strokeStyle = INK;
  for (const stroke of strokes) {
    const points = stroke.map(([x, y]) => [x * side, y * side]);
    context.beginPath();
    context.moveTo(...points[0]);
    for (let i = 1; i < points.length - 1; i++) {
      const [x, y] = points[i];
      const [nextX, nextY] = points[i + 1];
      context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
    }
    context.lineTo(...points.at(-1));
    context.stroke();
  }
}

/**
 * Decode a picture for the pad, reduced to the size needed.
 * @param {Blob} file the file to send
 * @param {Blob} shown the picture to show, which the browser can decode
 * @returns {Promise<{file: Blob, pixels: HTMLCanvasElement, edge: string}>}
 * @throws if the browser cannot decode it
 */
export async function readImage(file, shown) {
  const bitmap = await createImageBitmap(shown);
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const pixels = document.createElement("canvas");
  pixels.width = Math.max(1, Math.round(bitmap.width * scale));
  pixels.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = pixels.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, pixels.width, pixels.height);
  bitmap.close();
  return { file, pixels, edge: edgeColour(pixels) };
}

function paintImage(context, pixels, side) {
  const scale = Math.min(side / pixels.width, side / pixels.height);
  const [width, height] = [pixels.width * scale, pixels.height * scale];
  context.imageSmoothingEnabled = scale < 4; // a 28 × 28 picture shows its pixels
  context.imageSmoothingQuality = "high";
  context.drawImage(pixels, (side - width) / 2, (side - height) / 2, width, height);
}

/** The mean colour of a picture's edge, to fill the corners when it is rotated. */
function edgeColour(pixels) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 16;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = PAPER;
  context.fillRect(0, 0, 16, 16);
  context.drawImage(pixels, 0, 0, 16, 16);
  const { data } = context.getImageData(0, 0, 16, 16);
  const sums = [0, 0, 0];
  let n = 0;
  for (let i = 0; i < 256; i++) {
    const [x, y] = [i % 16, i >> 4];
    if (x > 0 && x < 15 && y > 0 && y < 15) continue;
    for (let c = 0; c < 3; c++) sums[c] += data[4 * i + c];
    n += 1;
  }
  return `rgb(${sums.map((sum) => Math.round(sum / n)).join(" ")})`;
}
