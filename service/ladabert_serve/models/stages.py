"""What a cascade's manifest says of its stages: which artefacts, and when the answer of one is good enough."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ladabert_serve.models.scores import apply_function

Measure = Literal["score", "margin"]


class Stage(NamedTuple):
    """An artefact that a cascade asks."""

    name: str
    version: str
    file: str  # the graph for which the thresholds were chosen
    sha256: str  # of that graph
    thresholds: Sequence[float] = ()  # for each of the cascade's labels; of the last stage, none


def stages_of(manifest: Mapping[str, Any]) -> tuple[Stage, ...]:
    """Return the stages in the order in which they are asked, none of a manifest that is no cascade's.

    Raises ValueError where a stage has another number of thresholds than there are labels.
    """
    stages = tuple(Stage(**stage) for stage in manifest.get("cascade", {"stages": ()})["stages"])
    for number, stage in enumerate(stages):
        expected = 0 if stage is stages[-1] else len(manifest["labels"])
        if len(stage.thresholds) != expected:
            raise ValueError(
                f"$.cascade.stages[{number}]: {len(stage.thresholds)} thresholds where {expected} belong: one for each "
                "label, and none of the last stage"
            )
    return stages


class Judge:
    """Reads one stage's logits as answers of the cascade, and says whether they are good enough."""

    def __init__(self, stage: Stage, labels: Sequence[str], temperature: float, cascade: Mapping[str, Any]) -> None:
        """`labels` and `temperature` are the stage's own, `cascade` is the manifest of the cascade."""
        self._order = [labels.index(label) for label in cascade["labels"]]
        self._temperature = temperature
        self._thresholds = stage.thresholds
        self._measure: Measure = cascade["cascade"]["measure"]

    def translate(self, logits: Sequence[float]) -> list[float]:
        """Return logits in the order of the cascade's labels, over the stage's temperature."""
        return [logits[index] / self._temperature for index in self._order]

    def judge(self, translated: Sequence[float]) -> tuple[float, bool]:
        """Return how sure the stage is, and whether that is enough; of the last stage everything is."""
        scores = apply_function(translated, "softmax", 1.0)
        first, second = sorted(scores, reverse=True)[:2]
        sure = first if self._measure == "score" else first - second
        return sure, not self._thresholds or sure >= self._thresholds[scores.index(first)]
