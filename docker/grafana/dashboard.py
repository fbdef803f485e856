"""Describes the dashboard; `python docker/grafana/dashboard.py` writes dashboards/ladabert.json, which Grafana reads.

Each row answers one question, from left to right and from the top: is it healthy, how fast is it, where does the time
go, do the answers change, what does it use.
"""

from itertools import count
from pathlib import Path
from string import ascii_uppercase
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Panel,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

OUT = Path(__file__).parent / "dashboards/ladabert.json"
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="prometheus")
CHOSEN = 'model=~"$model"'
WIDTH = 24  # columns of the grid
GREEN, YELLOW, RED = "green", "yellow", "red"
MOST_LABELS = 10  # that a panel shows, of a model that may have thousands

Steps = tuple[float | None, str]
Panels = list[Builder[Panel]]


def thresholds(*steps: Steps) -> dashboard.ThresholdsConfig:
    """Return colours by value, each from its number on."""
    coloured = [Threshold(value=value, color=color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(coloured)


def query(expression: str, legend: str = "") -> prometheus.Dataquery:
    """Return one expression of a panel."""
    return prometheus.Dataquery().datasource(SOURCE).expr(expression).legend_format(legend or "__auto")


def number(title: str, about: str, unit: str, expression: str, *steps: Steps) -> stat.Panel:
    """Return a panel that shows one number as it is now."""
    return (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .color_mode(options.BigValueColorMode.BACKGROUND)
        .graph_mode(options.BigValueGraphMode.AREA)
        .thresholds(thresholds(*(steps or ((None, GREEN),))))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(query(expression).ref_id("A"))
    )


def lines(title: str, about: str, unit: str, *queries: tuple[str, str]) -> timeseries.Panel:
    """Return a panel of lines over time, by expression and legend."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .line_width(1)
        .fill_opacity(10)
        .show_points(options.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
    )
    for letter, (expression, legend) in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(query(expression, legend).ref_id(letter))
    return panel


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    """Return a panel whose lines add up."""
    mode = options.StackingMode.NORMAL
    return panel.fill_opacity(50).stacking(common.StackingConfig().mode(mode).group("A"))


def rate(name: str, by: str = "", matchers: str = CHOSEN) -> str:
    """Return the sum of a counter's rates, by labels."""
    return f"sum{f' by ({by}) ' if by else ''}(rate({name}{{{matchers}}}[$__rate_interval]))"


def mean(name: str, by: str = "") -> str:
    """Return the mean of what a histogram observed."""
    return f"{rate(f'{name}_sum', by)} / ({rate(f'{name}_count', by)} > 0)"


def health() -> Panels:
    """Return the numbers that say whether anything needs doing."""
    return [
        number(
            "Alerts",
            "Rules that fire now; docs/operations.md says what to do about each.",
            "none",
            'count(ALERTS{alertname=~"Ladabert.+", alertstate="firing"}) or vector(0)',
            (None, GREEN),
            (1, RED),
        ),
        number(
            "Models that are not ready",
            "On any server.",
            "none",
            f"count(ladabert_model_ready{{{CHOSEN}}} == 0) or vector(0)",
            (None, GREEN),
            (1, RED),
        ),
        number("Requests", "Whatever their status.", "reqps", rate("ladabert_requests_total")),
        number(
            "Errors",
            "Share of answers with status 5xx in five minutes.",
            "percentunit",
            "ladabert:errors:ratio5m or vector(0)",
            (None, GREEN),
            (0.001, YELLOW),
            (0.01, RED),
        ),
        number(
            "p99",
            "Of five minutes, the slowest of the chosen models.",
            "s",
            f"max(ladabert:request_duration_seconds:p99{{{CHOSEN}}} >= 0) or vector(0)",
            (None, GREEN),
            (0.25, YELLOW),
            (0.5, RED),
        ),
        number(
            "Expected wait",
            "Of a request that comes now, before it is computed.",
            "s",
            f"max(ladabert:expected_wait_seconds{{{CHOSEN}}} >= 0) or vector(0)",
            (None, GREEN),
            (0.1, YELLOW),
            (0.5, RED),
        ),
    ]


def speed() -> Panels:
    """Return what callers see."""
    quantiles = [(f"ladabert:request_duration_seconds:p{q}{{{CHOSEN}}}", f"p{q} {{{{model}}}}") for q in (50, 90, 99)]
    return [
        stacked(
            lines(
                "Requests by status",
                "499: the caller hung up. 429: refused, see refusals.",
                "reqps",
                (rate("ladabert_requests_total", "status"), "{{status}}"),
            )
        ),
        lines("Duration", "From the request's headers to its answer.", "s", *quantiles),
        lines(
            "Refusals by reason",
            "Requests given up, by why.",
            "reqps",
            (rate("ladabert_rejected_total", "reason"), "{{reason}}"),
        ),
    ]


def stages() -> Panels:
    """Return where the time goes."""
    steps = [(mean(f"ladabert_{step}_duration_seconds"), step) for step in ("tokenize", "queue", "inference")]
    return [
        stacked(lines("Where the time goes", "Mean of a request's steps, one upon the other.", "s", *steps)),
        lines(
            "Queue",
            "Requests that wait for a runner, and how long a new one will wait.",
            "none",
            (f"sum by (model) (ladabert_queue_depth{{{CHOSEN}}})", "waiting {{model}}"),
            (f"ladabert:expected_wait_seconds{{{CHOSEN}}}", "expected wait {{model}}"),
        ).override_by_regexp(
            "/expected wait.*/",
            [DynamicConfigValue("unit", "s"), DynamicConfigValue("custom.axisPlacement", "right")],
        ),
        lines(
            "Batches",
            "Mean number of texts, and the share of a batch's tokens that is padding.",
            "none",
            (mean("ladabert_batch_size", "model"), "texts {{model}}"),
            (mean("ladabert_batch_padding_ratio", "model"), "padding {{model}}"),
        ).override_by_regexp(
            "/padding.*/",
            [DynamicConfigValue("unit", "percentunit"), DynamicConfigValue("custom.axisPlacement", "right")],
        ),
    ]


def answers() -> Panels:
    """Return whether the answers change."""
    share = f"{rate('ladabert_predictions_total', 'model, label')} / ignoring (label) group_left () "
    total = f"({rate('ladabert_predictions_total', 'model')} > 0)"
    return [
        lines(
            "Labels",
            f"Share of each, the {MOST_LABELS} most common ones.",
            "percentunit",
            (f"topk({MOST_LABELS}, {share}{total})", "{{model}} {{label}}"),
        ),
        heatmap.Panel()
        .title("Scores")
        .description("Of the best label: how many answers a second have which score.")
        .datasource(SOURCE)
        .with_target(
            query(rate("ladabert_prediction_score_bucket", "le"), "{{le}}").ref_id("A").format(PromQueryFormat.HEATMAP)
        ),
        lines(
            "Drift from the evaluation",
            "Population stability index; over 0.25 is a large shift. None where a manifest has no distributions.",
            "none",
            (f'max by (model, of) (ladabert_drift{{{CHOSEN}, distance="psi"}})', "{{model}} {{of}}"),
        )
        .thresholds(thresholds((None, GREEN), (0.1, YELLOW), (0.25, RED)))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(options.GraphTresholdsStyleMode.DASHED)),
        lines(
            "Cascades",
            "Share of answers by stage, of those given unsure because of overload, and of those that should go on from "
            "the first stage. None where no cascade is served.",
            "percentunit",
            (cascade_share("answers", "model, stage"), "{{model}} {{stage}}"),
            (cascade_share("degraded", "model"), "{{model}} degraded"),
            (f"max by (model) (ladabert_cascade_expected_escalated_ratio{{{CHOSEN}}})", "{{model}} should go on"),
        ),
    ]


def cascade_share(counted: str, by: str) -> str:
    """Return the share of a cascade's answers of which something was counted, by labels."""
    answers = rate("ladabert_cascade_answers_total", "model")
    return f"{rate(f'ladabert_cascade_{counted}_total', by)} / on (model) group_left () ({answers} > 0)"


def resources() -> Panels:
    """Return what is served, and what it uses."""
    hidden = dict.fromkeys(("Time", "Value", "__name__", "job", "instance"), True)
    return [
        table.Panel()
        .title("What is served")
        .description("Each model with its version; docs/results says what it reaches.")
        .datasource(SOURCE)
        .with_target(query(f"ladabert_model_info{{{CHOSEN}}}").ref_id("A").instant().format(PromQueryFormat.TABLE))
        .with_transformation(DataTransformerConfig(id_val="organize", options={"excludeByName": hidden})),
        lines(
            "CPU",
            "Cores that each server's workers use.",
            "none",
            (rate("ladabert_worker_cpu_seconds_total", "instance", ""), "{{instance}}"),
        ),
        lines(
            "Memory",
            "Of each server's workers; pages that they share count for each.",
            "bytes",
            ("sum by (instance) (ladabert_worker_resident_memory_bytes)", "{{instance}}"),
        ),
    ]


def build() -> str:
    """Return the dashboard as JSON."""
    models = (
        dashboard.QueryVariable("model")
        .label("Model")
        .datasource(SOURCE)
        .query("label_values(ladabert_requests_total, model)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(text="All", value="$__all"))
    )
    made = (
        dashboard.Dashboard("LadaBERT")
        .uid("ladabert")
        .tags(["ladabert"])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("5s")
        .time("now-15m", "now")
        .timezone("browser")
        .with_variable(models)
    )
    numbers = count(1)
    for panels, height in ((health(), 4), (speed(), 8), (stages(), 8), (answers(), 8), (resources(), 8)):
        for panel in panels:
            made.with_panel(panel.id(next(numbers)).height(height).span(WIDTH // len(panels)))  # type: ignore[attr-defined]
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


if __name__ == "__main__":
    OUT.write_text(build(), encoding="utf-8")
