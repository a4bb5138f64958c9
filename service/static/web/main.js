/** The page: puts the parts together. */

import { Bars } from "./bars.js";
import { Client, Trouble, askModel, curlLine, useKey } from "./client.js";
import { addExamples } from "./gallery.js";
import { takeFiles } from "./intake.js";
import { Pad, readImage } from "./pad.js";
import { summarise } from "./statistics.js";
import { Curve } from "./turn.js";
import { percent, verdict } from "./verdict.js";
import { Votes } from "./votes.js";

const WHILE_DRAWING_MS = 90; // least time between two questions as the line grows
const CURVE_AFTER_MS = 350; // of rest, before the picture is asked about from all sides
const MOST_NATS = Math.log(10);

const $ = (id) => document.getElementById(id);

const pad = new Pad($("pad"));
const bars = new Bars($("bars"));
const votes = new Votes({
  jury: $("jury"), slider: $("used"), text: $("used-text"), note: $("used-note"), plot: $("settle"),
});
const curve = new Curve($("curve"));
const client = new Client();

let model = null;
let answer = null;
let askTimer = 0;
let retryTimer = 0;
let curveTimer = 0;
let lastAsked = 0;
let notBefore = 0; // when a busy service wants to be asked again
let asked = 0; // counts questions, so that one that was overtaken is noticed
let asking = false;
let grown = false; // whether the line has grown since the question under way
let intakes = 0; // counts what was put on the pad, so that a picture that comes late is noticed
let pictureUrl = null;

function onChange({ detail }) {
  intakes += 1;
  $("hint").hidden = !pad.empty;
  $("angle").value = pad.angle;
  showAngle();
  curve.clear(); // it is of the picture before
  clearTimeout(askTimer);
  clearTimeout(curveTimer);
  if (pad.empty) {
    giveUp();
    showNothing();
    return;
  }
  askSoon(detail.settled, detail.settled ? 0 : WHILE_DRAWING_MS);
  if (detail.settled) curveTimer = setTimeout(() => curve.trace(pad), CURVE_AFTER_MS);
}

function askSoon(settled, pause) {
  clearTimeout(askTimer);
  const wait = Math.max(0, lastAsked + pause - performance.now(), notBefore - performance.now());
  askTimer = setTimeout(() => ask(settled), wait);
}

/** Whatever is under way is of no interest any more. */
function giveUp() {
  asked += 1;
  asking = grown = false;
  clearTimeout(askTimer);
  clearTimeout(retryTimer);
  client.stop();
}

/**
 * Ask about what is on the pad. While a line grows, an answer that is under way is waited for, or a
 * slow service would never get to give one; once it is settled, only the newest counts.
 */
async function ask(settled) {
  if (pad.empty) return;
  if (asking && !settled) {
    grown = true;
    return;
  }
  giveUp();
  const mine = asked;
  asking = true;
  lastAsked = performance.now();
  try {
    const picture = await pad.picture();
    if (mine !== asked) return;
    const got = await client.ask(picture, showSlow);
    if (mine !== asked || !got) return;
    answer = got;
    notBefore = 0;
    hideTrouble();
    offer(picture);
    votes.show(answer);
    showAnswer(settled);
    if (model?.version !== answer.model.version) learnModel();
  } catch (error) {
    if (mine !== asked) return;
    // The browser reads formats that the service does not: then the page sends what it shows.
    if (error.status === 415 && pad.forgetFile()) askSoon(settled, 0);
    else showTrouble(error);
  } finally {
    if (mine === asked) {
      asking = false;
      if (grown) askSoon(false, WHILE_DRAWING_MS);
    }
  }
}

/** The promise behind an accepted answer is in what the service says of its model. */
async function learnModel() {
  try {
    model = (await askModel()) ?? model;
    if (answer) showVerdict();
  } catch {
    // The next answer tries again.
  }
}

function showVerdict() {
  const said = verdict(answer, model);
  $("verdict").dataset.state = said.state;
  $("verdict-sign").textContent = said.sign;
  $("verdict-line").textContent = said.line;
  $("verdict-why").textContent = said.why;
  return said;
}

function showAnswer(settled) {
  const said = showVerdict();
  const level = `${Number((100 * answer.level).toFixed(2))} %`;
  if (settled) $("said").textContent = `${said.line}. ${said.why}`;
  $("preview").src = answer.preview;
  $("preview").alt = "The picture as 28 by 28 pixels, light ink on black";
  $("level-text").textContent = level;
  const time = `${answer.milliseconds.toFixed(0)} ms`;
  $("facts").textContent =
    `${answer.samples} networks, ${level} intervals, in ${time}, by model ${answer.model.name} ${answer.model.version}`;
  showFigures();
}

/** The figures of the networks in use: the service's if all are, else worked out here. */
function showFigures() {
  if (!answer) return;
  let { classes } = answer;
  let { predictive_entropy: total, expected_entropy: expected, mutual_information: mutual } = answer.uncertainty;
  if (!votes.all) {
    const fewer = summarise(answer.draws, votes.n, answer.level);
    classes = fewer.classes.map((entry, i) => ({ ...entry, label: classes[i].label }));
    ({ predictive: total, expected, mutual } = fewer);
  }
  $("bars-note").textContent = votes.all ? "" : `By the first ${votes.n} networks alone`;
  bars.show(classes, answer.not_a_digit, votes.all);
  $("total").textContent = nats(total);
  $("expected").textContent = nats(expected);
  $("mutual").textContent = nats(mutual);
  $("split-expected").style.width = `${(100 * expected) / MOST_NATS}%`;
  $("split-mutual").style.width = `${(100 * mutual) / MOST_NATS}%`;
  $("strange-row").hidden = !answer.not_a_digit;
  if (answer.not_a_digit) $("strange").textContent = percent(answer.not_a_digit.probability);
}

const nats = (value) => (value > 0 && value < 0.001 ? "< 0.001" : value.toFixed(3));

function showNothing() {
  answer = null;
  hideTrouble();
  $("verdict").dataset.state = "empty";
  $("verdict-sign").textContent = "?";
  $("verdict-line").textContent = "Nothing drawn yet";
  $("verdict-why").textContent = "Draw a digit, or click an example.";
  $("said").textContent = "Cleared";
  $("bars-note").textContent = $("facts").textContent = "";
  $("preview").removeAttribute("src");
  $("preview").alt = "";
  for (const id of ["total", "expected", "mutual", "strange"]) $(id).textContent = "–";
  $("split-expected").style.width = $("split-mutual").style.width = "0";
  bars.clear();
  votes.clear();
  curve.clear();
  $("save").hidden = true;
}

function showSlow(slow) {
  if (slow) say("Still waiting for the answer…", "slow");
  else if ($("trouble").dataset.kind === "slow") hideTrouble();
}

function showTrouble(error) {
  if (!(error instanceof Trouble)) console.error(error);
  $("verdict").dataset.state = "empty";
  $("verdict-sign").textContent = "!";
  $("verdict-line").textContent = "No answer";
  $("verdict-why").textContent = answer ? "What you see below is of the picture before." : "";
  const told = error instanceof Trouble ? error.message : "Something went wrong in this page.";
  const retry = error.retryAfter ? ` Asking again in ${error.retryAfter} s.` : "";
  say(`${told}${retry} Your picture is kept.`, "failed");
  $("key-form").hidden = error.status !== 401;
  $("again").hidden = error.status === 401;
  if (!error.retryAfter) return;
  notBefore = performance.now() + 1000 * error.retryAfter;
  retryTimer = setTimeout(() => ask(true), 1000 * error.retryAfter);
}

/**
 * @param {string} sentence
 * @param {"slow"|"failed"|"intake"} kind what it is about: an answer that is waited for, one that
 *   did not come, or a picture that did not get onto the pad
 */
function say(sentence, kind) {
  $("trouble").dataset.kind = kind;
  $("trouble-text").textContent = sentence;
  $("again").hidden = $("key-form").hidden = true;
  $("trouble").hidden = false;
}

function hideTrouble() {
  if ($("trouble").contains(document.activeElement)) $("answer").focus();
  $("trouble").hidden = true;
}

/** Have the very picture that was sent ready to be saved. */
function offer(picture) {
  if (pictureUrl) URL.revokeObjectURL(pictureUrl);
  pictureUrl = URL.createObjectURL(picture);
  $("save").href = pictureUrl;
  $("save").hidden = false;
}

function showAngle() {
  $("angle-text").textContent = `${pad.angle}°`;
  curve.mark(pad.angle);
}

function onTurn() {
  pad.angle = Number($("angle").value);
  showAngle();
  if (!pad.empty) askSoon(true, WHILE_DRAWING_MS);
}

/** Lay a picture on the pad, unless something else was put there while it was being read. */
async function onFile(file) {
  const mine = (intakes += 1);
  try {
    const image = await readImage(file, file).catch(() => readUnseen(file));
    if (mine === intakes) pad.showImage(image);
  } catch (error) {
    if (mine !== intakes) return;
    if (!(error instanceof Trouble)) console.error(error);
    const told = error instanceof Trouble ? error.message : "This picture cannot be shown.";
    say(error.status ? told : `${told} Choose the picture again in a moment.`, "intake");
  }
}

/** A picture that the browser cannot show (TIFF, say): the service reads it, or says why not. */
async function readUnseen(file) {
  const seen = await new Client().ask(file, showSlow);
  const bytes = Uint8Array.from(atob(seen.preview.split(",")[1]), (c) => c.charCodeAt(0));
  return readImage(file, new Blob([bytes], { type: "image/png" }));
}

function onOther() {
  say("That is no picture. PNG, JPEG, WebP, BMP, GIF and TIFF are read.", "intake");
}

pad.addEventListener("change", onChange);
pad.addEventListener("pen", ({ detail }) => {
  $("pen-state").textContent = detail.down ? "Pen down" : "Pen lifted";
});
votes.addEventListener("use", showFigures);
$("undo").addEventListener("click", () => pad.undo());
$("clear").addEventListener("click", () => pad.clear());
$("again").addEventListener("click", () => ask(true));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value.trim());
  $("curl").textContent = curlLine();
  ask(true);
});
$("angle").addEventListener("input", onTurn);
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("curl").textContent);
    $("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("curl")); // no clipboard without a secure connection
    $("copy").textContent = "Press Ctrl+C";
  }
  $("said").textContent = $("copy").textContent;
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
});
document.addEventListener("keydown", (event) => {
  const undo = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey);
  if (!undo || event.shiftKey || event.defaultPrevented) return;
  event.preventDefault();
  pad.undo();
});
takeFiles({ target: $("drop"), inputs: [$("file"), $("camera")], onFile, onOther });
addExamples($("examples"), (strokes) => pad.show(strokes));
$("curl").textContent = curlLine();
learnModel();
