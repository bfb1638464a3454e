"""The accuracy tables and plots, from the measurements that are kept beside the pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.accuracy_cells import BUILDS, EPOCHS, LAYERS, LAYERS_EPOCHS, METHODS, Cell
from benchmarks.pages import machine_line, markdown_table
from benchmarks.results import read_json
from builders.paths import DOCS

MEASUREMENTS = DOCS / "measurements" / "accuracy.json"
IMAGES = DOCS / "images"
BUILD_HEADERS = {
    "en": (
        "build",
        "ROUGE-L",
        "of fp32",
        "tokens as PyTorch fp32",
        "engines, MiB",
        "parameters, M",
        "build, s",
        "tokens/s",
    ),
    "ko": (
        "빌드",
        "ROUGE-L",
        "fp32 대비",
        "PyTorch fp32와 같은 토큰",
        "엔진, MiB",
        "파라미터, 백만",
        "빌드, 초",
        "토큰/초",
    ),
}
SPARSITY_HEADERS = {
    "en": ("pruned", "zeros or gone", "ROUGE-L", "of fp32", "fine-tuned", "ROUGE-L", "of fp32"),
    "ko": (
        "가지치기",
        "0이거나 제거됨",
        "ROUGE-L",
        "fp32 대비",
        "미세 조정",
        "ROUGE-L",
        "fp32 대비",
    ),
}
EPOCH_WORDS = {"en": ("epoch", "epochs"), "ko": ("에폭", "에폭")}

Row = Mapping[str, Any]


def write_plots() -> None:
    """Write the plots from the kept measurements."""
    report = read_json(MEASUREMENTS)
    IMAGES.mkdir(parents=True, exist_ok=True)
    plot_sparsity(report["cells"], IMAGES / "accuracy-sparsity.svg")
    plot_builds(report["cells"], report["tokens_per_s"], IMAGES / "accuracy-builds.svg")


def tables() -> dict[str, Callable[[], str]]:
    """By the names that pages ask for them with."""
    report = read_json(MEASUREMENTS)
    found: dict[str, Callable[[], str]] = {
        "accuracy-machine": partial(machine_line, report["machine"])
    }
    for language in BUILD_HEADERS:
        suffix = "" if language == "en" else f"-{language}"
        found[f"accuracy-builds{suffix}"] = partial(_builds, report, language)
        found[f"accuracy-sparsity{suffix}"] = partial(_sparsity, report["cells"], language)
    return found


def cells_by_name(rows: Iterable[Row]) -> dict[str, Row]:
    """Rows by the name of their cell."""
    fields = Cell.__dataclass_fields__
    return {Cell(**{name: row[name] for name in fields}).name: row for row in rows}


def label(cell: Cell) -> str:
    """What a build is, for people."""
    runtime = "" if cell.runtime == "onnxruntime" else f", {cell.runtime}"
    pruned = f" + {cell.prune}" if cell.prune else ""
    tuned = f", {cell.epochs} epoch{'s' * (cell.epochs > 1)}" if cell.epochs else ""
    return f"{cell.precision}{pruned}{tuned}{runtime}"


def _builds(report: Row, language: str) -> str:
    known, speeds = cells_by_name(report["cells"]), report["tokens_per_s"]
    base = known[Cell().name]["rouge_l_characters"]
    pytorch = report["pytorch"]
    first = (
        "PyTorch `generate()` fp32",
        f"{pytorch['rouge_l_characters']:.4f}",
        f"{pytorch['rouge_l_characters'] / base:.1%}",
        "",
        "",
        f"{pytorch['parameters'] / 1e6:.2f}",
        "",
        f"{speeds['pytorch']:.0f}",
    )
    rows = [
        (
            label(cell),
            f"{row['rouge_l_characters']:.4f}",
            f"{row['rouge_l_characters'] / base:.1%}",
            f"{row['agreement']:.2%}",
            f"{row['engine_bytes'] / 2**20:.1f}",
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['build_seconds']:.0f}",
            f"{speeds[cell.name]:.0f}",
        )
        for cell in BUILDS
        if (row := known[cell.name])
    ]
    return markdown_table(BUILD_HEADERS[language], [first, *rows])


def _sparsity(cells: Iterable[Row], language: str) -> str:
    known = cells_by_name(cells)
    whole = known[Cell().name]["rouge_l_characters"]
    steps = {f"{method}={share}": epochs for method in METHODS for share, epochs in EPOCHS.items()}
    rows = []
    for step, epochs in {**steps, LAYERS: LAYERS_EPOCHS}.items():
        pruned = known[Cell(prune=step).name]
        tuned = known[Cell(prune=step, epochs=epochs).name] if epochs else None
        text = f"{epochs} {EPOCH_WORDS[language][epochs > 1]}" if epochs else ""
        sparsity = f"{pruned['target_sparsity']:.0%}"
        rows.append((f"`{step}`", sparsity, *_kept(pruned, whole), text, *_kept(tuned, whole)))
    return markdown_table(SPARSITY_HEADERS[language], rows)


def _kept(row: Row | None, whole: float) -> tuple[str, str]:
    """ROUGE-L, and what share of the whole model's it is."""
    if row is None:
        return "", ""
    score = row["rouge_l_characters"]
    return f"{score:.4f}", f"{score / whole:.1%}"


def plot_sparsity(cells: Iterable[Row], path: Path) -> None:
    """ROUGE-L against the share pruned, one panel a method, one line for each fine-tuning."""
    known = cells_by_name(cells)
    figure, panels = _figure(len(METHODS), width=9.6)
    whole = known[Cell().name]["rouge_l_characters"]
    for panel, method in zip(panels, METHODS, strict=True):
        for text, tuned in (("as pruned", False), ("fine-tuned, 1 to 3 epochs", True)):
            points = [(0.0, whole)]
            for share, epochs in EPOCHS.items():
                if epochs or not tuned:
                    cell = Cell(prune=f"{method}={share}", epochs=epochs if tuned else 0)
                    points.append((100 * share, known[cell.name]["rouge_l_characters"]))
            panel.plot(*zip(*points, strict=True), marker="o", markersize=4, label=text)
        panel.set_title(method, fontsize=10)
        panel.set_xlabel("pruned, %")
    panels[0].set_ylabel("ROUGE-L, characters")
    panels[0].legend(fontsize=8, frameon=False)
    _save(figure, path)


def plot_builds(cells: Iterable[Row], speeds: Mapping[str, float], path: Path) -> None:
    """Speed and ROUGE-L of each build, a bar each."""
    known = cells_by_name(cells)
    figure, (speed, rouge) = _figure(2, width=9.6, height=4.2)
    labels = [label(cell) for cell in BUILDS]
    speed.barh(labels, [speeds[cell.name] for cell in BUILDS], color="#4c72b0")
    speed.set_xlabel("tokens/s")
    scores = [known[cell.name]["rouge_l_characters"] for cell in BUILDS]
    bars = rouge.barh(labels, scores, color="#55a868")
    rouge.bar_label(bars, fmt="%.3f", fontsize=8, padding=2)
    rouge.set_xlabel("ROUGE-L, characters")
    rouge.set_xlim(0, 1.12)
    speed.invert_yaxis()
    _save(figure, path)


def _figure(num_panels: int, width: float, height: float = 3.4) -> tuple[Any, Any]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "kobart-triton"  # the same file for the same figures
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, num_panels, sharey=True, squeeze=False)[0]
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
