"""Models replaced under load, and several models beside each other.

python -m benchmarks repository [--replacements 20] [--rounds 5] [--seconds 4] [--write]

Replacements: 32 callers ask for one model while its folder is swapped for another student's and loaded by Triton's
route, again and again. Each answer is held to the version that it names. Beside: a server with every bundled model
against one with a single model, both with traffic to that one model; and the fast model's callers while all models have
traffic at half of what the machine can do, against that model alone at the same rate and at half of what it can do.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import secrets
import shutil
import statistics
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.client import Answer, ask, classify, get, post
from benchmarks.harness.load import Answers, OpenLoop, closed_loop, meanwhile
from benchmarks.harness.pages import table
from benchmarks.harness.results import Results, origin
from benchmarks.harness.servers import Samples, Server, our_service
from benchmarks.harness.statistics import percentile, turns
from benchmarks.harness.texts import Texts
from ladabert_serve.cores import available_cores
from ladabert_serve.http.api_keys import format_line

CALLERS = 32
KEY = secrets.token_urlsafe(32)  # of this run alone
KEYS = format_line("benchmark", KEY, ["admin"])
NAME = "replaced"
STUDENTS = ("sst2-latency-x4.7", "sst2-x10")  # that take each other's place
FAST = "sst2-latency-x4.7"
VARIETY = 50  # texts whose answers by each version are known
PAUSE_S = 0.5  # between two replacements
LOAD = 0.5  # of what the server with all models can do
WARM_UP_S = 1.0
SAME_SCORE = 1e-4
SAMPLE_S = 0.25


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="the bundled artefacts")
    parser.add_argument("--replacements", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each point (default: %(default)s)")


def measure(options: argparse.Namespace) -> Results:
    """Measure all three."""
    return asyncio.run(_measure(options))


async def _measure(options: argparse.Namespace) -> Results:
    settings = {"callers": CALLERS, "seconds": options.seconds, "students": list(STUDENTS), "fast": FAST, "load": LOAD}
    results = Results("repository", origin(), settings)
    await _replace(results, options)
    await _beside(results, options)
    return results


async def _replace(results: Results, options: argparse.Namespace) -> None:
    texts = Texts().texts(VARIETY, 5, 30)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "models"
        _put(options.models / STUDENTS[0], folder)
        async with _service(folder) as server:
            expected: dict[str, dict[str, tuple[str, float]]] = {}
            for student in (*STUDENTS[1:], STUDENTS[0]):  # so that each was loaded once before memory is looked at
                await _load(server, options.models / student, folder)
                answers = [await ask(server.port, _with_key(classify(text))) for text in texts]
                expected[_version(answers[0])] = dict(zip(texts, map(_prediction, answers), strict=True))
            samples = Samples()
            requests = itertools.cycle([_with_key(classify(text)) for text in texts])
            load_s = options.replacements * (PAUSE_S + 1.0)
            loaded: list[tuple[float, int]] = []

            async def replace() -> None:
                for number in range(options.replacements):
                    await asyncio.sleep(PAUSE_S)
                    answer = await _load(server, options.models / STUDENTS[(number + 1) % 2], folder)
                    loaded.append((answer.seconds, server.rss_bytes()))

            async with meanwhile(samples.take(server, SAMPLE_S)):
                replacing = asyncio.create_task(replace())
                answers_under_load = await closed_loop(server.port, requests, CALLERS, load_s)
                await replacing
                # As many answers of each version before and after, or the allocator's own state would be compared.
                await closed_loop(server.port, requests, CALLERS, WARM_UP_S)
    wrong = sum(not _is_same(answer, expected.get(_version(answer), {})) for answer in answers_under_load.of(200))
    rss = [size for _, size in loaded]
    results.add(
        "replacements",
        replacements=len(loaded),
        requests=len(answers_under_load.all),
        failed=answers_under_load.failed,
        wrong=wrong,
        versions=len({_version(answer) for answer in answers_under_load.of(200)}),
        p99_ms=1000 * answers_under_load.percentile_s(99),
        load_s=statistics.median(seconds for seconds, _ in loaded),
        rss_mib_early=statistics.median(rss[1:5]) / 2**20,
        rss_mib_late=statistics.median(rss[-4:]) / 2**20,
    )


async def _beside(results: Results, options: argparse.Namespace) -> None:
    names = sorted(path.name for path in options.models.iterdir() if (path / "manifest.json").exists())
    to_fast = [classify(text) for text in Texts().texts(VARIETY, 5, 30)]
    to_all = [_request(options.models, name, text) for text in Texts().texts(VARIETY, 5, 30) for name in names]
    with tempfile.TemporaryDirectory() as temporary:
        alone = Path(temporary) / "models"
        shutil.copytree(options.models / FAST, alone / FAST)
        settings = {"default_model": FAST, "max_queue_ms": 60000}
        async with (
            our_service(alone, settings) as one,
            our_service(options.models, settings) as many,
        ):
            servers = {"one model": one, "all models": many}
            for server in servers.values():
                await closed_loop(server.port, itertools.cycle(to_fast), CALLERS, WARM_UP_S)
            rate, own_rate = [
                LOAD * (await closed_loop(port, itertools.cycle(requests), CALLERS, options.seconds)).rate
                for port, requests in ((many.port, to_all), (one.port, to_fast))
            ]
            results.settings |= {"models": names, "rate": rate, "own_rate": own_rate, "cores": available_cores()}
            for number, name in turns(options.rounds, list(servers)):
                server = servers[name]
                answers = await closed_loop(server.port, itertools.cycle(to_fast), CALLERS, options.seconds)
                results.add("one", server=name, round=number, requests_per_s=answers.rate, threads=server.threads())
            loads = {
                "one model": (one, to_fast, rate),
                "one model at its own rate": (one, to_fast, own_rate),
                "all models": (many, to_all, rate),
            }
            for number, name in turns(options.rounds, list(loads)):
                server, requests, of_load = loads[name]
                answers, busy = await _at_rate(server, itertools.cycle(requests), of_load, options.seconds)
                fast = percentile((each.seconds for each in answers.of(200) if _model(each) == FAST), 99)
                results.add(
                    "all", server=name, round=number, fast_p99_ms=1000 * fast, failed=answers.failed, most_busy=busy
                )


async def _at_rate(server: Server, requests: Iterator[bytes], rate: float, seconds: float) -> tuple[Answers, float]:
    """Return the answers, and the most runners that were seen busy."""
    busy = [0.0]

    async def look() -> None:
        while True:
            page = (await ask(server.port, get("/metrics"))).body.decode()
            busy.append(float(page.partition("\nladabert_runners_busy ")[2].partition("\n")[0]))
            await asyncio.sleep(SAMPLE_S)

    loop = OpenLoop(server.port, requests, rate, seconds)
    async with meanwhile(look()):
        await loop.send(CALLERS)
        answers = await loop.answers()
    return answers, max(busy)


@contextlib.asynccontextmanager
async def _service(folder: Path) -> AsyncIterator[Server]:
    async with our_service(folder, {"api_keys": KEYS, "max_queue_ms": 60000}) as server:
        yield server


async def _load(server: Server, student: Path, folder: Path) -> Answer:
    """Put a student in the model's place, and load it."""
    _put(student, folder)
    answer = await ask(server.port, _with_key(post(f"/v2/repository/models/{NAME}/load", {})))
    if answer.status != 200:
        raise SystemExit(f"the load was answered {answer.status}: {answer.body.decode()}")
    return answer


def _put(student: Path, folder: Path) -> None:
    """Put a student's files into the model's folder, in one step."""
    new, old = folder / ".new" / NAME, folder / ".old"
    shutil.copytree(student, new)
    manifest = json.loads((new / "manifest.json").read_text())
    (new / "manifest.json").write_text(json.dumps({**manifest, "name": NAME, "aliases": []}))
    if (folder / NAME).exists():
        (folder / NAME).rename(old)
    new.rename(folder / NAME)
    new.parent.rmdir()
    shutil.rmtree(old, ignore_errors=True)


def _request(models: Path, name: str, text: str) -> bytes:
    pair = json.loads((models / name / "manifest.json").read_text())["task"] == "pair"
    return post("/classify", {"model": name, "inputs": {"text": text, "text_pair": text} if pair else text})


def _with_key(request: bytes) -> bytes:
    return request.replace(b"\r\n", f"\r\nauthorization: Bearer {KEY}\r\n".encode(), 1)


def _version(answer: Answer) -> str:
    return str(answer.json()["version"])


def _model(answer: Answer) -> str:
    return str(answer.json()["model"])


def _prediction(answer: Answer) -> tuple[str, float]:
    (prediction,) = answer.json()["predictions"]
    return prediction["label"], prediction["score"]


def _is_same(answer: Answer, expected: dict[str, tuple[str, float]]) -> bool:
    """Whether an answer is what the version that it names answers."""
    text = json.loads(answer.request.partition(b"\r\n\r\n")[2])["inputs"]
    if text not in expected:
        return False
    label, score = expected[text]
    found_label, found_score = _prediction(answer)
    return label == found_label and abs(score - found_score) <= SAME_SCORE


def sections(results: Results) -> dict[str, str]:
    """Return what the page shows."""
    (row,) = results.rows("replacements")
    students = " and ".join(f"`{name}`" for name in results.settings["students"])
    growth = row["rss_mib_late"] / row["rss_mib_early"] - 1
    replaced = [
        ["replacements, with 32 callers", row["replacements"]],
        ["requests answered meanwhile", f"{row['requests']:,}"],
        ["not answered 200", row["failed"]],
        ["another answer than the version's that it names", row["wrong"]],
        ["versions that answered", row["versions"]],
        ["p99 of the callers", f"{row['p99_ms']:.0f} ms"],
        ["a load takes", f"{row['load_s']:.2f} s"],
        ["memory after the last loads over that after the first", f"{growth:+.1%}"],
    ]
    lines = []
    one = _pairs(results, "one", "requests_per_s")
    ratio = statistics.median(many / alone for alone, many in one)
    lines.append(["traffic to one model: requests/s with all models loaded, over that model alone", f"{ratio:.2f}"])
    threads = [results.median("one", "threads", server=name) for name in ("one model", "all models")]
    lines.append(["threads of the process, one model and all", f"{threads[0]:.0f} and {threads[1]:.0f}"])
    for name, of_load in (("one model", "rate"), ("one model at its own rate", "own_rate")):
        fast = _pairs(results, "all", "fast_p99_ms", name)
        ratio = statistics.median(many / alone for alone, many in fast)
        alone_ms, many_ms = (statistics.median(values) for values in zip(*fast, strict=True))
        what = f"p99 of the fast model's callers beside the others ({results.settings['rate']:,.0f} requests/s in all)"
        what += f", over that model alone at {results.settings[of_load]:,.0f} requests/s"
        lines.append([what, f"{ratio:.1f} ({many_ms:.1f} ms, {alone_ms:.1f} ms)"])
    lines.append(["most runners busy at once, of so many cores", _busy(results)])
    lines.append(["requests that failed", sum(results.values("all", "failed"))])
    told = f"Measured by {results.told()}, on {results.origin['machine']}.\n\n"
    return {
        "replacements": f"{students} take each other's place. {told}" + table(["", "measured"], replaced),
        "models-beside": f"{len(results.settings['models'])} models. {told}" + table(["", "measured"], lines),
    }


def _pairs(results: Results, name: str, column: str, alone: str = "one model") -> Sequence[tuple[Any, Any]]:
    return list(zip(*(results.values(name, column, server=server) for server in (alone, "all models")), strict=True))


def _busy(results: Results) -> str:
    return f"{max(results.values('all', 'most_busy')):.0f} of {results.settings['cores']}"
