"""`python -m tests.attacks [--only NAME ...] [--short] [--json FILE]`: every attack on a server of its own, as a table.

The exit code is 1 when a claim does not hold.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.harness.results import Results, origin
from tests.attacks.harness.attack import Attack, Claim, all_attacks
from tests.attacks.harness.judge import Verdict, judge
from tests.attacks.harness.models import bundled_models
from tests.attacks.harness.server import Models, started

SHOWN = 4  # claims of an attack that did not hold


def main() -> int:
    """Run the attacks that were asked for and return the exit code."""
    attacks = all_attacks()
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description="Attack a server, and see what holds.")
    parser.add_argument("--only", nargs="+", choices=sorted(attacks), metavar="NAME", help="these attacks alone")
    parser.add_argument("--short", action="store_true", help="the sizes of `make test`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    options = parser.parse_args()
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        models = bundled_models(Path(folder) / "models")
        for name in options.only or sorted(attacks):
            verdict = _attack(attacks[name], models, options.short)
            verdicts.append(verdict)
            sys.stdout.write(row(verdict))
            sys.stdout.flush()
    if options.json:
        results(verdicts).save(options.json)
    held = sum(not verdict.complaints for verdict in verdicts)
    sys.stdout.write(f"{held} of {len(verdicts)} attacks held\n")
    return int(held < len(verdicts))


def _attack(attack: Attack, models: Models, short: bool) -> Verdict:
    try:
        with started(models, *attack.options) as server:
            return judge(attack, server, attack.short if short else attack.full)
    except RuntimeError as error:
        return Verdict(attack.name, [Claim("the server starts", False, str(error))], {}, 0.0, {})


def results(verdicts: Iterable[Verdict]) -> Results:
    """Return what was measured in the format of benchmarks/results, from which a page is filled."""
    measured = origin("uvicorn", "onnxruntime")
    measured["command"] = measured["command"].replace("benchmarks", "tests.attacks", 1)
    found = Results("attacks", measured)
    for verdict in verdicts:
        figures = {"answers": verdict.answers, "memory_mib": verdict.memory_mib, "waits_ms": verdict.waits_ms}
        found.add("attacks", attack=verdict.name, claims=len(verdict.claims), not_held=verdict.complaints, **figures)
    return found


def row(verdict: Verdict) -> str:
    """Return a line for an attack, and one for each claim that did not hold."""
    waits = ", ".join(f"{kind} {wait:.0f} ms" for kind, wait in verdict.waits_ms.items())
    state = "FAILED" if verdict.complaints else "ok"
    answers = ", ".join(f"{number} × {outcome}" for outcome, number in sorted(verdict.answers.items()))
    lines = [f"{verdict.name:28} {state:6} {verdict.memory_mib:+6.0f} MiB  {waits or '-':28} {answers}"]
    lines += [f"    not held: {complaint}" for complaint in verdict.complaints[:SHOWN]]
    if len(verdict.complaints) > SHOWN:
        lines.append(f"    and {len(verdict.complaints) - SHOWN} more, which --json lists")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
