"""The pages about the bundled students say what their manifests say."""

from benchmarks.bundled_table import calibrations, manifests, pages
from benchmarks.serving.table import MARKERS


def test_the_pages_say_what_the_manifests_say() -> None:
    for page, text in pages().items():
        written = page.read_text(encoding="utf-8")
        assert MARKERS.search(written), page
        assert written == text, "run: python -m benchmarks.bundled_table"


def test_what_an_older_manifest_does_not_say_is_a_dash() -> None:
    manifest = manifests()[0]
    manifest["calibration"] = {"temperature": 1.0}
    manifest["evaluation"].pop("student_accuracy", None)
    assert calibrations([manifest]).splitlines()[-1].startswith(f"| `{manifest['name']}` | 0 | 1.000 | – | – | 0.")
    manifest["evaluation"]["student_accuracy"] = 0.9
    assert calibrations([manifest]).splitlines()[-1].endswith("| 0.9000 |")
