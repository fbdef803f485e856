"""The card of a cascade, README.md: its manifest in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ladabert_compress.artefact.card import LISTED_LABELS, code, how_to_serve

CURVE_ROWS = 15


def cascade_card(manifest: Mapping[str, Any]) -> str:
    """What a person wants to know: stages, use, figures, the curve, limits."""
    parts = (_what_it_is, _use, _figures, _curve, _limits)
    return "\n".join(line for part in parts for line in (*part(manifest), "")).rstrip("\n") + "\n"


def _what_it_is(manifest: Mapping[str, Any]) -> Iterator[str]:
    stages, target = manifest["cascade"]["stages"], manifest["cascade"]["target"]
    what = "pairs of texts" if manifest["task"] == "pair" else "texts"
    labels = ", ".join(map(code, manifest["labels"][:LISTED_LABELS]))
    more = len(manifest["labels"]) - LISTED_LABELS
    yield "---"
    yield "pipeline_tag: text-classification"
    yield "tags: [ladabert, onnx, cascade]"
    yield "---"
    yield f"# {manifest['name']}"
    yield ""
    yield (
        f"A cascade of {what}' classifiers. It asks {', then '.join(code(stage['name']) for stage in stages)}, until "
        f"one is sure enough. Its thresholds were chosen for {target['measure']} = {target['value']:g}."
    )
    yield ""
    yield f"It gives each input one of these labels: {labels}" + (f" and {more:,} more." if more > 0 else ".")


def _use(manifest: Mapping[str, Any]) -> Iterator[str]:
    yield from how_to_serve(manifest, "this folder and those of its stages")


def _figures(manifest: Mapping[str, Any]) -> Iterator[str]:
    figures = manifest["evaluation"]
    yield "## Figures"
    yield ""
    yield (
        f"Table: {figures['rows']:,} rows of {code(figures['data_set'])}, with intervals of 95 %. "
        f"The thresholds were chosen on {figures['rows_chosen_on']:,} others."
    )
    yield ""
    yield "| | measured |"
    yield "|---|---|"
    yield f"| agreement with the last stage | {_interval(figures['agreement'])} |"
    if "accuracy" in figures:
        yield f"| accuracy | {_interval(figures['accuracy'])} |"
        yield f"| accuracy of the last stage alone | {figures['last_accuracy']:.2%} |"
    yield f"| share that goes on from the first stage | {_interval(figures['escalated'])} |"
    for stage, share, cost in zip(manifest["cascade"]["stages"], figures["stages"], figures["median_ms"], strict=True):
        yield f"| answered by {code(stage['name'])}, {cost:.3f} ms a text | {share:.2%} |"
    yield f"| expected time a text | {expected_ms(manifest):.3f} ms |"


def _curve(manifest: Mapping[str, Any]) -> Iterator[str]:
    curve = manifest["evaluation"]["curve"]
    labelled = "accuracy" in manifest["evaluation"]
    step = max(1, -(-len(curve) // CURVE_ROWS))
    yield "## Other thresholds"
    yield ""
    yield "Table: what other thresholds would give on the same rows. Milliseconds are those of one text on one thread."
    yield ""
    yield f"| goes on | agreement | {'accuracy | ' if labelled else ''}ms |"
    yield f"|---|---|{'---|' if labelled else ''}---|"
    for point in curve[::step]:
        accuracy = f"{point['accuracy']:.2%} | " if labelled else ""
        yield f"| {point['escalated']:.1%} | {point['agreement']:.2%} | {accuracy}{point['mean_ms']:.3f} |"


def _limits(manifest: Mapping[str, Any]) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield "- It works with these very stages; a server refuses others of the same names."
    yield f"- The figures are about rows like those of {code(manifest['evaluation']['data_set'])}."
    yield "- Where the last stage is wrong, so is a cascade that agrees with it."
    yield "- Licences are those of the stages."


def expected_ms(manifest: Mapping[str, Any]) -> float:
    """The mean milliseconds of a text, which costs what each stage costs that is asked."""
    figures, spent, mean = manifest["evaluation"], 0.0, 0.0
    for share, cost in zip(figures["stages"], figures["median_ms"], strict=True):
        spent += cost
        mean += share * spent
    return mean


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.2%} ({figure['low']:.2%} to {figure['high']:.2%})"
