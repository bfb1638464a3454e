"""What NVIDIA's compiler makes of TensorRT's graphs: `python -m benchmarks.compiled`.

Compiles encoder and decoder of kobart-mini and of full-size KoBART in every precision, once in the
portable layout that other runtimes take and once in TensorRT's, and writes what the compiler says
of them into docs/measurements/compiled.json and the table of docs/tensorrt.md. Needs no GPU; the
figures depend on graphs and compiler alone, not on the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.pages import fill_pages, markdown_table
from benchmarks.results import read_json, write_json
from builders.checkpoint import RANDOM_CHECKPOINT
from builders.checkpoint_files import DEV_FILE
from builders.compiler import DEFAULT_TARGETS, VERSION_NAME, CompiledGraph, compile_graph
from builders.compiler_abi import wheel_folder
from builders.config import BuildConfig
from builders.export import export_decoder, export_encoder
from builders.int8_half import write_int8_half
from builders.paths import CHECKOUT, DEFAULT_CHECKPOINT
from builders.pipeline import Source, load_source
from builders.plans import all_profiles
from builders.precision import make_half
from builders.quantize_qdq import quantize_qdq
from builders.workspace import MIB
from calibration.calibrator import calibrate
from calibration.documents import DocumentSet
from calibration.scales import GRAPH_FILES
from kobart_runtime.errors import BuildError, KobartError
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE

MEASUREMENTS = CHECKOUT / "docs" / "measurements" / "compiled.json"
PAGE = CHECKOUT / "docs" / "tensorrt.md"
MODELS = {"kobart-mini": DEFAULT_CHECKPOINT, "full size": RANDOM_CHECKPOINT}
PRECISIONS = ("fp32", "fp16", "int8")
PORTABLE, TENSORRT = "portable", "tensorrt"  # layouts
NUM_DOCUMENTS = 2  # kernels do not depend on the scales

Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(argv)
    try:
        wheel_folder()
        models = {name: path for name, path in MODELS.items() if name in (options.model or MODELS)}
        rows = [row for name, path in models.items() for row in measure(name, path)]
        report = {"compiler": VERSION_NAME, "targets": DEFAULT_TARGETS, "rows": rows}
        write_json(options.json, report)
        if options.json == MEASUREMENTS:
            fill_pages([PAGE], tables())
    except (KobartError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def measure(name: str, checkpoint: str) -> Iterator[Row]:
    """One row for each engine, precision and layout of a model.

    Raises:
        BuildError: The compiler refused a graph.
    """
    documents = str(Path(DEFAULT_CHECKPOINT) / DEV_FILE)
    config = BuildConfig(checkpoint=checkpoint, precision="fp16", calibration_data=documents)
    source, _ = load_source(config)
    assert source.documents
    few = source.documents.sample(NUM_DOCUMENTS)
    profiles = dict(zip(GRAPH_FILES, all_profiles(source.shape, source.limits), strict=True))
    with TemporaryDirectory(prefix="kobart-compiled-") as root:
        for layout in (PORTABLE, TENSORRT):
            graphs = Path(root) / layout
            write_graphs(graphs, source, few, joined=layout == TENSORRT)
            for precision in PRECISIONS:
                for graph in GRAPH_FILES:
                    compiled = compile_graph(graphs / precision / graph, profiles[graph])
                    row = _row(compiled, graph)
                    row = {"model": name, "precision": precision, "layout": layout, **row}
                    print(json.dumps(row), flush=True)
                    yield row


def write_graphs(folder: Path, source: Source, documents: DocumentSet, *, joined: bool) -> None:
    """Write both graphs in each precision, in a folder of its own.

    Args:
        folder: Where to.
        source: What the graphs come from.
        documents: Few; what fp16 and int8 are fitted to.
        joined: Whether in TensorRT's layout: own keys and values joined to the cache's, and what
            is not int8 in float16.
    """
    folders = {precision: folder / precision for precision in PRECISIONS}
    for path in folders.values():
        path.mkdir(parents=True)
    float32, model, shape = folders["fp32"], source.checkpoint.model, source.shape
    export_encoder(model, float32 / ENCODER_FILE)
    export_decoder(model, float32 / DECODER_FILE, shape.num_candidates, joined=joined)
    make_half(float32, folders["fp16"], shape, documents)
    scales = calibrate(float32, shape, documents, method="minmax").scales
    quantized = folder / "qdq" if joined else folders["int8"]
    quantized.mkdir(exist_ok=True)
    for name in GRAPH_FILES:
        quantize_qdq(float32 / name, quantized / name, scales[name])
    if joined:
        files = {name: name for name in GRAPH_FILES}
        write_int8_half(quantized, files, folders["int8"], shape, documents)


def _row(compiled: CompiledGraph, graph: str) -> Row:
    if compiled.refusals:
        raise BuildError(f"{graph}: {'; '.join(compiled.refusals)}")
    return {
        "engine": Path(graph).stem,
        "plan_bytes": compiled.plan_bytes,
        "weight_bytes": compiled.weight_bytes,
        "profiles": [asdict(profile) for profile in compiled.profiles],
    }


def tables() -> dict[str, Callable[[], str]]:
    """By the names that pages ask for them with."""
    return {"compiled": lambda: _table(read_json(MEASUREMENTS)["rows"])}


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Figures in the portable layout and, where they differ, behind an arrow in TensorRT's."""
    header = (
        "model, engine, precision", "kernels a run", "fused attentions", "copies",
        "of these: K/V", "int8 / half / float products", "scratch, MiB", "plan, MiB",
    )  # fmt: skip
    by_key = {(r["model"], r["engine"], r["precision"], r["layout"]): r for r in rows}
    keys = dict.fromkeys(key[:3] for key in by_key)
    return markdown_table(
        header,
        [
            [
                ", ".join(key),
                *map(_change, _cells(by_key[(*key, PORTABLE)]), _cells(by_key[(*key, TENSORRT)])),
            ]
            for key in sorted(keys)
        ],
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    """Of the most demanding profile."""
    profile = max(row["profiles"], key=lambda each: each["num_kernels"])
    scratch = max(each["activation_bytes"] for each in row["profiles"])
    products = [profile["products"].get(kind, 0) for kind in ("Int8", "Half", "Float")]
    counted = ("num_kernels", "num_attentions", "num_copies", "num_kv_copies")
    return [
        *(str(profile[key]) for key in counted),
        " / ".join(map(str, products)),
        f"{scratch / MIB:.0f}",
        f"{row['plan_bytes'] / MIB:.0f}",
    ]


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiled", description=__doc__)
    parser.add_argument(
        "--model",
        action="append",
        choices=list(MODELS),
        help="compile this model alone; may be repeated (default: all)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=MEASUREMENTS,
        metavar="FILE",
        help="where the figures go; the page is written with the default alone "
        "(default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
