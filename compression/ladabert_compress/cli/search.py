"""The command ``search``."""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

from ladabert_compress.cli.options import (
    OneLineParser,
    add_data_options,
    add_teacher_options,
    next_step,
    positive,
    positive_number,
    read_rows,
    teacher_source,
    whole,
)
from ladabert_compress.errors import OptionError
from ladabert_compress.recipe import default_recipe, load_recipe

DEFAULT = "ladabert-4"  # the paper's own


def add_search(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """The command ``search``."""
    parser = commands.add_parser(
        "search",
        help="search how to split the budget, or the shape for a time; write a recipe",
        description="Searches P_embd, P_svd and P_weight under equation 7, or with --target-latency-ms how many of the "
        "layers, heads and neurons stay: each trial is a short distillation, scored on rows held out of --train. "
        "Writes the best as a recipe; all else is as in --recipe.",
    )
    add_teacher_options(parser, required=True, purpose="the fine-tuned classifier")
    parser.add_argument("--out", required=True, type=Path, metavar="R.toml", help="recipe to write")
    parser.add_argument(
        "--recipe",
        metavar="NAME|R.toml",
        help=f"everything that is not searched (default {DEFAULT}, for a time {default_recipe(target_latency_ms=1)})",
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--ratio", type=float, help="budget.ratio in place of the recipe's")
    budget.add_argument(
        "--target-latency-ms",
        type=positive_number,
        metavar="MS",
        help="search layers, heads and neurons, each with the ranks that let the student answer one text of 64 tokens "
        "within this on one thread of this machine's CPU in int8 (recipes with budget.objective = latency)",
    )
    parser.add_argument("--trials", type=positive, default=12, help="splits or shapes to score (default %(default)s)")
    parser.add_argument(
        "--sampler",
        choices=("random", "tpe"),
        default="random",
        help="random, as in the paper, or tree-structured Parzen estimators (default %(default)s)",
    )
    parser.add_argument("--steps", type=positive, default=300, help="of one trial (default %(default)s)")
    parser.add_argument(
        "--held-out-rows",
        type=positive,
        default=2000,
        metavar="N",
        help="rows of --train, at most a tenth, to score on (default %(default)s)",
    )
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="folder of the journal (default runs/search-NAME of --out)"
    )
    add_data_options(parser, train="rows to train and score on")
    run = parser.add_argument_group("run")
    run.add_argument("--processes", type=positive, help="of one thread each (default: the cores at hand)")
    run.add_argument("--seed", type=whole, default=0, help="fixes the random splits (default %(default)s)")
    run.add_argument("--resume", action="store_true", help="continue an interrupted search")
    parser.set_defaults(run_command=_run_search)


def _run_search(options: argparse.Namespace) -> None:
    if options.out.exists() or not options.out.parent.is_dir():
        reason = "exists already; name another file or delete it" if options.out.exists() else "its folder is not there"
        raise OptionError(f"--out: {options.out}: {reason}")
    chosen = options.recipe or (DEFAULT if options.target_latency_ms is None else default_recipe(target_latency_ms=1))
    recipe = load_recipe(chosen, {} if options.ratio is None else {"budget.ratio": options.ratio})
    texts = read_rows(options, "train")

    # PyTorch takes seconds to load: only now that options and rows are right.
    from ladabert_compress.search.split import SearchConfig, search, write_recipe

    config = SearchConfig(
        recipe=recipe,
        trials=options.trials,
        sampler=options.sampler,
        steps=options.steps,
        held_out_rows=options.held_out_rows,
        processes=options.processes or len(os.sched_getaffinity(0)),
        seed=options.seed,
        target_latency_ms=options.target_latency_ms,
    )
    run_folder = options.run or Path("runs") / f"search-{options.out.stem}"
    found = search(teacher_source(options), config, texts, run_folder, resume=options.resume)
    write_recipe(found, config, options.teacher.resolve().name, options.out)
    median = statistics.median(accuracy for accuracy, *_ in found.scored)  # shows what the choice is worth
    print(f"{options.out}: accuracy {found.scored[0][0]:.4f}, median {median:.4f}")  # noqa: T201
    rows = ("--train", options.train, "--out", f"models/{options.out.stem}")
    print(  # noqa: T201
        next_step("ladabert-compress", "compress", "--teacher", options.teacher, "--recipe", options.out, *rows)
    )
