"""The models folders that are attacked: tiny ones in the short form, the bundled students in the full one."""

import shutil
from pathlib import Path

from tests.attacks.harness.server import REPOSITORY, Models
from tests.service.tiny_artefact import write_artefact

BUNDLED = REPOSITORY / "models"
SINGLE, PAIR = "sst2-latency-x4.7", "mrpc-x5"


def tiny_models(folder: Path) -> Models:
    """Write a tiny model for single texts and one for pairs."""
    folder.mkdir()
    write_artefact(folder, "alpha", seed=1)
    write_artefact(folder, "pairs", task="pair", seed=2)
    return Models(folder, "pairs")


def bundled_models(folder: Path) -> Models:
    """Copy the two bundled students that attacks need."""
    folder.mkdir()
    for name in (SINGLE, PAIR):
        shutil.copytree(BUNDLED / name, folder / name)
    return Models(folder, PAIR)
