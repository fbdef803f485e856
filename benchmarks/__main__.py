"""Runs a benchmark, keeps its figures, and fills the sections of pages that show them.

python -m benchmarks NAME [options]     measure; `NAME --help` says what, and how
python -m benchmarks pages [--check]    fill every section and draw every plot from benchmarks/results; --check: only
                                        say which page differs
"""

import argparse
import ast
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

from benchmarks.harness.pages import PageError, all_pages, fill
from benchmarks.harness.results import FOLDER, REPOSITORY, Results
from benchmarks.harness.servers import StartFailedError
from ladabert_compress.errors import CompressionError

PACKAGE = Path(__file__).parent
# Each module has add_options(parser), measure(options) → Results and sections(results) → text by section, and may have
# draw(results, suffix), which writes plots, and failures(results), which names broken promises.
MEASURES = {
    "students": "students",
    "latency": "latency",
    "structures": "structures",
    "providers": "providers",
    "footprint": "footprint",
    "serving": "serving.compare",
    "workers": "workers",
    "ray": "ray_serve",
    "commits": "commits",
    "repository": "repository",
    "routes": "routes",
    "cache": "cache",
    "shadow": "shadow",
    "cascade": "cascade",
    "scoring": "scoring",
    "faults": "faults.run_all",
    "evidence": "evidence.compare",
    "elsewhere": "elsewhere",
    "bert-base-sizes": "bert_base_sizes",
    "weight-bits": "weight_bits",
    "alternatives": "alternatives.compare",
    "memory": "memory",
    "plan": "plan",
}
PREPARES = {
    "artefact": "artefact",
    "environments": "serving.environments",
    "layers": "alternatives.layers",
}  # add_options(parser) and prepare(options)
KEPT = {
    "attacks": "attacks",
    "frontier-scout": "frontier",
    "frontier-levers": "frontier_levers",
    "frontier-texts": "frontier_texts",
}  # sections(results) alone: measured by other programs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 1 where a promise is broken or a page differs, 2 for misuse."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser(given).parse_args(given)
    try:
        if options.name == "pages":
            return _pages(write=not options.check)
        if options.name in PREPARES:
            _module(options.name).prepare(options)
            return 0
        return _measure(options)
    except (PageError, StartFailedError, CompressionError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2


def all_sections() -> dict[str, str]:
    """Return every section that the code makes, from the committed results and the bundled models' manifests."""
    found = dict(_module("students").sections_of_manifests())
    for path in sorted(FOLDER.glob("*.json")):
        found |= _sections(Results.load(path), path)
    return found


def _measure(options: argparse.Namespace) -> int:
    module = _module(options.name)
    if options.write and options.json is None:
        options.json = FOLDER / f"{options.name}.json"
    results: Results = module.measure(options)
    if options.json is not None:
        results.save(options.json)
    print("\n".join(_sections(results, options.json).values()), end="")
    if options.write:
        if hasattr(module, "draw"):
            module.draw(results, _suffix(results, options.json))
        # As the file has them, so that whoever fills the pages from it gets the same.
        fill(_sections(Results.load(options.json), options.json), all_pages())
    broken: list[str] = module.failures(results) if hasattr(module, "failures") else []
    print("".join(f"FAILED: {line}\n" for line in broken), end="")
    return 1 if broken else 0


def draw_all() -> None:
    """Draw every plot from the committed results."""
    for path in sorted(FOLDER.glob("*.json")):
        results = Results.load(path)
        module = _module(results.benchmark)
        if hasattr(module, "draw"):
            module.draw(results, _suffix(results, path))


def _pages(*, write: bool) -> int:
    wrong = fill(all_sections(), all_pages(), write=write)
    if write:
        draw_all()
    for page in wrong:
        print(f"{page.relative_to(REPOSITORY)}: {'filled' if write else 'differs from the results'}")
    return 0 if write or not wrong else 1


def _sections(results: Results, path: Path | None) -> dict[str, str]:
    """Return the sections of a results file; those of serving-elsewhere.json are named `…-elsewhere`."""
    sections: dict[str, str] = _module(results.benchmark).sections(results)
    return {name + _suffix(results, path): text for name, text in sections.items()}


def _suffix(results: Results, path: Path | None) -> str:
    stem = results.benchmark if path is None else path.stem
    return stem.removeprefix(results.benchmark) if stem.startswith(results.benchmark) else ""


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{(MEASURES | PREPARES | KEPT)[name]}")


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser; of the benchmarks only the one that is named is imported, since some import torch."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, formatter_class=style)
    commands = parser.add_subparsers(title="benchmarks", metavar="NAME", required=True, dest="name")
    for name, module in (MEASURES | PREPARES).items():
        source = PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
        about = ast.get_docstring(ast.parse(source)) or ""
        command = commands.add_parser(name, help=about.split("\n")[0], description=about, formatter_class=style)
        if name in given[:1]:
            _module(name).add_options(command)
        if name in MEASURES:
            command.add_argument("--json", type=Path, metavar="F", help="keep the figures in this file")
            command.add_argument(
                "--write", action="store_true", help=f"keep them in results/{name}.json or --json, and fill the pages"
            )
    pages = commands.add_parser("pages", help="Fills every section of README.md and docs, and draws the plots.")
    pages.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page differs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
