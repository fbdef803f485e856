// One model beside the others: whether it is asked, and its answer to the text that was typed last.

import { ask } from "./server.js";

const MOST_LABELS = 10;

export class Card {
  constructor(model) {
    this.model = model;
    this.element = document.getElementById("card").content.cloneNode(true).firstElementChild;
    this.find(".name").textContent = model.name;
    const reads = model.task === "pair" ? "compares two texts" : "reads one text";
    const how = model.stages.length ? `asks ${model.stages.join(", then ")}` : model.precision;
    this.find(".about").textContent = `${reads}, up to ${model.max_length} tokens; ${how}`;
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  get chosen() {
    return this.find("input").checked;
  }

  get comparesTwo() {
    return this.model.task === "pair";
  }

  // End the request in progress: its text is no longer the one on the page.
  leave() {
    this.controller?.abort();
    this.element.removeAttribute("aria-busy");
  }

  // Ask the model and show its answer; returns a sentence to be read out, or nothing if there is no answer to show.
  async classify(text, second) {
    this.leave();
    if (!this.chosen || !text) return this.show(null);
    if (this.comparesTwo && !second) return this.show(null, "It needs the second text.");
    const controller = (this.controller = new AbortController());
    const inputs = this.comparesTwo ? { text, text_pair: second } : text;
    const body = { inputs, model: this.model.name, top_k: MOST_LABELS };
    this.element.setAttribute("aria-busy", "true");
    try {
      const answer = await (await ask("classify", { body, signal: controller.signal })).json();
      return this.show(answer);
    } catch (error) {
      return controller.signal.aborted ? "" : this.show(null, error.message);
    } finally {
      if (controller === this.controller) this.element.removeAttribute("aria-busy");
    }
  }

  show(answer, problem = "") {
    this.find(".problem").textContent = problem;
    this.find(".answer").hidden = answer === null;
    if (answer === null) return problem && `${this.model.name}: ${problem}`;
    const [prediction] = answer.predictions;
    this.find(".label").textContent = prediction.label;
    this.find(".scores").replaceChildren(...prediction.scores.map((each) => scoreBar(each, this.model.problem_type === "regression")));
    const cut = prediction.truncated ? ", the rest was cut off" : "";
    const stage = prediction.stage === undefined ? "" : `; answered by stage ${prediction.stage}`;
    this.find(".read").textContent = `${prediction.tokens} tokens${cut}${stage}`;
    this.find(".steps").replaceChildren(...Object.entries(answer.timing_ms).map(step));
    return `${this.model.name}: ${prediction.label}, ${prediction.score.toFixed(2)}.`;
  }
}

function scoreBar({ label, score }, isNumber) {
  const item = document.createElement("li");
  const bar = Object.assign(document.createElement("span"), { className: "bar" });
  const share = document.createElement("span");
  item.append(span(label), span(score.toFixed(3)));
  if (isNumber) return item; // which has no limits that a bar could show
  share.style.setProperty("--share", score);
  bar.append(share);
  item.append(bar);
  return item;
}

function span(text) {
  return Object.assign(document.createElement("span"), { textContent: text });
}

function step([name, milliseconds]) {
  const item = document.createElement("div");
  const [term, value] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  value.textContent = `${milliseconds.toFixed(2)} ms`;
  item.append(term, value);
  return item;
}
