"""Makes the virtual environments of the servers that cannot share ours: LitServe and Infinity.

python -m benchmarks environments FOLDER
"""

import argparse
import subprocess
import sys
from pathlib import Path

TORCH = "torch==2.13.0"  # first and alone, so that nothing else chooses the build
PACKAGES = {
    "litserve": ("litserve==0.2.19", "onnxruntime==1.32.0", "tokenizers==0.23.3", "numpy"),
    "infinity": (
        "infinity-emb[server,optimum]==0.0.78",
        "transformers==4.48.3",
        "optimum==1.24",
        "pyarrow==20.*",
        "datasets<4",
    ),
}
DISTRIBUTIONS = {"litserve": "litserve", "infinity": "infinity-emb"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("folder", type=Path)


def prepare(options: argparse.Namespace) -> None:
    """Make every environment."""
    for name, packages in PACKAGES.items():
        subprocess.run([sys.executable, "-m", "venv", options.folder / name], check=True)
        for batch in ((TORCH,), packages):
            subprocess.run([_python(options.folder, name), "-m", "pip", "install", "--quiet", *batch], check=True)
        print(f"{name}: {_python(options.folder, name)}")


def python_of(folder: Path, name: str) -> Path:
    """Return the interpreter of a peer's environment; raises SystemExit when it was not made."""
    python = _python(folder.absolute(), name)
    if not python.exists():
        raise SystemExit(f"{python}: not found; run: python -m benchmarks environments {folder}")
    return python


def version_of(folder: Path, name: str) -> str:
    """Return the version of a peer."""
    code = f"from importlib.metadata import version; print(version({DISTRIBUTIONS[name]!r}))"
    return subprocess.run(
        [python_of(folder, name), "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def _python(folder: Path, name: str) -> Path:
    return folder / name / "bin" / "python"
