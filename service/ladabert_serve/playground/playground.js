// Wires the page: the key, the models, the text as it is typed, the lines, the live figures.

import { Card } from "./card.js";
import { watchMetrics } from "./gauges.js";
import { fillTable, readLines, save, tabulate, toCsv } from "./lines.js";
import { ask, useKey } from "./server.js";

const PAUSE_MS = 200; // after the last key stroke

const $ = (id) => document.getElementById(id);
let cards = [];
let pause = 0;
let gauges = new AbortController();
let batch = new AbortController();
let csv = "";

// Load the models, or ask for a key where the server asks for one.
async function open() {
  gauges.abort();
  gauges = new AbortController();
  watchMetrics(showFigures, gauges.signal);
  let served;
  try {
    served = await (await ask("models")).json();
  } catch (error) {
    $("problem").textContent = error.message;
    $("key-form").hidden = error.status !== 401;
    if (error.status === 401) $("key").focus();
    return;
  }
  $("problem").textContent = "";
  cards = served.models.map((model) => new Card(model));
  $("cards").replaceChildren(...cards.map((card) => card.element));
  $("second").hidden = !cards.some((card) => card.comparesTwo);
  $("one").hidden = $("many").hidden = false;
  if (!$("key-form").hidden) $("text").focus(); // what had the focus goes away
  $("key-form").hidden = true;
}

// Let every model answer once the typing pauses; what they are computing now is of no use any more.
function typed() {
  clearTimeout(pause);
  cards.forEach((card) => card.leave());
  pause = setTimeout(async () => {
    const [text, second] = [$("text").value, $("text-pair").value];
    const sentences = await Promise.all(cards.map((card) => card.classify(text, second)));
    if (sentences.some(Boolean)) $("spoken").textContent = sentences.filter(Boolean).join(" ");
  }, PAUSE_MS);
}

// Ask the ticked models one after the other, all lines in one request.
async function classifyLines(event) {
  event.preventDefault();
  batch.abort();
  const { signal } = (batch = new AbortController());
  const inputs = readLines($("lines").value);
  const hasPairs = inputs.some((input) => "text_pair" in input);
  const asked = cards.filter((card) => card.chosen && (hasPairs || !card.comparesTwo));
  const answers = new Map();
  const refusals = [];
  for (const { comparesTwo, model } of asked) {
    $("progress").textContent = `Asking ${model.name} …`;
    const body = { model: model.name, top_k: 1, inputs: comparesTwo ? inputs : inputs.map(({ text }) => text) };
    try {
      answers.set(model.name, (await (await ask("classify", { body, signal })).json()).predictions);
    } catch (error) {
      if (signal.aborted) return;
      refusals.push(`${model.name}: ${error.message}`);
    }
  }
  $("progress").textContent = `${inputs.length} texts, answered by ${answers.size} of ${cards.length} models.`;
  $("refusals").replaceChildren(
    ...refusals.map((text) => Object.assign(document.createElement("p"), { textContent: text })),
  );
  fillTable($("results").firstElementChild, inputs, answers);
  csv = toCsv(tabulate(inputs, answers));
  $("results").hidden = $("download").disabled = answers.size === 0;
}

const FORMATS = {
  p50Ms: (value) => `${round(value)} ms`,
  p99Ms: (value) => `${round(value)} ms`,
  shadowAgreement: (value) => `${round(100 * value)} %`,
};

function round(value) {
  return String(Number(value.toPrecision(3)));
}

function showFigures(figures, problem) {
  $("gauges-problem").textContent = problem;
  for (const field of document.querySelectorAll("[data-gauge]")) {
    const name = field.dataset.gauge;
    const value = figures?.[name] ?? null;
    field.textContent = value === null ? "–" : (FORMATS[name] ?? round)(value);
    if (name === "shadowAgreement") field.parentElement.hidden = value === null;
  }
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value);
  $("key").value = "";
  open();
});
for (const id of ["text", "text-pair", "cards"]) $(id).addEventListener("input", typed);
$("lines-form").addEventListener("submit", classifyLines);
$("download").addEventListener("click", () => save("predictions.csv", "text/csv", csv));
open();
