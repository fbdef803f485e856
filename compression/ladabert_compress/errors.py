"""What can go wrong for a reason that the user can act on.

CompressionError        the command ends with exit code 2 and this one line
├── OptionError         an option of the command line has a value that cannot be used
├── DataError           a data file, a column or a row (with its line number) cannot be used
├── TeacherError        the teacher's folder is missing, of another architecture, or not in safetensors
├── RecipeError         a recipe has an unknown key, a value out of range, or a budget that cannot be met
├── CheckpointError     an interrupted run cannot be continued from what is on disk
├── DivergenceError     a loss is no number any more, or processes that share a run have other weights
├── StoppedError        Ctrl-C or SIGTERM ended a run, which can be continued; not an error, but the end of the command
└── ExportError         the exported graph does not compute what the student computes
"""

import signal


class CompressionError(Exception):
    """A reason to stop that the user can act on; its text says what, where and how to fix it."""


class OptionError(CompressionError):
    """An option of the command line has a value that cannot be used."""


class DataError(CompressionError):
    """A data file, a column or a row cannot be used."""


class TeacherError(CompressionError):
    """The teacher cannot be loaded or is not an encoder that can be compressed."""


class RecipeError(CompressionError):
    """A recipe cannot be used."""


class CheckpointError(CompressionError):
    """An interrupted run cannot be continued."""


class DivergenceError(CompressionError):
    """A loss is no number any more, or the processes of a run have other weights than one another."""


class StoppedError(CompressionError):
    """Ctrl-C or SIGTERM ended a run, which can be continued."""

    def __init__(self, message: str, signal_number: int = signal.SIGTERM) -> None:  # one argument survives pickling
        super().__init__(message)
        self.signal_number = signal_number


class ExportError(CompressionError):
    """The exported graph does not compute what the student computes."""
