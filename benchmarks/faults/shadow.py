"""A shadow that cannot keep up, while callers overload the server, hang up, and an operator stops it."""

import asyncio
import time

from benchmarks.faults.callers import leave
from benchmarks.faults.report import Options, Report
from benchmarks.harness.load import OpenLoop, closed_loop, meanwhile
from benchmarks.harness.metrics import Scrape, adds_up, scrape, settled
from benchmarks.harness.servers import our_service
from benchmarks.harness.statistics import milliseconds
from benchmarks.harness.texts import Texts

MODEL, SHADOW = "sst2-x10", "sst2-x2.5"  # twice what the fastest can answer is more than the generator can send
QUEUE_MS = 250
CALLERS = 32
FACTOR = 2
CATCH_UP_S = 30.0
STOP_S = 5.0  # far less than the default grace period
SETTINGS = {"default_model": MODEL, "shadow_model": SHADOW, "shadow_rate": 1, "max_queue_ms": QUEUE_MS}


async def shadow(options: Options) -> Report:
    """Every text sampled, twice the load, and callers who hang up: nobody notices, and every text is counted once."""
    report, texts = Report(), Texts()
    async with our_service(options.models, SETTINGS) as server:
        capacity = (await closed_loop(server.port, texts.short(), CALLERS, 3, warm_up_s=1)).rate
        loop = OpenLoop(server.port, texts.short(), FACTOR * capacity, options.duration_s(30, 10))
        async with meanwhile(leave(server.port)):
            await loop.send(CALLERS)
        answers = await loop.answers()
        report.check("every answer is 200 or 429", answers.statuses(), len(answers.of(200, 429)) == len(answers.all))
        page = await settled(server.port)
        report.check("every text predicted is compared, dropped or waits", *_counted(page))
        began = time.perf_counter()
        while page.total("ladabert_shadow_waiting") and time.perf_counter() < began + CATCH_UP_S:
            await asyncio.sleep(0.1)
            page = await scrape(server.port)
        waiting = page.total("ladabert_shadow_waiting")
        caught_up = f"{waiting:g} wait after {milliseconds(time.perf_counter() - began)}"
        report.check("in idle time the shadow catches up", caught_up, waiting == 0)
        report.check("then every text predicted is compared or dropped", *_counted(page))
        await closed_loop(server.port, texts.short(), CALLERS, 1)
        code, seconds = await server.stop()
        ended = f"exit {code} after {milliseconds(seconds)}"
        report.check(f"SIGTERM while texts wait for it: exit 0 in {STOP_S:g} s", ended, code == 0 and seconds < STOP_S)
    return report


def _counted(page: Scrape) -> tuple[str, bool]:
    predicted = page.total("ladabert_predictions_total", model=MODEL)
    became = {"compared": "agreement_total", "dropped": "dropped_total", "wait": "waiting"}
    return adds_up(
        predicted, {word: page.total(f"ladabert_shadow_{name}", model=MODEL) for word, name in became.items()}
    )
