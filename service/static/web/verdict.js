/** The decision in plain words. */

const SENTENCES = {
  no_ink: ["Nothing to read", "The picture is blank. Draw a digit."],
  several_shapes: [
    "More than one shape",
    "It reads one digit at a time, and this looks like several. A person should look.",
  ],
  not_digit_shaped: [
    "Not shaped like a digit",
    "No digit is as wide, as full or as thin as this. A person should look.",
  ],
};
// What stops an answer before the network is asked to judge stands first.
const ORDER = ["no_ink", "several_shapes", "not_digit_shaped", "unlike_training"];

/**
 * @param {object} answer of `POST /predict`
 * @param {object|null} model of `GET /model`
 * @returns {{state: string, sign: string, line: string, why: string}} `state` is accept or review
 */
export function verdict(answer, model) {
  if (answer.decision === "accept") return accepted(answer, model);
  const reason = ORDER.find((each) => answer.reasons.includes(each));
  if (reason) {
    const [line, why] = SENTENCES[reason] ?? strange(answer);
    return { state: "review", sign: "?", line, why };
  }
  const [best] = likeliest(answer);
  const set = answer.prediction_set;
  const share = percent(best.probability);
  if (set.length === 1)
    return {
      state: "review",
      sign: "?",
      line: `Most likely a ${best.label}`,
      why: `But ${share} is not sure enough to be accepted. A person should look.`,
    };
  const leaning = best.probability > 0.5 ? `Probably a ${best.label} (${share})` : `A ${best.label} leads with ${share}`;
  return {
    state: "review",
    sign: "?",
    line: set.length > 3 ? "Not sure at all" : `Not sure: ${either(set)}`,
    why: `${leaning}, but too close to call. A person should look.`,
  };
}

/** What may be no digit at all: said as surely as the network is of it. */
function strange(answer) {
  const likely = answer.not_a_digit?.probability > 0.5;
  const [best] = likeliest(answer);
  return [
    likely ? "Not a digit, it seems" : `Perhaps a ${best.label}, perhaps no digit`,
    "It is unlike what the network was made for. A person should look.",
  ];
}

function accepted(answer, model) {
  const rule = model?.decision;
  let promise = "With this number of networks, its promise on errors does not apply.";
  if (answer.calibrated)
    promise = rule
      ? `Of the answers it accepts, at most ${percent(rule.target)} are wrong (with ${Number((100 * rule.confidence).toFixed(2))} % confidence), for pictures like those it was calibrated on.`
      : "Nobody needs to look.";
  return {
    state: "accept",
    sign: answer.prediction,
    line: `${answer.prediction}, accepted`,
    why: promise,
  };
}

function likeliest(answer) {
  return [...answer.classes].sort((a, b) => b.probability - a.probability);
}

/** "4 or 9", "3, 5 or 8". */
function either(labels) {
  return labels.length === 1
    ? labels[0]
    : `${labels.slice(0, -1).join(", ")} or ${labels.at(-1)}`;
}

/** A probability for people: never 0 % or 100 % unless it is. */
export function percent(p) {
  if (p > 0 && p < 0.001) return "< 0.1 %";
  if (p < 1 && p > 0.999) return "> 99.9 %";
  return `${(100 * p).toFixed(p < 0.0995 || p > 0.9005 ? 1 : 0)} %`;
}
