"""Makes the virtual environments of the servers that do not share ours: LitServe and Infinity.

python -m benchmarks.serving.environments FOLDER
"""

from __future__ import annotations

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


def python_of(folder: Path, name: str) -> Path:
    """Return the interpreter of a peer's environment."""
    return folder / name / "bin" / "python"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    for name, packages in PACKAGES.items():
        python = python_of(folder, name)
        subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
        for batch in ((TORCH,), packages):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *batch], check=True)
        print(f"{name}: {python}")


if __name__ == "__main__":
    main()
