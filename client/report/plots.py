"""Plots as SVG that takes its colours and its font from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from client.report.document import Plot, Series
from kobart_runtime.errors import ConfigError

NUM_COLOURS = 10
_FILE_FONT = "font-family: system-ui, sans-serif;"
_SIZE_INCHES = (4.5, 3.0)
_MAX_TICK_LETTERS = 42  # what fits below upright bars
# Colours that no plot uses, each to be replaced by a variable of the page's style.
_VARIABLES = {"#010101": "--ink", "#020202": "--muted", "#030303": "--grid", "#040404": "--paper"}
_INK, _MUTED, _GRID, _PAPER = _VARIABLES
_SERIES = [f"#0a0a{index:02x}" for index in range(NUM_COLOURS)]
_VARIABLES |= {colour: f"--series-{index}" for index, colour in enumerate(_SERIES)}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "DejaVu Sans",  # comes with matplotlib, for measuring; the page sets its own
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "text.color": _INK,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
}


def require_matplotlib() -> None:
    """Find out before a long measurement that its report could not be drawn.

    Raises:
        ConfigError: matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"the plots need matplotlib ({error}): pip install 'kobart-triton[report]'"
        ) from error


def to_svg(plot: Plot) -> str:
    """An `<svg>` element that may stand in a page beside others."""
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": plot.name}):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        _DRAW[plot.kind](axes, plot)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(text.getvalue(), plot.name)


def to_svg_file(plot: Plot) -> str:
    """The content of an SVG file, which brings the page's colours, dark ones too, with it."""
    style = f"{read_style('palette.css')}svg {{ background: var(--card); {_FILE_FONT} }}"
    svg = to_svg(plot)
    end = svg.index(">") + 1
    return f"{svg[:end]}\n<style>{style}</style>{svg[end:]}\n"


def read_style(name: str) -> str:
    """A style sheet of this package."""
    return files("client.report").joinpath(name).read_text(encoding="utf-8")


def _draw_lines(axes: Any, plot: Plot) -> None:
    for colour, series in _coloured(plot.series):
        axes.plot(series.x, series.y, "o-", color=colour, label=series.label, ms=4, lw=1.8)
        if series.low:
            axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, lw=0)
    _label(axes, plot)
    if plot.log_x:
        _log_x(axes, plot)
    _legend(axes, plot)


def _draw_scatter(axes: Any, plot: Plot) -> None:
    front = sorted((plot.series[i].x[0], plot.series[i].y[0]) for i in plot.front)
    if front:
        xs, ys = zip(*front, strict=True)
        axes.plot(xs, ys, "--", color=_MUTED, lw=1, label="Pareto front")
    for index, (colour, series) in enumerate(_coloured(plot.series)):
        face = colour if index in plot.front else _PAPER
        axes.plot(
            series.x, series.y, "o", ms=8, mec=colour, mfc=face, mew=1.8, label=series.label, ls=""
        )
    axes.margins(0.12)
    _label(axes, plot)
    _legend(axes, plot)


def _draw_bars(axes: Any, plot: Plot) -> None:
    """Upright, or lying where the names below would not fit."""
    lies = sum(map(len, plot.ticks)) > _MAX_TICK_LETTERS
    width = 0.8 / len(plot.series)
    for index, (colour, series) in enumerate(_coloured(plot.series)):
        shift = (index - (len(plot.series) - 1) / 2) * width
        places = [x + shift for x in series.x]
        draw = axes.barh if lies else axes.bar
        draw(places, series.y, width * 0.9, color=colour, label=series.label)
        if series.low:
            xs, ys, side = (series.y, places, "xerr") if lies else (places, series.y, "yerr")
            error = {side: _errors(series)}
            axes.errorbar(xs, ys, **error, fmt="none", ecolor=_INK, elinewidth=1)
    positions = range(len(plot.ticks))
    if lies:
        axes.set_yticks(positions, plot.ticks)
        axes.invert_yaxis()
    else:
        axes.set_xticks(positions, plot.ticks)
    axes.grid(axis="y" if lies else "x", visible=False)
    _label(axes, plot, lies=lies)
    if len(plot.series) > 1:
        _legend(axes, plot)


def _label(axes: Any, plot: Plot, *, lies: bool = False) -> None:
    """Name the axes; values start at zero, but for a scatter of points and where some are below."""
    x_label, y_label = (plot.y_label, plot.x_label) if lies else (plot.x_label, plot.y_label)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    values = [value for series in plot.series for value in (*series.y, *series.low)]
    if plot.kind == "scatter" or min(values, default=0) < 0:
        return
    if lies:
        axes.set_xlim(left=0)
    else:
        axes.set_ylim(bottom=0)


def _draw_histogram(axes: Any, plot: Plot) -> None:
    for colour, series in _coloured(plot.series):
        axes.stairs(series.y, series.x, color=colour, fill=True, alpha=0.35, lw=0)
        axes.stairs(series.y, series.x, color=colour, lw=1.4, label=series.label)
    _label(axes, plot)
    if len(plot.series) > 1:
        _legend(axes, plot)


_DRAW = {
    "line": _draw_lines,
    "scatter": _draw_scatter,
    "bars": _draw_bars,
    "histogram": _draw_histogram,
}


def _errors(series: Series) -> list[list[float]]:
    bounds = list(zip(series.low, series.y, series.high, strict=True))
    return [[y - low for low, y, _ in bounds], [high - y for _, y, high in bounds]]


def _coloured(series: Sequence[Series]) -> list[tuple[str, Series]]:
    return [(_SERIES[index % NUM_COLOURS], each) for index, each in enumerate(series)]


def _log_x(axes: Any, plot: Plot) -> None:
    axes.set_xscale("log", base=2)
    values = sorted({x for series in plot.series for x in series.x})
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()


def _legend(axes: Any, plot: Plot) -> None:
    num_labels = len(plot.series) + bool(plot.front)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=2 if num_labels > 1 else 1,
        fontsize=8,
        handlelength=1.2,
        columnspacing=1.0,
        borderaxespad=0.2,
    )


def _for_page(svg: str, name: str) -> str:
    """Without the XML head, with the page's colours, its font, and the width that there is."""
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", svg)
    svg = svg.replace("font-family: 'DejaVu Sans'; ", "")
    svg = re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # the same in every plot
    return svg.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)
