"""What the comparison found, as a page shows it: accuracies, margins, claims, levers, cuts, and two plots."""

import statistics
from collections.abc import Iterable, Iterator

from benchmarks.evidence.contenders import (
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
from benchmarks.evidence.cuts import VARIANTS
from benchmarks.harness.pages import MISSING, listed, table
from benchmarks.harness.plots import IMAGES, draw_line, new_figure, save
from benchmarks.harness.results import Results, Row

OURS = "ladabert"
ROWS = (OURS, "plain", *BASELINES)
EXTRA = ("scratch-long", "pruning-distilled", "factorisation-distilled")
TERMS = ("embedding", "attention", "hidden", "prediction")
COLOURS = dict(zip(ROWS, ("#c1272d", "#e8998d", "#1f77b4", "#2ca02c", "#9467bd", "#777777"), strict=True))
COLOURS["scratch-long"] = COLOURS["scratch"]


def sections(results: Results) -> dict[str, str]:
    """Return each generated part of the page by its name."""
    evidence = ["\n".join(_about(results)) + "\n", _accuracies(results), _margins(results), _claims(results)]
    return {"evidence": "\n".join(evidence), "levers": _levers(results), "cuts": _cuts(results)}


def of(results: Results, contender: str, ratio: float) -> list[Row]:
    """Return the contender's runs at a ratio, by seed."""
    return sorted(results.rows("outcomes", contender=contender, ratio=ratio), key=lambda row: int(row["seed"]))


def best(results: Results, contender: str, ratio: float) -> list[Row]:
    """Return the contender's runs at the better of its two learning rates, by the mean over the seeds."""
    both = of(results, contender, ratio), of(results, contender + OWN_RATE, ratio)
    return max(both, key=lambda runs: mean(run["accuracy"] for run in runs) or 0.0)


def margin(results: Results, contender: str, other: str, ratio: float) -> float | None:
    """Return the mean of the first one's accuracy less the other's best, over the seeds that both have."""
    others = {run["seed"]: run["accuracy"] for run in best(results, other, ratio)}
    own = of(results, contender, ratio)
    return mean(run["accuracy"] - others[run["seed"]] for run in own if run["seed"] in others)


def curve(results: Results, contender: str, ratio: float) -> list[tuple[int, float]]:
    """Return step and accuracy, the mean over the seeds."""
    by_step: dict[int, list[float]] = {}
    for run in of(results, contender, ratio):
        for step, right in run["curve"]:
            by_step.setdefault(step, []).append(right)
    return [(step, statistics.fmean(values)) for step, values in sorted(by_step.items())]


def mean(values: Iterable[float]) -> float | None:
    """Return the mean, or ``None`` of nothing."""
    present = list(values)
    return statistics.fmean(present) if present else None


def draw(results: Results, suffix: str) -> None:
    """Draw accuracy against size (the paper's figure 1) and against steps (its figures 3 and 4)."""
    teacher = results.settings["teacher"]
    figure, grid = new_figure(7, 4.5)
    axes = grid[0][0]
    for contender in ROWS:
        runs = [found for ratio in PLAIN if (found := best(results, contender, ratio))]
        sizes = [statistics.fmean(run["nonzero_parameters"] for run in found) / 1e6 for found in runs]
        accuracies = [statistics.fmean(run["accuracy"] for run in found) for found in runs]
        if runs:
            titled = {"ours": contender == OURS, "dots": True}
            draw_line(axes, sizes, accuracies, TITLES[contender], COLOURS[contender], **titled)
    millions = teacher["parameters"] / 1e6
    axes.plot(millions, teacher["accuracy"], marker="*", markersize=13, color="black", linestyle="")
    axes.annotate("teacher", (millions, teacher["accuracy"]), (-8, 8), textcoords="offset points")
    axes.set(xscale="log", xlabel="non-zero parameters", ylabel="accuracy on dev")
    ticks = [millions / ratio for ratio in (*PLAIN, 1.0)]
    axes.set_xticks(ticks, [f"{tick:.1f} M" for tick in ticks])
    axes.minorticks_off()
    save(figure, IMAGES / f"evidence-sizes{suffix}.svg")

    figure, grid = new_figure(7, 4.5)
    axes = grid[0][0]
    for contender in (OURS, "plain", "scratch-long"):
        points = curve(results, contender, CURVE_RATIO)
        if points:
            steps, accuracies = [step for step, _ in points], [right for _, right in points]
            titled = {"ours": contender == OURS, "dots": False}
            draw_line(axes, steps, accuracies, TITLES[contender], COLOURS[contender], **titled)
        if points and contender == OURS:
            cut = max(run["full_size_from_step"] for run in of(results, contender, CURVE_RATIO))
            axes.axvline(cut, color=COLOURS[OURS], linestyle=":", linewidth=1, label=f"cut to ×{CURVE_RATIO:g}")
    axes.axhline(teacher["accuracy"], color="black", linestyle="--", linewidth=1, label="teacher")
    axes.set(xscale="log", xlabel=f"steps (×{CURVE_RATIO:g})", ylabel="accuracy on dev")
    save(figure, IMAGES / f"evidence-curve{suffix}.svg")


def _about(results: Results) -> Iterator[str]:
    about, teacher, runs = results.settings, results.settings["teacher"], results.rows("outcomes")
    batches, seeds = sorted({run["batch_size"] for run in runs}), sorted({run["seed"] for run in runs})
    cpu_minutes = sum(run["cpu_seconds"] for run in runs) / 60
    yield f"{results.told()}, {results.origin['machine']}."
    epochs = about["steps"] * max(batches, default=0) / about["train_rows"]
    yield (
        f"Teacher: `{teacher['name']}`, {teacher['parameters'] / 1e6:.1f} M parameters, {teacher['accuracy']:.4f} on "
        f"the {about['dev_rows']:,} rows of dev; {about['train_rows']:,} rows of train."
    )
    yield (
        f"{len(runs)} of {about['planned']} runs, seeds {listed(seeds)}; {about['steps']:,} steps of {listed(batches)} "
        f"rows ({epochs:.2f} epochs) each unless it says otherwise; {cpu_minutes:.0f} minutes of one core in all."
    )


def _accuracies(results: Results) -> str:
    """Return accuracy and retention of every contender at every ratio."""
    parameters = results.settings["teacher"]["parameters"]
    sizes = [f"×{ratio:g} ({parameters / ratio / 1e6:.1f} M)" for ratio in PLAIN]
    shown = [*ROWS, *(name for name in EXTRA if any(of(results, name, ratio) for ratio in PLAIN))]
    rows = [[TITLES[name], *(_accuracy(results, name, ratio) for ratio in PLAIN)] for name in shown]
    for title, suffix in (("*peak learning rate*", ""), ("*† where this one was the better*", OWN_RATE)):
        rates = [{run["learning_rate"] for name in ROWS for run in of(results, name + suffix, r)} for r in PLAIN]
        rows.append([title, *(listed(sorted(rate)) or MISSING for rate in rates)])
    return table(["accuracy on dev (of the teacher's, %)", *sizes], rows)


def _margins(results: Results) -> str:
    """Return by how many points LadaBERT is ahead of each baseline."""
    rows = []
    for other in ("plain", *BASELINES):
        margins = [margin(results, OURS, other, ratio) for ratio in PLAIN]
        rows.append([TITLES[other], *(MISSING if value is None else f"{100 * value:+.1f}" for value in margins)])
    return table(["LadaBERT ahead by, points of accuracy", *(f"×{ratio:g}" for ratio in PLAIN)], rows)


def _claims(results: Results) -> str:
    """Return what the paper claims, and whether it holds here."""
    rows = []
    for ratio in PLAIN:
        margins = {TITLES[other]: margin(results, OURS, other, ratio) for other in BASELINES}
        present = {title: value for title, value in margins.items() if value is not None}
        claim = f"×{ratio:g}: LadaBERT is at least as good as each of the {len(margins)} baselines"
        if not present:
            rows.append([claim, MISSING, "not measured"])
            continue
        closest = min(present, key=lambda title: present[title])
        wanted = (*BASELINES, *(name + OWN_RATE for name in BASELINES if name in WITH_OWN_RATE))
        complete = all(of(results, name, ratio) for name in wanted)
        verdict = "no" if present[closest] < 0 else "yes" if complete else "so far"
        rows.append([claim, f"closest: {closest}, {100 * present[closest]:+.1f} points", verdict])
    return table(["claim", "measured", ""], [*rows, _curve_claim(results)])


def _curve_claim(results: Results) -> list[str]:
    claim = (
        f"×{CURVE_RATIO:g}: LadaBERT reaches the best accuracy of the from-scratch student ({LONG_SCRATCH} times the "
        "steps) in at most a tenth of the steps that it took"
    )
    scratch, runs = curve(results, "scratch-long", CURVE_RATIO), of(results, OURS, CURVE_RATIO)
    if not scratch or not runs:
        return [claim, MISSING, "not measured"]
    best_step, most = max(scratch, key=lambda point: (point[1], -point[0]))
    # Before the last cut the student is larger than its ratio allows, so its accuracy does not count.
    cut_at = max(run["full_size_from_step"] for run in runs)
    reached = [step for step, right in curve(results, OURS, CURVE_RATIO) if step > cut_at and right >= most]
    told = f"from scratch {most:.4f} at step {best_step:,}; "
    if not reached:
        return [claim, f"{told}LadaBERT never", "no"]
    verdict = "yes" if reached[0] <= best_step / 10 else "no"
    return [claim, f"{told}LadaBERT at step {reached[0]:,} (cut to its size at {cut_at:,})", verdict]


def _levers(results: Results) -> str:
    """Return each lever of the best recipe left out, trained as long."""
    titles = TITLES | {OURS: f"`best-x{ABLATION_RATIO:g}`", "plain": f"all of `{PLAIN[ABLATION_RATIO]}` but its rate"}
    whole = {run["seed"]: run["accuracy"] for run in of(results, OURS, ABLATION_RATIO)}
    rows = []
    for contender in (OURS, *ABLATIONS, "plain"):
        runs = of(results, contender, ABLATION_RATIO)
        less = mean(whole[run["seed"]] - run["accuracy"] for run in runs if run["seed"] in whole)
        figures = [
            mean(run["accuracy"] for run in runs),
            *(mean(run["losses"][term] for run in runs) for term in TERMS[2:]),
        ]
        cells = [MISSING if value is None else f"{value:.3f}" for value in figures]
        cells.insert(1, MISSING if less is None or contender == OURS else f"{100 * less:.1f}")
        rows.append([titles[contender], *cells])
    losses = ["hidden loss, train", "prediction loss, train"]
    return table(["recipe", "accuracy on dev", "less than the whole, points", *losses], rows)


def _cuts(results: Results) -> str:
    found = {row["title"]: row["losses"] for row in results.rows("cuts")}
    rows = []
    for title, _, _ in VARIANTS:
        losses = found.get(title, {})
        rows.append([title, *(f"{losses[term]:.3f}" if term in losses else MISSING for term in TERMS)])
    return table(["cut at once to its ratio, not trained", *TERMS], rows)


def _accuracy(results: Results, contender: str, ratio: float) -> str:
    runs = best(results, contender, ratio)
    if not runs:
        return MISSING
    values = [run["accuracy"] for run in runs]
    middle = statistics.fmean(values)
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    mark = "†" if runs[0]["contender"].endswith(OWN_RATE) else ""
    return f"{middle:.4f}{mark}{spread} ({100 * middle / results.settings['teacher']['accuracy']:.1f})"
