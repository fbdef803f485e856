"""The figures of a run as Markdown; `--page` puts them into a page between its two marker comments.

python -m benchmarks.serving.table RESULTS.json [--page docs/performance.md]
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

from benchmarks.serving.contenders import LIMIT, TITLES
from benchmarks.serving.results import Results
from benchmarks.serving.thresholds import GRAPHS, Promise, promises

LOADS = {"sentence": "one sentence a request", "mixed": "mixed lengths, half short and half long"}


def markers(name: str = "figures") -> re.Pattern[str]:
    """What stands between a page's marker comments of this name, the comments included."""
    return re.compile(rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end -->)", re.DOTALL)


MARKERS = markers()


def markdown(results: Results) -> str:
    """Return where the figures come from, the promises and a table for each graph and load."""
    sections = ["\n".join(_about(results)), "\n".join(_promises(promises(results)))]
    for graph, title in GRAPHS.items():
        for load, name in LOADS.items():
            table = list(_loads(results, graph, load))
            if table:
                sections.append(f"### {title}: {name}\n\n" + "\n".join(table))
    sections.append("### Our service alone\n\n" + "\n".join(_specials(results)))
    return "\n\n".join(sections) + "\n"


def put_into(page: str, figures: str, name: str = "figures") -> str:
    """Return the page with these figures between its markers of this name."""
    return markers(name).sub(lambda match: match[1] + figures + match[2], page)


def write_page(page: Path, figures: str) -> None:
    """Put these figures between the markers of a page on disk."""
    page.write_text(put_into(page.read_text(encoding="utf-8"), figures), encoding="utf-8")


def _about(results: Results) -> Iterable[str]:
    about = results.about
    yield f"`{about['command']}`, commit {about['commit']}, {about['date']}."
    yield (
        f"{about['machine']}, {about['cores']} cores; rounds: {about['rounds']}, "
        f"seconds a point: {about['seconds']:g}, sentences: {about['texts']}."
    )
    for key, graph in about["graphs"].items():
        yield (
            f"{GRAPHS[key]}: `{graph['name']}`, {graph['bytes'] / 1e6:.1f} MB, up to {graph['max_length']} tokens, "
            f"batches of {graph['limit_batch_size']} in the in-process limit."
        )
    yield ", ".join(f"{name} {version}" for name, version in about["versions"].items()) + "."


def _promises(rows: Iterable[Promise]) -> Iterable[str]:
    yield "| promise | threshold | measured | |"
    yield "|---|---|---|---|"
    for row in rows:
        measured = "–" if row.measured is None else f"{row.measured:.3g}{row.unit}"
        yield f"| {row.claim} | {row.wanted} | {measured} | {row.verdict} |"


def _loads(results: Results, graph: str, load: str) -> Iterable[str]:
    points = [point for point in results.points if (point.graph, point.load) == (graph, load)]
    if not points:
        return
    levels = sorted({point.concurrency for point in points})
    names = [name for name in TITLES if any(point.contender == name for point in points)]
    columns = ["server", *map(str, levels), "CPU-ms", "client CPU-ms", "peak MiB", "refused", "errors"]
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for name in names:
        own = [point for point in points if point.contender == name]
        cells = [_cell(results, graph, name, load, level) for level in levels]
        if name == LIMIT:
            cells += [""] * 5
        else:
            busiest = 32 if 32 in levels else levels[-1]
            cpu_ms = results.median(graph, name, load, busiest, "cpu_ms")
            peak_mib = max(point.peak_mib for point in own if point.round == 1)
            client_cpu_ms = results.median(graph, name, load, busiest, "client_cpu_ms")
            cells += [
                _figure(cpu_ms),
                _figure(client_cpu_ms),
                f"{peak_mib:.0f}",
                str(sum(point.refused for point in own)),
                str(sum(point.errors for point in own)),
            ]
        yield f"| {TITLES[name]} | " + " | ".join(cells) + " |"


def _cell(results: Results, graph: str, name: str, load: str, level: int) -> str:
    rate = results.median(graph, name, load, level, "requests_per_s")
    if rate is None or name == LIMIT:
        return _figure(rate)
    p50 = results.median(graph, name, load, level, "p50_ms")
    p99 = results.median(graph, name, load, level, "p99_ms")
    return f"**{_figure(rate)}** ({_figure(p50)} / {_figure(p99)})"


def _specials(results: Results) -> Iterable[str]:
    rows = {
        "overhead_us": "CPU on top of tokenising and model, µs a request (concurrency 32)",
        "tokenize_us": "CPU of tokenising, µs a request",
        "run_us": "CPU of the model, µs a request",
        "call_ms": "one in-process call, median ms",
        "gap_ms": "p50 at concurrency 1 minus that, ms",
        "short_alone_p99_ms": "short texts alone, 16 clients: p99 ms",
        "short_with_long_p99_ms": "short texts, 16 clients beside 16 of long texts: p99 ms",
        "single_alone_p99_ms": "single sentences alone, 16 clients: p99 ms",
        "single_with_list_p99_ms": "single sentences, 16 clients beside one of 512-text lists: p99 ms",
        "errors": "refusals and errors in all of these, a round",
    }
    yield "| | " + " | ".join(GRAPHS.values()) + " |"
    yield "|---|" + "---|" * len(GRAPHS)
    for name, title in rows.items():
        yield f"| {title} | " + " | ".join(_figure(results.special(graph, name)) for graph in GRAPHS) + " |"


def _figure(value: float | None) -> str:
    """Three significant digits, and no fewer than the whole number has."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--page", type=Path, help="write the figures into this page instead of printing them")
    options = parser.parse_args()
    figures = markdown(Results.load(options.results))
    if options.page is None:
        print(figures, end="")
    else:
        write_page(options.page, figures)


if __name__ == "__main__":
    main()
