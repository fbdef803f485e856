"""Writes text files whole or not at all, and says why a file cannot be written."""

from __future__ import annotations

from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Replaces the file in one step: after a kill or on a full disk, the old file is still there.

    Raises:
        OSError: it cannot be written; the error has the file's name.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise type(error)(error.errno, error.strerror, str(path)) from error


def cannot_be_written(path: Path, error: Exception) -> str:
    """The message for a file that cannot be written, in a run that can continue from its last checkpoint."""
    reason = str(error).strip().splitlines()[0]
    cause: BaseException | None = error
    while cause is not None:  # PyTorch's writer hides the operating system's reason behind an error of its own
        if isinstance(cause, OSError) and cause.strerror:
            reason = cause.strerror
            break
        cause = cause.__context__
    return f"{path}: cannot be written ({reason}); put that right and continue with --resume"
