// The graphs' outputs -> predictions and sentences, in the words of xray_hf.inference and xray_hf.demo.
import { site } from "./site.js";

const { words } = site;
export const [UNSURE, REJECTED, NONE] = ["unsure", "rejected", "no answer"];

// "{aspect:.1f} times" with {aspect: 4} -> "4.0 times"
const fill = (text, values) => text.replace(/\{(\w+)(?::\.(\d)f)?\}/g, (_, name, digits) =>
  digits === undefined ? values[name] : values[name].toFixed(digits));

function reasonOf(model, output, found, findings) {
  const reason = model.reasons[output.reason];
  const correction = findings.map((name) => words.corrections[name]).find(Boolean);
  if (reason === "quality") return `it ${correction}`;
  if (reason === "unsure") return model.unsure;
  if (reason === "out of distribution") {
    return `${words.outside}; ${correction ? `if the image is a chest X-ray, it ${correction}` : words.advice}`;
  }
  const { width, height } = found;
  return fill(words.rules[reason] ?? "", { width, height, aspect: width / height });
}

// The share of the evidence for a class, beyond the mean of all classes, that lies in the lungs; null without any.
function heatInLungs({ heatmaps, lungs }, label) {
  if (!heatmaps || !lungs?.values.some((share) => share > 0)) return null;
  const [classes, height, width] = heatmaps.shape;
  const cells = height * width;
  let [inside, total] = [0, 0];
  for (let cell = 0; cell < cells; cell += 1) {
    let mean = 0;
    for (let each = 0; each < classes; each += 1) mean += heatmaps.values[each * cells + cell] / classes;
    const evidence = Math.max(0, heatmaps.values[label * cells + cell] - mean);
    inside += evidence * lungs.values[cell];
    total += evidence;
  }
  return total > 0 ? inside / total : null;
}

function warningsOf({ lungs }, findings) {
  const cautions = findings.map((name) => words.cautions[name]).filter(Boolean);
  return lungs && !lungs.values.some((share) => share > 0) ? [words.noLungs, ...cautions] : cautions;
}

// As xray_hf.inference.Prediction: {decision, reason, label, probabilities, ood_score, heat_in_lungs, ...}.
function prediction(model, output, found) {
  if (model.reasons[output.reason] === "not finite") return { error: words.notFinite };
  const findings = model.findings.filter((_, place) => output.findings[place]);
  const decision = model.decisions[output.decision];
  const best = output.probabilities.indexOf(Math.max(...output.probabilities));
  return {
    decision,
    reason: reasonOf(model, output, found, findings),
    label: site.labels[best],
    probabilities: Object.fromEntries(site.labels.map((label, place) => [label, output.probabilities[place]])),
    ood_score: model.thresholds.ood_above === null ? null : output.score,
    heat_in_lungs: heatInLungs(output, best),
    warnings: decision === REJECTED ? [] : warningsOf(output, findings),
    heatmaps: decision === REJECTED ? null : output.heatmaps,
  };
}

// {model: its prediction, or {error}}. found: of the worker.
export const predictions = (found) =>
  Object.fromEntries(site.models.map((model, place) => [model.name, prediction(model, found.outputs[place], found)]));

export const warnings = (found, predicted) =>
  [...new Set([...found.warnings, ...Object.values(predicted).flatMap((each) => each.warnings ?? [])])];

// As xray_hf.demo.rendering.said.
export function said(predicted) {
  const { decision, reason, probabilities } = predicted.error
    ? { decision: NONE, reason: predicted.error, probabilities: {} } : predicted;
  const cut = decision === REJECTED ? reason.lastIndexOf(": ") : -1;
  return {
    decision,
    reason,
    headline: cut < 0 ? decision : `${decision}: ${reason.slice(0, cut)}`,
    why: cut < 0 ? reason : reason.slice(cut + 2),
    kind: [NONE, REJECTED, UNSURE].includes(decision) ? "withheld" : "decided",
    shares: decision === REJECTED ? {} : probabilities,
  };
}

export const contextOf = (name, predicted) =>
  site.models.find((model) => model.name === name).context[predicted.decision] ?? [];

const BY_ONE = { [UNSURE]: "is unsure", [REJECTED]: "rejects the image" };
const BY_SEVERAL = { [UNSURE]: "are unsure", [REJECTED]: "reject the image" };

// As xray_hf.demo.rendering.verdict: [sentence, whether the models agree].
export function verdict(predicted) {
  const decided = Object.entries(predicted).filter(([, each]) => !each.error).map(([name, each]) => [name, each.decision]);
  const different = new Set(decided.map(([, decision]) => decision));
  if (decided.length < 2) return ["", true];
  if (different.size === 1) {
    const [decision] = different;
    const sentence = `${decided.length === 2 ? "Both" : "All"} models ${BY_SEVERAL[decision] ?? `answer ${decision}`}.`;
    const learnt = site.models.filter((model) => predicted[model.name].decision).map((model) => model.sources);
    const shareSources = learnt[0].some((source) => learnt.every((each) => each.includes(source)));
    return [shareSources && !(decision in BY_SEVERAL) ? `${sentence} ${words.agreement}` : sentence, true];
  }
  const each = decided.map(([name, decision]) => `${name} ${BY_ONE[decision] ?? `answers ${decision}`}`).join(", ");
  different.delete(UNSURE);
  if (different.size === 1) return [`${each}.`, true];
  const which = decided.length === 2 ? "rely on neither" : "do not rely on any of them";
  return [`Models disagree: ${which} (${each}).`, false];
}
