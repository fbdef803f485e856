"""Claims about the name under which a machine's figures are published."""

from pathlib import Path

import pytest

from ladabert_compress.measure.machine import processor_name


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: sse avx2 avx512f avx512_vnni\n", "AMD EPYC"),
        ("model name\t: Intel(R) Core(TM)\nflags\t\t: sse avx2 avx_vnni\n", "Intel(R) Core(TM)"),
        ("model name\t: AMD EPYC\nflags\t\t: sse avx2\n\nmodel name\t: AMD EPYC\n", "AMD EPYC without VNNI"),
        ("model name\t: Neoverse-N1\nFeatures\t: fp asimd asimddp\n", "Neoverse-N1"),
    ],
)
def test_an_x86_without_vnni_is_named_so(tmp_path: Path, cpuinfo: str, name: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo, encoding="utf-8")
    assert processor_name(file) == name


def test_a_machine_without_that_file_has_a_name(tmp_path: Path) -> None:
    assert processor_name(tmp_path / "none")
