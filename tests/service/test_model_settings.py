"""Claims about the settings of single models: a file with a table for each."""

from pathlib import Path

import pytest

from ladabert_serve.errors import StartError
from ladabert_serve.models.model_settings import KEYS, check_models, settings_of
from ladabert_serve.settings import Settings
from tests.service.conftest import serving
from tests.service.gated import metric
from tests.service.tiny_artefact import write_artefact


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of the file, with a table for one model."""
    path = tmp_path / "models.toml"
    path.write_text('["sst2-x2.5"]\nweight = 3\nprecision = "int8"\nmax_batch_size = 4\n')
    return path


def test_a_model_has_the_settings_of_its_table_and_the_general_ones_beside_them(file: Path) -> None:
    general = Settings(model_settings=file, max_batch_size=16, max_queue_ms=7)
    own = settings_of(general, "sst2-x2.5")
    assert (own.weight, own.precision, own.max_batch_size, own.max_queue_ms) == (3, "int8", 4, 7)
    assert settings_of(general, "another") == general


def test_a_table_wins_over_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADABERT_MAX_BATCH_SIZE", "9")
    general = Settings(model_settings=file)
    assert (general.max_batch_size, settings_of(general, "sst2-x2.5").max_batch_size) == (9, 4)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[alpha]\nweigth = 2", "unknown key 'weigth'"),
        ("[alpha]\nport = 9000", "unknown key 'port'"),
        ("[alpha]\nweight = 0", "greater than 0"),
        ("[alpha]\nprecision = 'fp8'", "precision"),
        ("[alpha]\nmax_batch_size = 'many'", "max_batch_size"),
        ("alpha = 1", "is no table"),
        ("[alpha", "is not TOML"),
        ("[beta]\nweight = 2", "no model 'beta'"),
        ("[alpha.5]\nweight = 2", "unknown key '5'"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_it(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(text)
    settings = Settings(model_settings=path)

    def read() -> None:
        check_models(settings, ["alpha"])
        settings_of(settings, "alpha")

    with pytest.raises(StartError, match=word) as refused:
        read()
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_name_with_a_dot_that_lacks_its_quotes_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text("[sst2-x2.5]\nweight = 2")
    with pytest.raises(StartError, match="names with a dot need quotes"):
        check_models(Settings(model_settings=path), ["sst2-x2.5"])


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read"):
        check_models(Settings(model_settings=tmp_path / "none.toml"), [])


def test_each_key_is_a_setting() -> None:
    assert set(KEYS) <= set(Settings.model_fields)


def test_a_served_model_keeps_to_its_own_limits(models_folder: Path, tmp_path: Path) -> None:
    for name in ("alpha", "beta"):
        write_artefact(models_folder, name, precisions=("fp32", "int8"))
    path = tmp_path / "models.toml"
    path.write_text('[beta]\nprecision = "int8"\nmax_batch_size = 2\n')
    with serving(models_folder, model_settings=path) as server:
        models = server.app.state.services.registry.models
        assert [models[name].precision for name in ("alpha", "beta")] == ["fp32", "int8"]
        assert server.classify({"inputs": ["a"] * 5, "model": "beta"}).status_code == 200
        assert metric(server, 'ladabert_batch_size_bucket{le="2.0",model="beta"}') == metric(
            server, 'ladabert_batch_size_count{model="beta"}'
        )
