"""Claims about the playground in a real browser; `python -m tests.service.test_playground_in_browser` takes pictures.

The tests need the extra `browser` and Chromium, and are skipped without.
"""

import contextlib
import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ladabert_serve.http.api_keys import format_line
from tests.service.test_api_keys import KEY, UNKNOWN
from tests.service.test_server import Process, started
from tests.service.tiny_artefact import REPOSITORY, write_artefact

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[browser]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: pip install -e '.[browser]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("server"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
expect = sync_api.expect
NARROW = {"width": 360, "height": 740}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]  # axe's names
TEXT, SECOND = "a good film", "the film"
BROKEN = "bad"  # a word at which one of the models fails
AWKWARD = 'very "good", film'


@pytest.fixture(scope="module")
def process(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Return a server without keys: of single texts, of pairs, of several labels, and one that a word breaks."""
    folder = tmp_path_factory.mktemp("played") / "models"
    shutil.copytree(models, folder)
    write_artefact(folder, "fragile", poison=BROKEN)
    with started(folder, "--max-text-bytes", "1000") as process:
        yield process


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return a running browser."""
    with chromium() as browser:
        yield browser


class Visit:
    """A look at one server's playground: the page, and what it wrote to the console and asked for."""

    def __init__(self, browser: Any, process: Process, path: str = "/", **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.complaints: list[str] = []
        self.requests: list[Any] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request))
        self.address = f"http://127.0.0.1:{process.port}{path}"

    def open(self) -> Any:
        """Load the page and return it."""
        self.page.goto(self.address)
        return self.page

    def bodies(self) -> list[Any]:
        """What was posted to /classify."""
        return [json.loads(each.post_data) for each in self.requests if urlsplit(each.url).path.endswith("/classify")]

    def card(self, model: str) -> Any:
        """The card of a model."""
        return self.page.locator(".card", has=self.page.get_by_text(model, exact=True))


@contextlib.contextmanager
def visiting(browser: Any, process: Process, path: str = "/", **options: Any) -> Iterator[Visit]:
    """Give a visit; no page may ask anybody but its server, nor break."""
    visit = Visit(browser, process, path, **options)
    try:
        yield visit
    finally:
        visit.context.close()
    own = urlsplit(visit.address)
    assert {urlsplit(each.url)[:2] for each in visit.requests} <= {own[:2]}
    # The browser itself writes such a line for each status that is no 200.
    assert [line for line in visit.complaints if not line.startswith("Failed to load resource")] == []


@pytest.fixture
def visit(browser: Any, process: Process) -> Iterator[Visit]:
    """Return a visit to the server without keys, its page open."""
    with visiting(browser, process) as visit:
        visit.open()
        expect(visit.page.locator(".card")).to_have_count(4)
        yield visit


def classify(process: Process, model: str, inputs: Any) -> list[dict[str, Any]]:
    """Return the predictions that a client gets."""
    status, answer = process.request("POST", "/classify", json.dumps({"model": model, "inputs": inputs}))
    assert status == 200, answer
    predictions: list[dict[str, Any]] = json.loads(answer)["predictions"]
    return predictions


# One text.


def test_every_model_answers_side_by_side_as_the_text_is_typed(visit: Visit, process: Process) -> None:
    visit.page.get_by_label("Text", exact=True).press_sequentially(TEXT)
    visit.page.get_by_label("Second text").press_sequentially(SECOND)
    inputs = {"alpha": TEXT, "topics": TEXT, "fragile": TEXT, "pairs": {"text": TEXT, "text_pair": SECOND}}
    for model, asked in inputs.items():
        (prediction,) = classify(process, model, asked)
        card = visit.card(model)
        expect(card.locator(".label")).to_have_text(prediction["label"])
        expect(card.locator(".read")).to_have_text(f"{prediction['tokens']} tokens")
        expect(card.locator(".scores li")).to_have_text(
            [f"{each['label']}{each['score']:.3f}" for each in prediction["scores"]]
        )
        expect(card.locator("dt")).to_have_text(["tokenize", "queue", "inference", "total"])
        assert all(re.fullmatch(r"\d+\.\d\d ms", figure) for figure in card.locator("dd").all_text_contents())
        expect(visit.page.get_by_role("status").first).to_contain_text(f"{model}: {prediction['label']}, ")
    assert visit.complaints == []


def test_a_bar_is_as_long_as_its_score(visit: Visit, process: Process) -> None:
    visit.page.get_by_label("Text", exact=True).fill(TEXT)
    (prediction,) = classify(process, "topics", TEXT)
    bars = visit.card("topics").locator(".bar")
    expect(bars).to_have_count(3)
    for number, score in enumerate(prediction["scores"]):
        whole, filled = bars.nth(number).bounding_box(), bars.nth(number).locator("span").bounding_box()
        assert filled["width"] / whole["width"] == pytest.approx(score["score"], abs=0.01)


def test_a_text_is_asked_once_the_typing_pauses_and_of_ticked_models_only(browser: Any, process: Process) -> None:
    with visiting(browser, process) as visit:
        visit.page.clock.install(time=datetime(2026, 1, 1, tzinfo=UTC))
        page = visit.open()
        expect(page.locator(".card")).to_have_count(4)
        page.get_by_label("fragile").uncheck()
        page.clock.pause_at(datetime(2026, 1, 2, tzinfo=UTC))
        for letter in TEXT:
            page.get_by_label("Text", exact=True).press_sequentially(letter)
            page.clock.run_for(199)
        assert visit.bodies() == []
        page.clock.run_for(1)
        expect(visit.card("topics").locator(".answer")).to_be_visible()
        expect(visit.card("alpha").locator(".answer")).to_be_visible()
        expect(visit.card("pairs").locator(".problem")).to_have_text("It needs the second text.")
        assert sorted((body["model"], body["inputs"]) for body in visit.bodies()) == [("alpha", TEXT), ("topics", TEXT)]


def test_a_request_for_an_older_text_is_cancelled(visit: Visit, process: Process) -> None:
    held: list[Any] = []
    visit.page.route("**/classify", lambda route: held.append(route), times=1)
    text = visit.page.get_by_label("Text", exact=True)
    for model in ("topics", "fragile"):
        visit.page.get_by_label(model).uncheck()
    with visit.page.expect_request("**/classify"):
        text.fill("a film")
    expect(visit.card("alpha")).to_have_attribute("aria-busy", "true")
    with visit.page.expect_event("requestfailed") as failed:
        text.fill(TEXT)
    (prediction,) = classify(process, "alpha", TEXT)
    expect(visit.card("alpha").locator(".label")).to_have_text(prediction["label"])
    expect(visit.card("alpha").locator(".scores li").first).to_contain_text(f"{prediction['score']:.3f}")
    assert json.loads(failed.value.post_data)["inputs"] == "a film"
    assert len(held) == 1
    assert visit.complaints == []


# Many texts.


def test_pasted_lines_become_a_table_and_a_csv_file(visit: Visit, process: Process) -> None:
    texts = [AWKWARD, *(f"a {'very ' * (number % 5)}good film {number}" for number in range(99))]
    visit.page.get_by_label("One text a line").fill("\n\n".join(texts))
    visit.page.get_by_role("button", name="Classify").click()
    expect(visit.page.get_by_text("100 texts, answered by 3 of 4 models.")).to_be_visible()
    expected = {model: classify(process, model, texts) for model in ("alpha", "fragile", "topics")}
    table = visit.page.get_by_role("region", name="Predictions")
    assert table.get_by_role("columnheader").all_text_contents() == ["Text", *expected]
    expect(table.locator("tbody tr")).to_have_count(100)
    first = [f"{each[0]['label']} {each[0]['score']:.3f}" for each in expected.values()]
    assert table.locator("tbody tr").first.locator("td").all_text_contents() == [AWKWARD, *first]

    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "predictions.csv"
    with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == texts
    for model, predictions in expected.items():
        assert [row[f"{model}.label"] for row in rows] == [each["label"] for each in predictions]
        scores = [float(row[f"{model}.score"]) for row in rows]
        assert scores == pytest.approx([each["score"] for each in predictions], abs=1e-5)
    assert visit.complaints == []


def test_a_tab_separates_the_texts_of_a_pair(visit: Visit, process: Process) -> None:
    visit.page.get_by_label("One text a line").fill(f"{TEXT}\t{SECOND}\na film\tfilm")
    visit.page.get_by_role("button", name="Classify").click()
    expect(visit.page.get_by_text("2 texts, answered by 4 of 4 models.")).to_be_visible()
    pairs = classify(process, "pairs", [{"text": TEXT, "text_pair": SECOND}, {"text": "a film", "text_pair": "film"}])
    shown = visit.page.locator("tbody td:nth-child(4)").all_text_contents()
    assert shown == [f"{each['label']} {each['score']:.3f}" for each in pairs]


# What the server refuses.


def test_an_error_stands_there_as_the_server_says_it(visit: Visit) -> None:
    text = visit.page.get_by_label("Text", exact=True)
    text.fill("a" * 1001)
    problem = visit.card("alpha").locator(".problem")
    expect(problem).to_have_text("413 Too large: inputs has 1001 bytes, at most 1000 are accepted")
    text.fill(BROKEN)
    expect(visit.card("alpha").locator(".answer")).to_be_visible()
    expect(problem).to_be_empty()
    expect(visit.card("fragile").locator(".problem")).to_contain_text("503 Model failed: ")
    visit.page.get_by_label("One text a line").fill(f"{TEXT}\n{BROKEN}\n{'a' * 1001}")
    visit.page.get_by_role("button", name="Classify").click()
    expect(visit.page.get_by_text("3 texts, answered by 0 of 4 models.")).to_be_visible()
    expect(visit.page.locator("#refusals")).to_contain_text("fragile: 413 Too large: inputs[2] has 1001 bytes")
    expect(visit.page.get_by_role("button", name="Download CSV")).to_be_disabled()


def test_a_server_that_is_gone_is_said_to_be_so(visit: Visit) -> None:
    visit.page.route("**/classify", lambda route: route.abort())
    visit.page.get_by_label("Text", exact=True).fill(TEXT)
    expect(visit.card("alpha").locator(".problem")).to_have_text("The server cannot be reached.")


@pytest.fixture(scope="module")
def keyed(models: Path) -> Iterator[Process]:
    """Return a server that asks for keys, lets three requests through, and has its metrics on another port."""
    line = format_line("team", KEY, ["classify"]) + " requests_per_second=0.001 burst=3"
    with started(models, "--admin-port", "0", "--root-path", "/api", LADABERT_API_KEYS=line) as process:
        yield process


def test_the_page_asks_for_a_key_and_keeps_it_nowhere(browser: Any, keyed: Process) -> None:
    with visiting(browser, keyed, "/api") as visit:  # as behind a proxy, without the slash at the end
        page = visit.open()
        expect(page.get_by_role("alert").first).to_contain_text("401 Unauthenticated: send a valid API key")
        expect(page.locator("#gauges-problem")).to_contain_text("404 Not Found: GET /metrics")
        page.get_by_label("API key").fill(UNKNOWN)
        page.keyboard.press("Enter")
        expect(page.get_by_label("API key")).to_have_value("")
        expect(page.locator(".card")).to_have_count(0)
        page.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator(".card")).to_have_count(3)
        expect(page.get_by_label("API key")).to_be_hidden()
        expect(page.get_by_label("Text", exact=True)).to_be_focused()
        page.keyboard.type(TEXT)
        expect(visit.card("alpha").locator(".answer")).to_be_visible()
        page.get_by_label("Second text").fill(SECOND)  # two more than the limit
        expect(page.get_by_text("429 Rate limited: ").first).to_contain_text("try again in")
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        page.reload()
        expect(page.get_by_label("API key")).to_be_visible()
        assert KEY not in page.content()


# Live figures.


def test_the_gauges_show_what_the_server_counts(visit: Visit) -> None:
    gauge = visit.page.locator("[data-gauge]")
    visit.page.get_by_label("Text", exact=True).fill(TEXT)
    expect(gauge.nth(0)).to_have_text(re.compile(r"^0\.\d+$|^[1-9]"))
    for number in (1, 2):
        expect(gauge.nth(number)).to_have_text(re.compile(r"^\d+(\.\d+)? ms$"))
    expect(gauge.nth(3)).to_have_text("0")
    expect(gauge.nth(4)).to_have_text("1")
    expect(gauge.nth(5)).to_be_hidden()  # this server has no shadow


def test_the_agreement_with_a_shadow_is_shown_where_it_is_counted(browser: Any, process: Process) -> None:
    series = 'ladabert_shadow_agreement_total{model="a",shadow="b",label="le=\\"x\\"",agrees="%s"} %d\n'
    with visiting(browser, process) as visit:
        page = series % ("true", 9) + series % ("false", 1)
        visit.page.route("**/metrics", lambda route: route.fulfill(body=page, content_type="text/plain"))
        visit.open()
        expect(visit.page.get_by_text("Agreement with the shadow").locator("..")).to_contain_text("90 %")


def test_quantiles_are_interpolated_within_their_bucket_as_prometheus_does(visit: Visit) -> None:
    def page(*counts: int) -> str:
        name = "ladabert_request_duration_seconds_bucket"
        bounds = ("0.001", "0.002", "0.004", "+Inf")
        lines = [f'{name}{{le="{bound}",model="%s"}} {count}.0\n' for bound, count in zip(bounds, counts, strict=True)]
        return "".join(line % model for model in "ab" for line in lines)

    earlier, later = page(5, 5, 5, 5), page(5, 55, 105, 105)
    script = """async ([earlier, later]) => {
        const { figures, readSums } = await import("/playground/gauges.js");
        return figures(readSums(earlier), readSums(later), 10);
    }"""
    found = visit.page.evaluate(script, [earlier, later])
    assert found["p50Ms"] == pytest.approx(2.0)
    assert found["p99Ms"] == pytest.approx(3.96)
    assert found["requestsPerSecond"] == 0
    nothing = visit.page.evaluate(script, [later, later])
    assert nothing["p50Ms"] is nothing["p99Ms"] is nothing["batchSize"] is nothing["shadowAgreement"] is None


# Everybody can use it.


def fill_in(page: Any) -> None:
    """Let the page show everything that it can show."""
    page.get_by_label("Text", exact=True).fill(f"{TEXT} {BROKEN}")
    page.get_by_label("One text a line").fill("\n".join([TEXT] * 3))
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.locator(".answer:visible")).to_have_count(2)
    expect(page.locator(".card .problem", has_text=re.compile("."))).to_have_count(2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [NARROW, {"width": 1200, "height": 900}], ids=["narrow", "wide"])
def test_it_breaks_no_rule_of_accessibility(scheme: str, viewport: Any, browser: Any, process: Process) -> None:
    with visiting(browser, process, color_scheme=scheme, viewport=viewport) as visit:
        page = visit.open()
        fill_in(page)
        # On a narrow screen most cells are scrolled out of sight, where contrast cannot be told.
        context = {"exclude": ["tbody"]} if viewport == NARROW else None
        found = axe.Axe().run(page, context, {"runOnly": RULES}).response
        broken_or_unsure = found["violations"] + found["incomplete"]
        assert [f"{rule['id']}: {node['html']}" for rule in broken_or_unsure for node in rule["nodes"]] == []
        assert {"color-contrast", "target-size", "label", "list"} <= {each["id"] for each in found["passes"]}


def test_nothing_is_wider_than_a_screen_of_360_pixels(browser: Any, process: Process) -> None:
    with visiting(browser, process, viewport=NARROW, has_touch=True) as visit:
        page = visit.open()
        fill_in(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        outside = """() => [...document.querySelectorAll("main *:not(.scrolls *, .unseen)")]
            .filter((each) => each.getBoundingClientRect().right > 360).map((each) => each.outerHTML)"""
        assert page.evaluate(outside) == []


def test_the_keyboard_alone_is_enough(visit: Visit) -> None:
    page = visit.page

    def go_to(name: str) -> None:
        for _ in range(20):
            page.keyboard.press("Tab")
            focused = page.locator(":focus")
            if focused.evaluate("each => (each.labels?.[0] ?? each).textContent.trim()") == name:
                assert focused.evaluate("each => getComputedStyle(each).outlineStyle") == "solid"
                return
        pytest.fail(f"no way to {name}")

    go_to("Text")
    page.keyboard.type(TEXT)
    expect(visit.card("topics").locator(".answer")).to_be_visible()
    go_to("topics")
    page.keyboard.press("Space")
    expect(visit.card("topics").locator(".answer")).to_be_hidden()
    go_to("One text a line")
    page.keyboard.type(TEXT)
    go_to("Classify")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    go_to("Download CSV")
    with page.expect_download():
        page.keyboard.press("Enter")


# Pictures.


def take_pictures() -> None:
    """Write the pictures of docs/how-to/playground.md, with the bundled models."""
    from PIL import Image  # comes with matplotlib, which the oldest versions are tested without

    views: dict[str, dict[str, Any]] = {
        "light": {"color_scheme": "light", "viewport": {"width": 1100, "height": 980}},
        "dark": {"color_scheme": "dark", "viewport": {"width": 1100, "height": 980}},
        "narrow": {"color_scheme": "light", "viewport": NARROW},
    }
    with started(REPOSITORY / "models") as process, chromium() as browser:
        for name, options in views.items():
            with visiting(browser, process, **options) as visit:
                page = visit.open()
                page.get_by_label("Text", exact=True).fill("The chip maker said that its profit rose by a third.")
                page.get_by_label("Second text").fill("Profit at the chip maker rose by a third.")
                expect(page.locator(".answer:visible")).to_have_count(7)
                page.get_by_label("One text a line").fill("a warm, funny and moving film\ndull from start to end")
                page.get_by_role("button", name="Classify").click()
                expect(page.locator("tbody tr")).to_have_count(2)
                expect(page.locator("[data-gauge]").nth(1)).to_contain_text("ms")
                page.evaluate("scrollTo(0, 0)")
                picture = Image.open(io.BytesIO(page.screenshot(full_page=name != "narrow")))
                picture.quantize().save(REPOSITORY / f"docs/images/playground-{name}.png", optimize=True)


if __name__ == "__main__":
    take_pictures()
