/** The page: puts the parts together. */

import { Bars } from "./bars.js";
import { Client, Trouble, curlLine } from "./client.js";
import { addExamples } from "./gallery.js";
import { takeFiles } from "./intake.js";
import { Pad } from "./pad.js";
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
let curveTimer = 0;
let lastAsked = 0;
let asked = 0; // counts questions, so that one that was overtaken is noticed
let pictureUrl = null;

function onChange({ detail }) {
  $("hint").hidden = !pad.empty;
  $("angle").value = pad.angle;
  showAngle();
  clearTimeout(askTimer);
  clearTimeout(curveTimer);
  if (pad.empty) {
    asked += 1;
    client.stop();
    showNothing();
    return;
  }
  const wait = detail.settled ? 0 : Math.max(0, lastAsked + WHILE_DRAWING_MS - performance.now());
  askTimer = setTimeout(() => ask(detail.settled), wait);
  if (detail.settled) curveTimer = setTimeout(() => curve.trace(pad), CURVE_AFTER_MS);
}

async function ask(settled) {
  lastAsked = performance.now();
  clearTimeout(askTimer);
  const mine = (asked += 1);
  try {
    const picture = await pad.picture();
    if (mine !== asked) return;
    const got = await client.ask(picture, showSlow);
    if (!got) return;
    answer = got;
    hideTrouble();
    offer(picture);
    votes.show(answer);
    showAnswer(settled);
  } catch (error) {
    showTrouble(error);
  }
}

function showAnswer(settled) {
  const said = verdict(answer, model);
  $("verdict").dataset.state = said.state;
  $("verdict-sign").textContent = said.sign;
  $("verdict-line").textContent = said.line;
  $("verdict-why").textContent = said.why;
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
  bars.show(classes, answer.not_a_digit);
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
  if (slow) say("Still waiting for the answer…", false);
  else if ($("trouble").dataset.kind === "slow") hideTrouble();
}

function showTrouble(error) {
  if (!(error instanceof Trouble)) throw error;
  answer = null;
  $("verdict").dataset.state = "empty";
  $("verdict-sign").textContent = "!";
  $("verdict-line").textContent = "No answer";
  $("verdict-why").textContent = "What you see below is of the picture before.";
  say(error.message, true);
  if (error.retryAfter) askTimer = setTimeout(() => ask(true), 1000 * error.retryAfter);
}

function say(sentence, again) {
  $("trouble").dataset.kind = again ? "failed" : "slow";
  $("trouble-text").textContent = sentence;
  $("again").hidden = !again;
  $("trouble").hidden = false;
}

function hideTrouble() {
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
  if (pad.empty) return;
  clearTimeout(askTimer);
  const wait = Math.max(0, lastAsked + WHILE_DRAWING_MS - performance.now());
  askTimer = setTimeout(() => ask(true), wait);
}

async function onFile(file) {
  try {
    await pad.showFile(file, file);
  } catch {
    await takeUnseen(file);
  }
}

/** A picture that the browser cannot show (TIFF, say): the service reads it, or says why not. */
async function takeUnseen(file) {
  try {
    const seen = await new Client().ask(file, showSlow);
    const bytes = Uint8Array.from(atob(seen.preview.split(",")[1]), (c) => c.charCodeAt(0));
    await pad.showFile(file, new Blob([bytes], { type: "image/png" }));
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    say(error.message, false);
    $("trouble").dataset.kind = "failed"; // what was there before still stands
  }
}

pad.addEventListener("change", onChange);
pad.addEventListener("pen", ({ detail }) => {
  $("pen-state").textContent = detail.down ? "Pen down" : "Pen lifted";
});
votes.addEventListener("use", showFigures);
$("undo").addEventListener("click", () => pad.undo());
$("clear").addEventListener("click", () => pad.clear());
$("again").addEventListener("click", () => ask(true));
$("angle").addEventListener("input", onTurn);
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("curl").textContent);
  } catch {
    getSelection().selectAllChildren($("curl")); // no clipboard without a secure connection
    return;
  }
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
});
document.addEventListener("keydown", (event) => {
  const undo = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey);
  if (!undo || event.defaultPrevented) return;
  event.preventDefault();
  pad.undo();
});
takeFiles({ target: $("drop"), inputs: [$("file"), $("camera")], onFile });
addExamples($("examples"), (strokes) => pad.show(strokes));
$("curl").textContent = curlLine();
fetch("model")
  .then((response) => (response.ok ? response.json() : null))
  .then((told) => {
    model = told;
    if (answer) showAnswer(false);
  })
  .catch(() => {}); // the first question will say what is wrong
