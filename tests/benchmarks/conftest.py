"""The tiny teacher and its rows, for the benchmarks that train."""

from tests.compression.conftest import encoded as encoded
from tests.compression.conftest import folder as folder
from tests.compression.conftest import one_thread as one_thread
from tests.compression.conftest import taught_bert as taught_bert
from tests.compression.conftest import teacher_folder as teacher_folder
from tests.compression.conftest import tiny_bert as tiny_bert
from tests.compression.conftest import tokenizer as tokenizer
