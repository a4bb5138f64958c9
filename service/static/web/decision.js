/** The decision in plain words. */

const TEXTS = {
  no_ink: ["Nothing to read", "The picture is blank. Draw a digit."],
  several_shapes: [
    "More than one shape",
    "The service reads one digit at a time, and this looks like several. A person should look.",
  ],
  not_digit_shaped: [
    "Not shaped like a digit",
    "It is too wide, too full or too thin for a digit. A person should look.",
  ],
};
// Reasons of preprocessing come first: they hold whatever the networks predict.
const ORDER = ["no_ink", "several_shapes", "not_digit_shaped", "unlike_training"];

/**
 * @param {object} answer of `POST /predict`
 * @param {object|null} model of `GET /model`
 * @returns {{state: string, sign: string, title: string, detail: string}} `state` is accept or review
 */
export function describe(answer, model) {
  if (answer.decision === "accept")
    return {
      state: "accept",
      sign: answer.prediction,
      title: `${answer.prediction}, accepted`,
      detail: guarantee(answer, model),
    };
  const [title, detail] = review(answer);
  return { state: "review", sign: "?", title, detail };
}

function review(answer) {
  const best = answer.classes.reduce((a, b) => (b.probability > a.probability ? b : a));
  const share = percent(best.probability);
  const reason = ORDER.find((each) => answer.reasons.includes(each));
  if (reason in TEXTS) return TEXTS[reason];
  if (reason)
    return [
      answer.not_a_digit?.probability > 0.5 ? "Probably not a digit" : `Perhaps a ${best.label}, perhaps not a digit`,
      "It is unlike the pictures the networks were trained on. A person should look.",
    ];
  const set = answer.prediction_set;
  if (set.length === 1)
    return [`Most likely a ${best.label}`, `A probability of ${share} is too low to accept it. A person should look.`];
  const leader = best.probability > 0.5 ? `Probably a ${best.label} (${share})` : `A ${best.label} leads with ${share}`;
  return [
    set.length > 3 ? "Very uncertain" : `Not sure: ${either(set)}`,
    `${leader}, but that is too uncertain to accept. A person should look.`,
  ];
}

function guarantee(answer, model) {
  if (!answer.calibrated) return "The error guarantee does not apply to this number of networks.";
  const rule = model?.decision;
  if (!rule) return "No review is needed.";
  const confidence = Number((100 * rule.confidence).toFixed(2));
  return `Of accepted answers, at most ${percent(rule.target)} are wrong (with ${confidence} % confidence), for pictures like those of the calibration.`;
}

/** "4 or 9", "3, 5 or 8". */
function either(labels) {
  return labels.length === 1 ? labels[0] : `${labels.slice(0, -1).join(", ")} or ${labels.at(-1)}`;
}

/** A probability in percent, never 0 % or 100 % unless it is exactly that. */
export function percent(p) {
  if (p > 0 && p < 0.001) return "< 0.1 %";
  if (p < 1 && p > 0.999) return "> 99.9 %";
  return `${(100 * p).toFixed(p < 0.0995 || p > 0.9005 ? 1 : 0)} %`;
}
