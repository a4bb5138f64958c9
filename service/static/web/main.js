/** The page: connects its parts. */

import { Client, ServiceError, curlCommand, fetchModel, setKey } from "./client.js";
import { describe, percent } from "./decision.js";
import { addExamples } from "./gallery.js";
import { Pad, readImage } from "./pad.js";
import { Probabilities } from "./probabilities.js";
import { RotationCurve } from "./rotation.js";
import { summarise } from "./statistics.js";
import { acceptFiles } from "./uploads.js";
import { Votes } from "./votes.js";

const WHILE_DRAWING_MS = 90; // minimum time between two requests while a stroke grows
const CURVE_DELAY_MS = 350; // without a change, before the rotation curve is requested
const MAX_NATS = Math.log(10);

const $ = (id) => document.getElementById(id);

const pad = new Pad($("pad"));
const probabilities = new Probabilities($("classes"));
const votes = new Votes({
  grid: $("votes"), slider: $("samples"), text: $("samples-text"), note: $("samples-note"), plot: $("convergence"),
});
const curve = new RotationCurve($("rotation"));
const client = new Client();

let model = null;
let answer = null;
let requestTimer = 0;
let retryTimer = 0;
let curveTimer = 0;
let lastRequest = 0;
let notBefore = 0; // the earliest time for a retry that a busy service accepts
let requestId = 0; // changes with every request, to detect outdated answers
let pending = false;
let changedMeanwhile = false; // whether the stroke has grown since the pending request
let padVersion = 0; // changes with the pad, to detect pictures that load too late
let pictureUrl = null;

function onChange({ detail }) {
  padVersion += 1;
  $("hint").hidden = !pad.empty;
  $("angle").value = pad.angle;
  showAngle();
  curve.clear(); // it belongs to the previous picture
  clearTimeout(requestTimer);
  clearTimeout(curveTimer);
  if (pad.empty) {
    cancel();
    showNothing();
    return;
  }
  schedule(detail.settled, detail.settled ? 0 : WHILE_DRAWING_MS);
  if (detail.settled) curveTimer = setTimeout(() => curve.trace(pad), CURVE_DELAY_MS);
}

function schedule(settled, pause) {
  clearTimeout(requestTimer);
  const wait = Math.max(0, lastRequest + pause - performance.now(), notBefore - performance.now());
  requestTimer = setTimeout(() => predict(settled), wait);
}

function cancel() {
  requestId += 1;
  pending = changedMeanwhile = false;
  clearTimeout(requestTimer);
  clearTimeout(retryTimer);
  client.cancel();
}

/**
 * Request a prediction for the pad. While a stroke grows, wait for the pending answer, or a slow
 * service would never give one. A settled picture cancels it.
 */
async function predict(settled) {
  if (pad.empty) return;
  if (pending && !settled) {
    changedMeanwhile = true;
    return;
  }
  cancel();
  const id = requestId;
  pending = true;
  lastRequest = performance.now();
  try {
    const picture = await pad.picture();
    if (id !== requestId) return;
    const next = await client.predict(picture, showSlow);
    if (id !== requestId || !next) return;
    answer = next;
    notBefore = 0;
    hideError();
    offerDownload(picture);
    votes.show(answer);
    showAnswer(settled);
    if (model?.version !== answer.model.version) updateModel();
  } catch (error) {
    if (id !== requestId) return;
    // The service may not support the file's format. Then send what the pad shows.
    if (error.status === 415 && pad.forgetFile()) schedule(settled, 0);
    else showError(error);
  } finally {
    if (id === requestId) {
      pending = false;
      if (changedMeanwhile) schedule(false, WHILE_DRAWING_MS);
    }
  }
}

/** Fetch the model, whose decision rule has the guarantee of accepted answers. */
async function updateModel() {
  try {
    model = (await fetchModel()) ?? model;
    if (answer) showDecision();
  } catch {
    // The next answer tries again.
  }
}

function showDecision() {
  const decision = describe(answer, model);
  $("decision").dataset.state = decision.state;
  $("decision-sign").textContent = decision.sign;
  $("decision-title").textContent = decision.title;
  $("decision-detail").textContent = decision.detail;
  return decision;
}

function showAnswer(settled) {
  const decision = showDecision();
  const level = `${Number((100 * answer.level).toFixed(2))} %`;
  if (settled) $("announcement").textContent = `${decision.title}. ${decision.detail}`;
  $("preview").src = answer.preview;
  $("preview").alt = "The picture as 28 by 28 pixels, light strokes on black";
  $("level-text").textContent = level;
  const time = `${answer.milliseconds.toFixed(0)} ms`;
  $("facts").textContent =
    `${answer.samples} networks, ${level} intervals, answered in ${time} by model ${answer.model.name} ${answer.model.version}`;
  showNumbers();
}

/** Show the numbers of the selected networks: the service's if all are, else computed here. */
function showNumbers() {
  if (!answer) return;
  let { classes } = answer;
  let { predictive_entropy: total, expected_entropy: expected, mutual_information: mutual } = answer.uncertainty;
  if (!votes.all) {
    const fewer = summarise(answer.draws, votes.n, answer.level);
    classes = fewer.classes.map((entry, i) => ({ ...entry, label: classes[i].label }));
    ({ predictive: total, expected, mutual } = fewer);
  }
  $("classes-note").textContent = votes.all ? "" : `From the first ${votes.n} networks only`;
  probabilities.show(classes, answer.not_a_digit, votes.all);
  $("total").textContent = formatNats(total);
  $("expected").textContent = formatNats(expected);
  $("mutual").textContent = formatNats(mutual);
  $("split-expected").style.width = `${(100 * expected) / MAX_NATS}%`;
  $("split-mutual").style.width = `${(100 * mutual) / MAX_NATS}%`;
  $("not-a-digit-row").hidden = !answer.not_a_digit;
  if (answer.not_a_digit) $("not-a-digit").textContent = percent(answer.not_a_digit.probability);
}

const formatNats = (value) => (value > 0 && value < 0.001 ? "< 0.001" : value.toFixed(3));

function showNothing() {
  answer = null;
  hideError();
  $("decision").dataset.state = "empty";
  $("decision-sign").textContent = "?";
  $("decision-title").textContent = "Nothing drawn yet";
  $("decision-detail").textContent = "Draw a digit, or click an example.";
  $("announcement").textContent = "Cleared";
  $("classes-note").textContent = $("facts").textContent = "";
  $("preview").removeAttribute("src");
  $("preview").alt = "";
  for (const id of ["total", "expected", "mutual", "not-a-digit"]) $(id).textContent = "–";
  $("split-expected").style.width = $("split-mutual").style.width = "0";
  probabilities.clear();
  votes.clear();
  curve.clear();
  $("save-step").hidden = true;
}

function showSlow(slow) {
  if (slow) showMessage("Still waiting for the answer…", "slow");
  else if ($("error").dataset.kind === "slow") hideError();
}

function showError(error) {
  if (!(error instanceof ServiceError)) console.error(error);
  $("decision").dataset.state = "empty";
  $("decision-sign").textContent = "!";
  $("decision-title").textContent = "No answer";
  $("decision-detail").textContent = answer ? "The details below belong to the previous picture." : "";
  const message = error instanceof ServiceError ? error.message : "Something went wrong in this page.";
  const retry = error.retryAfter ? ` Trying again in ${error.retryAfter} s.` : "";
  showMessage(`${message}${retry} Your picture is kept.`, "failed");
  $("key-form").hidden = error.status !== 401;
  $("retry").hidden = error.status === 401;
  if (!error.retryAfter) return;
  notBefore = performance.now() + 1000 * error.retryAfter;
  retryTimer = setTimeout(() => predict(true), 1000 * error.retryAfter);
}

/**
 * @param {string} text
 * @param {"slow"|"failed"|"upload"} kind a late answer, a missing answer, or a picture that could
 *   not be loaded onto the pad
 */
function showMessage(text, kind) {
  $("error").dataset.kind = kind;
  $("error-text").textContent = text;
  $("retry").hidden = $("key-form").hidden = true;
  $("error").hidden = false;
}

function hideError() {
  if ($("error").contains(document.activeElement)) $("answer").focus();
  $("error").hidden = true;
}

/** Let the user save the picture that was sent. */
function offerDownload(picture) {
  if (pictureUrl) URL.revokeObjectURL(pictureUrl);
  pictureUrl = URL.createObjectURL(picture);
  $("save").href = pictureUrl;
  $("save-step").hidden = false;
}

function showAngle() {
  $("angle-text").textContent = `${pad.angle}°`;
  curve.mark(pad.angle);
}

function onRotate() {
  pad.angle = Number($("angle").value);
  showAngle();
  if (!pad.empty) schedule(true, WHILE_DRAWING_MS);
}

/** Load a picture onto the pad, unless the pad changes meanwhile. */
async function onFile(file) {
  const version = (padVersion += 1);
  try {
    const image = await readImage(file, file).catch(() => readByService(file));
    if (version === padVersion) pad.showImage(image);
  } catch (error) {
    if (version !== padVersion) return;
    if (!(error instanceof ServiceError)) console.error(error);
    const message = error instanceof ServiceError ? error.message : "This picture cannot be shown.";
    showMessage(error.status ? message : `${message} Choose the picture again in a moment.`, "upload");
  }
}

/** Read a picture that the browser cannot show, such as TIFF: the service's preview stands for it. */
async function readByService(file) {
  const { preview } = await new Client().predict(file, showSlow);
  const bytes = Uint8Array.from(atob(preview.split(",")[1]), (c) => c.charCodeAt(0));
  return readImage(file, new Blob([bytes], { type: "image/png" }));
}

function onUnsupported() {
  showMessage("This is not a picture. Supported formats: PNG, JPEG, WebP, BMP, GIF and TIFF.", "upload");
}

pad.addEventListener("change", onChange);
pad.addEventListener("pen", ({ detail }) => {
  $("pen-state").textContent = detail.down ? "Pen down" : "Pen lifted";
});
votes.addEventListener("change", showNumbers);
$("undo").addEventListener("click", () => pad.undo());
$("clear").addEventListener("click", () => pad.clear());
$("retry").addEventListener("click", () => predict(true));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey($("key").value.trim());
  $("curl").textContent = curlCommand();
  predict(true);
});
$("angle").addEventListener("input", onRotate);
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("curl").textContent);
    $("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("curl")); // browsers allow the clipboard only over HTTPS
    $("copy").textContent = "Press Ctrl+C";
  }
  $("announcement").textContent = $("copy").textContent;
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
});
document.addEventListener("keydown", (event) => {
  const undo = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey);
  if (!undo || event.shiftKey || event.defaultPrevented) return;
  event.preventDefault();
  pad.undo();
});
acceptFiles({ target: $("drop"), inputs: [$("file"), $("camera")], onFile, onUnsupported });
addExamples($("examples"), (strokes) => pad.show(strokes));
$("curl").textContent = curlCommand();
updateModel();
