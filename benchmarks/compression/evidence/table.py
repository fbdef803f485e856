"""The figures as Markdown and as plots; ``--page`` and ``--images`` put them into the documentation.

python -m benchmarks.compression.evidence.table benchmarks/results/evidence.json [--page docs/results.md]
    [--images docs/images]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.compression.evidence.contenders import (
    ABLATION_RATIO,
    ABLATIONS,
    BASELINES,
    CURVE_RATIO,
    LONG_SCRATCH,
    OWN_RATE,
    PLAIN,
    TITLES,
    WITH_OWN_RATE,
)
from benchmarks.compression.evidence.cuts import VARIANTS
from benchmarks.compression.evidence.plot import plot_curve, plot_sizes
from benchmarks.compression.evidence.results import Results, mean
from benchmarks.serving import table as serving_table

ROWS = ("ladabert", "plain", *BASELINES)
EXTRA = ("pruning-distilled", "factorisation-distilled")
TERMS = ("embedding", "attention", "hidden", "prediction")
MISSING = "–"


def sections(results: Results) -> dict[str, str]:
    """The Markdown of each generated part of the page, by its marker's name."""
    evidence = [_about(results), _accuracies(results), _margins(results), _claims(results)]
    return {
        "evidence": "\n\n".join("\n".join(part) for part in evidence) + "\n",
        "levers": "\n".join(_levers(results)) + "\n",
        "cuts": "\n".join(_cuts(results)) + "\n",
    }


def put_into(page: str, parts: dict[str, str]) -> str:
    """The page with these parts between their markers."""
    for name, part in parts.items():
        page = serving_table.put_into(page, part, name)
    return page


def publish(results: Results, page: Path, images: Path) -> None:
    """Writes the page's generated parts and the plots that it shows."""
    page.write_text(put_into(page.read_text(encoding="utf-8"), sections(results)), encoding="utf-8")
    plot_sizes(results, images / "evidence-sizes.svg")
    plot_curve(results, images / "evidence-curve.svg")


def _about(results: Results) -> Iterator[str]:
    about, teacher = results.about, results.about["teacher"]
    runs = len(results.outcomes)
    batches = sorted({outcome.batch_size for outcome in results.outcomes})
    seeds = sorted({outcome.seed for outcome in results.outcomes})
    cpu_minutes = sum(outcome.cpu_seconds for outcome in results.outcomes) / 60
    yield f"`{about['command']}`, commit {about['commit']}, {about['date']}, {about['machine']}."
    epochs = about["steps"] * max(batches, default=0) / about["train_rows"]
    yield (
        f"Teacher: `{teacher['name']}`, {teacher['parameters'] / 1e6:.1f} M parameters, {teacher['accuracy']:.4f} on "
        f"the {about['dev_rows']:,} rows of dev; {about['train_rows']:,} rows of train."
    )
    yield (
        f"{runs} of {about['planned']} runs, seeds {_listed(seeds)}; {about['steps']:,} steps of {_listed(batches)} "
        f"rows ({epochs:.2f} epochs) each unless it says otherwise; {cpu_minutes:.0f} minutes of one core in all."
    )


def _accuracies(results: Results) -> Iterator[str]:
    """Accuracy and retention of every contender at every ratio."""
    teacher = results.about["teacher"]
    sizes = [f"×{ratio:g} ({teacher['parameters'] / ratio / 1e6:.1f} M)" for ratio in PLAIN]
    yield f"| accuracy on dev (of the teacher's, %) | {' | '.join(sizes)} |"
    yield "|---|" + "---|" * len(PLAIN)
    for contender in ROWS:
        yield f"| {TITLES[contender]} | {' | '.join(_accuracy(results, contender, ratio) for ratio in PLAIN)} |"
    for contender in ("scratch-long", *EXTRA):
        if any(results.of(contender, ratio) for ratio in PLAIN):
            yield f"| {TITLES[contender]} | {' | '.join(_accuracy(results, contender, ratio) for ratio in PLAIN)} |"
    for title, suffix in (("*peak learning rate*", ""), ("*† where this one was the better*", OWN_RATE)):
        rates = [{o.learning_rate for name in ROWS for o in results.of(name + suffix, ratio)} for ratio in PLAIN]
        yield f"| {title} | {' | '.join(_listed(sorted(rate)) or MISSING for rate in rates)} |"


def _margins(results: Results) -> Iterator[str]:
    """By how many points LadaBERT is ahead of each baseline."""
    yield f"| LadaBERT ahead by, points of accuracy | {' | '.join(f'×{ratio:g}' for ratio in PLAIN)} |"
    yield "|---|" + "---|" * len(PLAIN)
    for other in ("plain", *BASELINES):
        margins = [results.margin("ladabert", other, ratio) for ratio in PLAIN]
        cells = [MISSING if margin is None else f"{100 * margin:+.1f}" for margin in margins]
        yield f"| {TITLES[other]} | {' | '.join(cells)} |"


def _claims(results: Results) -> Iterator[str]:
    """What the paper claims, and whether it holds here."""
    yield "| claim | measured | |"
    yield "|---|---|---|"
    for ratio in PLAIN:
        margins = {TITLES[other]: results.margin("ladabert", other, ratio) for other in BASELINES}
        present = {title: margin for title, margin in margins.items() if margin is not None}
        claim = f"×{ratio:g}: LadaBERT is at least as good as each of the {len(margins)} baselines"
        if not present:
            yield f"| {claim} | {MISSING} | not measured |"
            continue
        closest = min(present, key=lambda title: present[title])
        wanted = (*BASELINES, *(name + OWN_RATE for name in BASELINES if name in WITH_OWN_RATE))
        complete = all(results.of(name, ratio) for name in wanted)
        verdict = "no" if present[closest] < 0 else "yes" if complete else "so far"
        yield f"| {claim} | closest: {closest}, {100 * present[closest]:+.1f} points | {verdict} |"
    yield _curve_claim(results)


def _curve_claim(results: Results) -> str:
    claim = (
        f"×{CURVE_RATIO:g}: LadaBERT reaches the best accuracy of the from-scratch student ({LONG_SCRATCH} times the "
        "steps) in at most a tenth of the steps that it took"
    )
    scratch = results.curve("scratch-long", CURVE_RATIO)
    runs = results.of("ladabert", CURVE_RATIO)
    if not scratch or not runs:
        return f"| {claim} | {MISSING} | not measured |"
    best_step, best = max(scratch, key=lambda point: (point[1], -point[0]))
    # Before the last cut the student is larger than its ratio allows, so its accuracy does not count.
    full_size_from = max(run.full_size_from_step for run in runs)
    reached = [
        step for step, right in results.curve("ladabert", CURVE_RATIO) if step > full_size_from and right >= best
    ]
    told = f"from scratch {best:.4f} at step {best_step:,}; "
    if not reached:
        return f"| {claim} | {told}LadaBERT never | no |"
    verdict = "yes" if reached[0] <= best_step / 10 else "no"
    return f"| {claim} | {told}LadaBERT at step {reached[0]:,} (cut to its size at {full_size_from:,}) | {verdict} |"


def _levers(results: Results) -> Iterator[str]:
    """Each lever of the best recipe left out, trained as long."""
    yield "| recipe | accuracy on dev | less than the whole, points | hidden loss, train | prediction loss, train |"
    yield "|---|---|---|---|---|"
    titles = TITLES | {
        "ladabert": f"`best-x{ABLATION_RATIO:g}`",
        "plain": f"all of `{PLAIN[ABLATION_RATIO]}` but its rate",
    }
    for contender in ("ladabert", *ABLATIONS, "plain"):
        runs = results.of(contender, ABLATION_RATIO)
        whole = {run.seed: run.accuracy for run in results.of("ladabert", ABLATION_RATIO)}
        margin = mean(whole[run.seed] - run.accuracy for run in runs if run.seed in whole)
        accuracy = mean(run.accuracy for run in runs)
        losses = [statistics.fmean(run.losses[term] for run in runs) if runs else None for term in TERMS[2:]]
        cells = [MISSING if value is None else f"{value:.3f}" for value in (accuracy, *losses)]
        cells.insert(1, MISSING if margin is None or contender == "ladabert" else f"{100 * margin:.1f}")
        yield f"| {titles[contender]} | {' | '.join(cells)} |"


def _cuts(results: Results) -> Iterator[str]:
    yield f"| cut at once to its ratio, not trained | {' | '.join(TERMS)} |"
    yield "|---|" + "---|" * len(TERMS)
    found = {cut.title: cut.losses for cut in results.cuts}
    for title, _, _ in VARIANTS:
        cells = [f"{found[title][term]:.3f}" if title in found else MISSING for term in TERMS]
        yield f"| {title} | {' | '.join(cells)} |"


def _accuracy(results: Results, contender: str, ratio: float) -> str:
    runs = results.best(contender, ratio)
    if not runs:
        return MISSING
    values = [run.accuracy for run in runs]
    middle = statistics.fmean(values)
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    mark = "†" if runs[0].contender.endswith(OWN_RATE) else ""
    return f"{middle:.4f}{mark}{spread} ({100 * middle / results.about['teacher']['accuracy']:.1f})"


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--page", type=Path, help="write the figures into this page instead of printing them")
    parser.add_argument("--images", type=Path, help="write the plots into this folder")
    options = parser.parse_args()
    results = Results.load(options.results)
    if options.images is not None:
        plot_sizes(results, options.images / "evidence-sizes.svg")
        plot_curve(results, options.images / "evidence-curve.svg")
    if options.page is not None:
        page = put_into(options.page.read_text(encoding="utf-8"), sections(results))
        options.page.write_text(page, encoding="utf-8")
    else:
        print("\n".join(sections(results).values()), end="")


if __name__ == "__main__":
    main()
