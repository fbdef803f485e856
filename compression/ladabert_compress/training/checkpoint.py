"""Progress on disk: written whole or not at all, read without unpickling objects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ladabert_compress.errors import CheckpointError
from ladabert_compress.files import cannot_be_written


def save_checkpoint(path: Path, run_id: str, state: dict[str, Any]) -> None:
    """Replaces the file in one step, so that a kill or a full disk leaves either the old checkpoint or the new one.

    Raises:
        CheckpointError: the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("wb") as file:
            torch.save({"run_id": run_id, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # PyTorch's writer says RuntimeError where the disk is full
        partial.unlink(missing_ok=True)
        raise CheckpointError(cannot_be_written(path, error)) from error


def load_checkpoint(path: Path, run_id: str, device: torch.device, *, resume: bool) -> dict[str, Any] | None:
    """The saved state, or ``None`` where there is none yet.

    Raises:
        CheckpointError: the file cannot be read, other settings wrote it, or it would be lost to a new run.
    """
    if not path.is_file():
        return None
    if not resume:
        raise CheckpointError(f"{path}: an earlier run left it; continue with --resume, or delete it to start anew")
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # the unpickler can raise anything on other files
        raise CheckpointError(f"{path}: cannot be read ({error}); delete it to start anew") from error
    if state.pop("run_id", None) != run_id:
        raise other_settings(path)
    return state


def other_settings(path: Path) -> CheckpointError:
    """The error of a run that would continue from another run's file."""
    return CheckpointError(
        f"{path}: was written with other settings, data or teacher; "
        "repeat the command as it was, or delete the file to start anew"
    )
