"""A cascade while callers overload the server, hang up, and an operator stops it."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.callers import leave
from benchmarks.faults.report import Options, Report
from benchmarks.harness.load import OpenLoop, closed_loop, meanwhile
from benchmarks.harness.metrics import Scrape, adds_up, settled
from benchmarks.harness.servers import our_service
from benchmarks.harness.statistics import milliseconds
from benchmarks.harness.texts import Texts
from ladabert_compress.cli.main import main as ladabert_compress

NAME, STAGES = "cascade", ("sst2-latency-x4.7", "sst2-x2.5")
ESCALATED = 0.4
ROWS = 400
QUEUE_MS = 250
CALLERS = 32
FACTOR = 2
STOP_S = 5.0  # far less than the default grace period


@contextlib.contextmanager
def with_cascade(models: Path) -> Iterator[Path]:
    """Return a folder with a cascade of two bundled models; two texts in five go on."""
    with tempfile.TemporaryDirectory(prefix="ladabert-benchmark-") as folder:
        copies = [Path(shutil.copytree(models / stage, Path(folder) / "models" / stage)) for stage in STAGES]
        rows = Path(folder) / "rows.txt"
        rows.write_text("\n".join(Texts().texts(ROWS, 5, 30)) + "\n", encoding="utf-8")
        options = ["--data", str(rows), "--target", f"escalated={ESCALATED}"]
        ladabert_compress(["cascade", "--stages", *map(str, copies), "--out", str(copies[0].with_name(NAME)), *options])
        yield copies[0].parent


async def cascade(options: Options) -> Report:
    """Twice the load, and callers who hang up: nobody notices, and every text is counted once in every stage."""
    report, texts = Report(), Texts()
    settings = {"default_model": NAME, "cascade_overload": "degrade", "max_queue_ms": QUEUE_MS}
    with with_cascade(options.models) as models:
        async with our_service(models, settings) as server:
            capacity = (await closed_loop(server.port, texts.short(), CALLERS, 3, warm_up_s=1)).rate
            page = await settled(server.port)
            report.check("every text has one answer of one stage", *_answered(page))
            report.check("every text that goes on is answered by the next stage, or degraded", *_gone_on(page, 0))
            loop = OpenLoop(server.port, texts.short(), FACTOR * capacity, options.duration_s(30, 10))
            async with meanwhile(leave(server.port)):
                await loop.send(CALLERS)
            answers = await loop.answers()
            both = len(answers.of(200, 429)) == len(answers.all)
            report.check("overload: every answer is 200 or 429", answers.statuses(), both)
            page = await settled(server.port)
            left = page.total("ladabert_rejected_total", model=NAME)
            report.check("overload: every text has one answer of one stage", *_answered(page))
            report.check("overload: what went on is answered, degraded, or its caller left", *_gone_on(page, left))
            await closed_loop(server.port, texts.short(), CALLERS, 1)
            code, seconds = await server.stop()
            ended = f"exit {code} after {milliseconds(seconds)}"
            report.check(f"SIGTERM: exit 0 in {STOP_S:g} s", ended, code == 0 and seconds < STOP_S)
    return report


def _answered(page: Scrape) -> tuple[str, bool]:
    predicted = page.total("ladabert_predictions_total", model=NAME)
    answers = {f"by {stage}": page.total("ladabert_cascade_answers_total", model=NAME, stage=stage) for stage in STAGES}
    return adds_up(predicted, answers)


def _gone_on(page: Scrape, most_lost: float) -> tuple[str, bool]:
    """Return how many texts went on and what became of them, and whether at most so many are missing."""
    gone_on = page.total("ladabert_cascade_escalated_total", model=NAME)
    degraded = page.total("ladabert_cascade_degraded_total", model=NAME)
    answered = page.total("ladabert_cascade_answers_total", model=NAME, stage=STAGES[1])
    told = f"{gone_on:g} went on: {answered:g} answered, {degraded:g} degraded"
    return told, 0 <= gone_on - answered - degraded <= most_lost and gone_on > 0
