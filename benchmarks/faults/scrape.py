"""The server's /metrics, parsed, and compared with what its callers saw."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.faults.client import Answer, ask, get

Series = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Scrape:
    """Every series' value at one moment."""

    values: dict[Series, float]

    def total(self, name: str, **labels: str) -> float:
        """Sum of all series of a name whose labels have these values."""
        wanted = set(labels.items())
        return sum(value for (found, pairs), value in self.values.items() if found == name and wanted <= pairs)

    def grown(self, before: "Scrape", name: str, **labels: str) -> float:
        """By how much that sum grew since an earlier scrape."""
        return self.total(name, **labels) - before.total(name, **labels)

    @property
    def taken_in(self) -> float:
        """Requests that were answered or are in progress."""
        return self.total("ladabert_requests_total") + self.total("ladabert_requests_in_progress")


def parse(text: str) -> Scrape:
    """Parse Prometheus' text format."""
    return Scrape(
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    )


async def scrape(port: int) -> Scrape:
    """Ask a server for its metrics; raises ValueError unless it gives them."""
    answer = await ask(port, get("/metrics"))
    if answer.status != 200:
        raise ValueError(f"/metrics answered {answer.status}")
    return parse(answer.body.decode())


async def settled(port: int, timeout_s: float = 30.0) -> Scrape:
    """Scrape until no request is in progress, or the time is over."""
    end = time.perf_counter() + timeout_s
    while True:
        page = await scrape(port)
        if page.total("ladabert_requests_in_progress") == 0 or time.perf_counter() > end:
            return page
        await asyncio.sleep(0.05)


REJECTIONS = {429: "queue_full", 504: "deadline"}


def disagreements(answers: Iterable[Answer], before: Scrape, after: Scrape) -> list[str]:
    """Where the metrics' growth differs from what the callers counted, one line each."""
    counted = Counter(str(answer.status) for answer in answers if answer.status)
    statuses = {
        dict(labels)["status"] for name, labels in after.values if name == "ladabert_requests_total"
    } | counted.keys()
    pairs = [(f"status {status}", "ladabert_requests_total", {"status": status}, status) for status in sorted(statuses)]
    pairs += [
        (f"reason {reason}", "ladabert_rejected_total", {"reason": reason}, str(status))
        for status, reason in REJECTIONS.items()
    ]
    lines = []
    for what, name, labels, status in pairs:
        grown = after.grown(before, name, **labels)
        if grown != counted[status]:
            lines.append(f"{what}: {grown:g} in the metrics, {counted[status]} answers")
    return lines


def texts_computed(before: Scrape, after: Scrape) -> int:
    """Texts that runners took between two scrapes."""
    return round(after.grown(before, "ladabert_batch_size_sum"))
