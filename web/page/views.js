// What the templates show: an answer with its viewer, the table of many, the report. As xray_hf.demo's modules
// rendering, table and single_report.
import { contextOf, NONE, predictions, REJECTED, said, UNSURE, verdict, warnings } from "./answer.js";
import { mapsOf } from "./maps.js";
import { render } from "./render.js";
import { site } from "./site.js";

const names = site.models.map((model) => model.name);
const SKIPPED = { left_out: 0, kinds: "" };  // the demo's archives have files that are skipped
const FORMULA = /^[=+\-@\t\r]/;  // how a cell begins that a spreadsheet would run

let shownBefore = 0;  // answers

// One of the answers: a file and what the worker found, or {error}.
function shown({ name, path, found, error }) {
  shownBefore += 1;
  const id = `a${shownBefore}`;
  if (error) return { id, name, problem: error };
  const predicted = predictions(found);
  const [sentence, doAgree] = verdict(predicted);
  const { stages, ticks } = mapsOf(predicted);
  const mapped = Object.keys(stages);
  return {
    id,
    name,
    path,
    member: "",
    width: found.width,
    height: found.height,
    problem: "",
    warnings: warnings(found, predicted),
    preview: found.picture,
    verdict: sentence,
    do_agree: doAgree,
    names,
    models: names.map((each) => ({ name: each, ...said(predicted[each]), context: contextOf(each, predicted[each]) })),
    stages,
    labels: mapped.length ? site.labels : [],
    own: Object.fromEntries(mapped.map((each) => [each, predicted[each].label])),
    bar: site.bar,
    ticks,
  };
}

export const answersHtml = (answers) => render("answers", { answers: answers.map(shown), ...SKIPPED });

// A row of the table: what is kept of each of many answers, without heatmaps.
export function rowOf({ name, path, found, error }) {
  if (error) return { row: { file: name, error, path, member: "", thumbnail: "" }, agreement: "", said: [] };
  const answers = Object.values(predictions(found)).map(said);
  const decisions = new Set(answers.map((each) => each.decision));
  let agreement = decisions.size === 1 ? "agree" : "disagree";
  if ([UNSURE, REJECTED, NONE].some((each) => decisions.has(each))) agreement = "undecided";
  return {
    row: { file: name, error: "", path, member: "", thumbnail: found.picture },
    agreement: names.length > 1 ? agreement : "",
    said: answers,
  };
}

export function tableHtml(rows) {
  const decisions = [...site.labels, UNSURE, REJECTED, NONE];
  const times = (decision, place) => rows.filter((each) => (each.said[place]?.decision ?? NONE) === decision).length;
  return render("table", {
    rows,
    read: rows.length,
    failed: rows.filter((each) => each.row.error).length,
    more: [],
    models: names,
    labels: site.labels,
    counts: Object.fromEntries(decisions.map((each) =>
      [each, Object.fromEntries(names.map((name, place) => [name, times(each, place)]))])),
    csv: base64(csvOf(rows)),
    ...SKIPPED,
  });
}

const base64 = (text) => btoa(Array.from(new TextEncoder().encode(text), (each) => String.fromCharCode(each)).join(""));

const cell = (value) => {
  const harmless = typeof value === "string" && FORMULA.test(value) ? `'${value}` : String(value ?? "");
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
};

// With the columns of the demo's table.as_csv.
export function csvOf(rows) {
  const ofModel = (name) => [`${name}: decision`, `${name}: reason`, ...site.labels.map((label) => `${name}: ${label}`)];
  const lines = [["file", "error", "agreement", ...names.flatMap(ofModel)]];
  for (const { row, agreement, said: answers } of rows) {
    const shares = (each) => site.labels.map((label) => each.shares[label] && Math.round(1e4 * each.shares[label]) / 1e4);
    lines.push([row.file, row.error, agreement, ...answers.flatMap((each) => [each.decision, each.reason, ...shares(each)])]);
  }
  const width = lines[0].length;
  return lines.map((line) => `${Array.from({ length: width }, (_, k) => cell(line[k])).join(",")}\r\n`).join("");
}

// {html, json} of one answer.
export function reportOf({ name, found }) {
  const predicted = predictions(found);
  const ofModel = (model) => {
    const { error, decision, reason, label, ood_score, heat_in_lungs } = predicted[model.name];
    const own = error ? { error } : { decision, reason, label, ood_score, heat_in_lungs };
    const shares = said(predicted[model.name]).shares;
    const probabilities = Object.keys(shares).length ? shares : null;
    const { version_hash, thresholds } = model;
    return { version_hash, thresholds, ...own, probabilities, context: contextOf(model.name, predicted[model.name]) };
  };
  const json = {
    file: name,
    date: `${new Date().toISOString().slice(0, 19)}+00:00`,
    xray_hf: site.version,
    image: { width: found.width, height: found.height },
    warnings: warnings(found, predicted),
    agreement: verdict(predicted)[0],
    models: Object.fromEntries(site.models.map((model) => [model.name, ofModel(model)])),
    caveats: [...site.caveats, ...new Set(site.models.map((model) => model.shortcut).filter(Boolean))],
  };
  return { json, predicted };
}
