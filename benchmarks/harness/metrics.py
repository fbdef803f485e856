"""The server's /metrics: read, summed, and compared with what its callers saw."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.harness.client import Answer, ask, get

Series = tuple[str, frozenset[tuple[str, str]]]
REJECTIONS = {429: "queue_full", 504: "deadline"}
MONOTONIC = ("_total", "_count", "_sum", "_bucket")


@dataclass(frozen=True, slots=True)
class Scrape:
    """Every series' value at one moment."""

    values: dict[Series, float]

    @classmethod
    def parse(cls, text: str) -> "Scrape":
        """Read Prometheus' text format."""
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return cls({(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples})

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all series of a name whose labels have these values."""
        wanted = set(labels.items())
        return sum(value for (found, pairs), value in self.values.items() if found == name and wanted <= pairs)

    def grown(self, before: "Scrape", name: str, **labels: str) -> float:
        """Return by how much that sum grew since an earlier scrape."""
        return self.total(name, **labels) - before.total(name, **labels)

    def texts_since(self, before: "Scrape", model: str | None = None) -> int:
        """Return the texts that runners took since an earlier scrape, of one model or of all.

        A text of a cascade is taken once by each of its stages, so that those of the first are counted.
        """
        labels = {} if model is None else {"model": model}
        return round(self.grown(before, "ladabert_batch_size_sum", **labels))

    @property
    def taken_in(self) -> float:
        """Requests that were answered or are in progress."""
        return self.total("ladabert_requests_total") + self.total("ladabert_requests_in_progress")


async def scrape(port: int) -> Scrape:
    """Ask a server for its metrics; raises ValueError unless it gives them."""
    answer = await ask(port, get("/metrics"))
    if answer.status != 200:
        raise ValueError(f"/metrics answered {answer.status}")
    return Scrape.parse(answer.body.decode())


async def settled(port: int, timeout_s: float = 30.0) -> Scrape:
    """Scrape until no request is in progress, or the time is over."""
    end = time.perf_counter() + timeout_s
    while True:
        page = await scrape(port)
        if page.total("ladabert_requests_in_progress") == 0 or time.perf_counter() > end:
            return page
        await asyncio.sleep(0.05)


def disagreements(answers: Iterable[Answer], before: Scrape, after: Scrape) -> list[str]:
    """Return where the metrics' growth differs from what the callers counted, one line each."""
    counted = Counter(str(answer.status) for answer in answers if answer.status)
    known = {dict(labels)["status"] for name, labels in after.values if name == "ladabert_requests_total"}
    grown = {
        f"status {status}": (after.grown(before, "ladabert_requests_total", status=status), counted[status])
        for status in sorted(known | counted.keys())
    }
    for status, reason in REJECTIONS.items():
        rejected = after.grown(before, "ladabert_rejected_total", reason=reason)
        grown[f"reason {reason}"] = (rejected, counted[str(status)])
    return [f"{what}: {told:g} in the metrics, {seen} answers" for what, (told, seen) in grown.items() if told != seen]


def adds_up(whole: float, parts: Mapping[str, float]) -> tuple[str, bool]:
    """Return how many texts were predicted and what became of them, and whether these add up."""
    told = ", ".join(f"{count:g} {name}" for name, count in parts.items())
    return f"{whole:g} predicted: {told}", whole == sum(parts.values()) > 0


def falls(pages: Sequence[Scrape]) -> list[str]:
    """Return the counters that went down and the series that went from one page to the next, one line each.

    A worker's own CPU time and memory are left out: they end with its process.
    """
    lines = []
    for earlier, later in itertools.pairwise(pages):
        for series, value in earlier.values.items():
            name = series[0]
            if name.startswith("ladabert_worker_"):
                continue
            if series not in later.values:
                lines.append(f"{name} went")
            elif name.endswith(MONOTONIC) and later.values[series] < value:
                lines.append(f"{name} fell from {value:g} to {later.values[series]:g}")
    return lines
