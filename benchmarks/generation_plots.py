"""The plots of docs/performance.md: tokens a second over slots, source length and beams."""

from __future__ import annotations

from pathlib import Path

from benchmarks.generation_results import MEASUREMENTS, Row, read_sections
from builders.paths import DOCS
from client.report.document import Plot, Series, Text
from client.report.plots import to_svg_file

IMAGES = DOCS / "images"
AXES = {  # as they are kept -> for people
    "slots-greedy": "slots, greedy",
    "slots-beam": "slots, beam 4",
    "source": "source tokens",
    "beams": "beams",
}


def write_plots() -> None:
    """Write the plots of the kept measurement, if there is one."""
    section = read_sections(MEASUREMENTS).get("growth")
    if section is None:
        return
    IMAGES.mkdir(parents=True, exist_ok=True)
    for axis in AXES:
        image_of(axis).write_text(to_svg_file(growth_plot(section, axis)), encoding="utf-8")


def image_of(axis: str) -> Path:
    """The file of one plot."""
    return IMAGES / f"performance-{axis}.svg"


def plot_links(_: Row) -> str:
    """All plots, as Markdown of a page in docs/."""
    return "\n".join(
        f"![Tokens/s over {AXES[axis]}](images/{image_of(axis).name})" for axis in AXES
    )


def growth_plot(section: Row, axis: str) -> Plot:
    """One line a system; the band is the spread of the repeats."""
    rows = [row for row in section["rows"] if row["axis"] == axis]
    series = []
    for name in dict.fromkeys(row["system"] for row in rows):
        points = [(row["value"], row["tokens_per_s"]) for row in rows if row["system"] == name]
        bounds = {
            key: tuple(float(rate[key]) for _, rate in points) for key in ("median", "low", "high")
        }
        series.append(
            Series(
                label=name,
                x=tuple(float(value) for value, _ in points),
                y=bounds["median"],
                low=bounds["low"],
                high=bounds["high"],
            )
        )
    title = f"Tokens per second over {AXES[axis]}"
    return Plot(
        name=image_of(axis).stem,
        title=Text(title, title),
        kind="line",
        x_label=AXES[axis],
        y_label="tokens/s",
        series=tuple(series),
        log_x=True,
    )
