// Live figures, computed from the server's /metrics: the difference between two pages of it is what happened between.

import { ask } from "./server.js";

const EVERY_MS = 2000;
const WINDOW_MS = 15000;
const SAMPLE = /^(ladabert_\w+)(?:\{(.*)\})? (\S+)$/gm;
const KEPT_LABEL = /\b(?:le|agrees)="([^"]*)"/; // the others are summed over

const REQUESTS = "ladabert_requests_total";
const DURATION = "ladabert_request_duration_seconds_bucket";
const SHADOW = "ladabert_shadow_agreement_total";

// Return the sum of each series over models and routes, by `name` or `name bound`.
export function readSums(page) {
  const sums = {};
  for (const [, name, labels = "", value] of page.matchAll(SAMPLE)) {
    const kept = KEPT_LABEL.exec(labels);
    const series = kept ? `${name} ${kept[1].toLowerCase()}` : name;
    sums[series] = (sums[series] ?? 0) + Number(value);
  }
  return sums;
}

// Return the figures of the time between two sums; null is one that nothing was counted for.
export function figures(earlier, later, seconds) {
  const grown = (series) => (later[series] ?? 0) - (earlier[series] ?? 0);
  const share = (part, whole) => (whole > 0 ? part / whole : null);
  const agreed = later[`${SHADOW} true`] ?? 0;
  const milliseconds = (quantile) => {
    const found = quantileOf(quantile, later, grown);
    return found === null ? null : found * 1000;
  };
  return {
    requestsPerSecond: share(grown(REQUESTS), seconds),
    p50Ms: milliseconds(0.5),
    p99Ms: milliseconds(0.99),
    queueDepth: later.ladabert_queue_depth ?? null,
    batchSize: share(grown("ladabert_batch_size_sum"), grown("ladabert_batch_size_count")),
    shadowAgreement: share(agreed, agreed + (later[`${SHADOW} false`] ?? 0)),
  };
}

// Return a quantile of the durations in seconds, interpolated in its bucket as Prometheus does.
function quantileOf(quantile, sums, grown) {
  const bounds = Object.keys(sums)
    .filter((series) => series.startsWith(`${DURATION} `))
    .map((series) => [series.endsWith("+inf") ? Infinity : Number(series.split(" ")[1]), grown(series)])
    .sort(([a], [b]) => a - b);
  const rank = quantile * (bounds.at(-1)?.[1] ?? 0);
  if (!rank) return null;
  let [lower, before] = [0, 0];
  for (const [upper, count] of bounds) {
    if (count >= rank) return upper === Infinity ? lower : lower + ((upper - lower) * (rank - before)) / (count - before);
    [lower, before] = [upper, count];
  }
  return null;
}

// Call `show(figures, problem)` every two seconds while the page can be seen; ends where the server refuses for good.
export async function watchMetrics(show, signal) {
  let pages = [];
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        const sums = readSums(await (await ask("metrics", { accept: "text/plain", signal })).text());
        const now = performance.now();
        if (sums[REQUESTS] < pages.at(-1)?.sums[REQUESTS]) pages = []; // the server started anew, or unloaded a model
        pages = [...pages.filter(({ at }) => at >= now - WINDOW_MS), { at: now, sums }];
        show(figures(pages[0].sums, sums, (now - pages[0].at) / 1000), "");
      } catch (error) {
        if (signal.aborted) return;
        show(null, error.message);
        if (error.status >= 400 && error.status < 500) return; // another key may help, another try will not
      }
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}
