/** The drawing pad: strokes by mouse, pen, finger or keys; or a picture; turned by any angle. */

const INK = "#16181d";
const PAPER = "#ffffff";
const PEN = 0.085; // width of a stroke as a share of the pad's side
const KEY_STEP = 0.025;
const SENT = 280; // side of the picture that is sent

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * Raises `change` when the picture is another (`detail.settled` once the pen is up), `pen` when the
 * keyboard's pen is set down or lifted.
 */
export class Pad extends EventTarget {
  #canvas;
  #strokes = [];
  #image = null; // a picture that was brought in: {bitmap, file}
  #past = []; // what stood there before it was replaced
  #drawing = null;
  #angle = 0;
  #pen = { x: 0.5, y: 0.5, down: false, shown: false };

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    super();
    this.#canvas = canvas;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"])
      canvas.addEventListener(end, (event) => this.#end(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#showPen(false));
    this.#paint();
  }

  /** Whether there is nothing to read. */
  get empty() {
    return !this.#image && this.#strokes.length === 0;
  }

  /** Degrees, clockwise. */
  get angle() {
    return this.#angle;
  }

  set angle(degrees) {
    this.#angle = degrees;
    this.#paint();
  }

  /** Replace what is there by strokes: lists of [x, y] from 0 to 1. */
  show(strokes) {
    this.#replace({ strokes: strokes.map((stroke) => [...stroke]), image: null });
  }

  /** Replace what is there by a picture.
   * @param {Blob} file what is sent
   * @param {Blob} shown what is shown of it
   * @throws if the browser cannot read that; nothing changes then
   */
  async showFile(file, shown) {
    const bitmap = await createImageBitmap(shown);
    this.#replace({ strokes: [], image: { bitmap, file } });
  }

  /** Take back the last stroke, or what replaced the picture before. */
  undo() {
    if (this.#strokes.length) this.#strokes.pop();
    else if (this.#past.length) {
      const before = this.#past.pop();
      this.#strokes = before.strokes;
      this.#image = before.image;
    } else return;
    this.#changed(true);
  }

  clear() {
    if (!this.empty) this.#replace({ strokes: [], image: null });
  }

  /** The picture that is sent: a file as it came, unless it is turned.
   * @param {number} angle in degrees; as shown if left out
   * @returns {Promise<Blob>}
   */
  async picture(angle = this.#angle) {
    if (this.#image && angle % 360 === 0) return this.#image.file;
    const sheet = document.createElement("canvas");
    sheet.width = sheet.height = SENT;
    this.#paintOn(sheet, angle);
    return new Promise((done) => sheet.toBlob(done, "image/png"));
  }

  #replace(next) {
    if (!this.empty) this.#past.push({ strokes: this.#strokes, image: this.#image });
    this.#strokes = next.strokes;
    this.#image = next.image;
    this.#drawing = null;
    this.#pen.down = false;
    this.#angle = 0;
    this.#changed(true);
  }

  #changed(settled) {
    this.#paint();
    this.dispatchEvent(new CustomEvent("change", { detail: { settled } }));
  }

  #at(event) {
    const box = this.#canvas.getBoundingClientRect();
    return this.#unturned(
      (event.clientX - box.left) / box.width,
      (event.clientY - box.top) / box.height,
    );
  }

  /** Where a point of the turned sheet lies on the sheet. */
  #unturned(x, y) {
    const turn = (-this.#angle * Math.PI) / 180;
    const [dx, dy] = [x - 0.5, y - 0.5];
    return [
      0.5 + dx * Math.cos(turn) - dy * Math.sin(turn),
      0.5 + dx * Math.sin(turn) + dy * Math.cos(turn),
    ];
  }

  #begin(event) {
    if (this.#drawing || (event.pointerType === "mouse" && event.button !== 0)) return;
    event.preventDefault();
    this.#canvas.focus({ preventScroll: true });
    this.#canvas.setPointerCapture(event.pointerId);
    this.#showPen(false);
    if (this.#image) this.#replace({ strokes: [], image: null });
    this.#drawing = { id: event.pointerId, stroke: [this.#at(event)] };
    this.#strokes.push(this.#drawing.stroke);
    this.#changed(false);
  }

  #move(event) {
    if (this.#drawing?.id !== event.pointerId) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.#drawing.stroke.push(this.#at(each));
    this.#changed(false);
  }

  #end(event) {
    if (this.#drawing?.id !== event.pointerId) return;
    this.#drawing = null;
    this.#changed(true);
  }

  #key(event) {
    const undo = event.key.toLowerCase() === "z";
    if (event.altKey || ((event.ctrlKey || event.metaKey) && !undo)) return;
    const pen = this.#pen;
    if (event.key in ARROWS) {
      const step = event.shiftKey ? KEY_STEP / 2.5 : KEY_STEP;
      const [dx, dy] = ARROWS[event.key];
      pen.x = Math.min(0.97, Math.max(0.03, pen.x + dx * step));
      pen.y = Math.min(0.97, Math.max(0.03, pen.y + dy * step));
      pen.shown = true;
      if (pen.down) {
        this.#strokes.at(-1).push(this.#unturned(pen.x, pen.y));
        this.#changed(false);
      } else this.#paint();
    } else if (event.key === " " || event.key === "Enter") {
      if (event.repeat) return;
      this.#setPen(!pen.down);
    } else if (undo) {
      pen.down = false;
      this.undo();
    } else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else return;
    event.preventDefault();
  }

  #setPen(down) {
    const pen = this.#pen;
    if (down && this.#image) this.#replace({ strokes: [], image: null });
    pen.down = down;
    pen.shown = true;
    if (down) this.#strokes.push([this.#unturned(pen.x, pen.y)]);
    this.dispatchEvent(new CustomEvent("pen", { detail: { down } }));
    this.#changed(!down);
  }

  #showPen(shown) {
    if (!shown && this.#pen.down) this.#setPen(false);
    this.#pen.shown = shown;
    this.#paint();
  }

  #paint() {
    this.#paintOn(this.#canvas, this.#angle);
    if (this.#pen.shown) this.#paintPen();
  }

  #paintOn(canvas, angle) {
    const side = canvas.width;
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = this.#image ? edgeColour(this.#image.bitmap) : PAPER;
    context.fillRect(0, 0, side, side);
    context.translate(side / 2, side / 2);
    context.rotate((angle * Math.PI) / 180);
    context.translate(-side / 2, -side / 2);
    if (this.#image) paintImage(context, this.#image.bitmap, side);
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
 * Strokes as a smooth line through the middles between their points.
 * @param {CanvasRenderingContext2D} context
 * @param {[number, number][][]} strokes from 0 to 1
 * @param {number} side of the sheet
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

function paintImage(context, bitmap, side) {
  const scale = Math.min(side / bitmap.width, side / bitmap.height);
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  context.imageSmoothingEnabled = scale < 4; // a 28 × 28 picture shows its pixels
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (side - width) / 2, (side - height) / 2, width, height);
}

/** The mean colour of a picture's rim, to lay around it when it is turned. */
function edgeColour(bitmap) {
  const sheet = document.createElement("canvas");
  sheet.width = sheet.height = 16;
  const context = sheet.getContext("2d", { willReadFrequently: true });
  context.fillStyle = PAPER;
  context.fillRect(0, 0, 16, 16);
  context.drawImage(bitmap, 0, 0, 16, 16);
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
