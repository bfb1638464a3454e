"""What ONNX Runtime's builds are fitted to CPUs by, once their graphs are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from builders.agreement import Teacher
from builders.config import BuildConfig
from builders.cpu_candidates import group_candidates
from builders.cpu_graph import keep_beams_apart
from builders.cross_kv_choice import CrossKvChoice, choose_cross_kv, write_int8
from builders.encoder_choice import EncoderChoice, choose_encoder
from builders.graph_editing import rewriting
from builders.steps import Steps
from calibration.documents import DocumentSet
from kobart_runtime.model_config import CROSS_INT8_FILES, DECODER_FILE, EngineConfig, ModelShape


@dataclass(frozen=True, kw_only=True)
class CpuEngines:
    """What an int8 build runs on CPUs."""

    encoder: EncoderChoice
    cross_kv: CrossKvChoice


def lay_out(
    folder: Path, num_decoder_layers: int, step: Steps, *, cross_int8: bool = False
) -> None:
    """Lay the decoder out for CPUs, which every precision gains by.

    Args:
        folder: Where it lies.
        num_decoder_layers: Its layers.
        step: Announces what is done.
        cross_int8: Whether the decoder of int8 K/V lies there too.

    Raises:
        BuildError: A graph does not have the form that it is exported in.
    """
    with step(f"lay out {DECODER_FILE} for CPUs"):
        with rewriting(folder / DECODER_FILE) as graph:
            keep_beams_apart(graph, num_decoder_layers)
            group_candidates(graph)
        if cross_int8:
            with rewriting(folder / CROSS_INT8_FILES[1]) as graph:
                group_candidates(graph)


def fit_int8(
    folder: Path,
    config: BuildConfig,
    shape: ModelShape,
    documents: DocumentSet,
    teacher: Teacher,
    step: Steps,
) -> CpuEngines:
    """Lay out the decoder, and choose what is faster on this machine.

    Args:
        folder: Holds the int8 graphs that ONNX Runtime would run, and the portable ones.
        config: What was asked for.
        shape: The graphs' dimensions.
        documents: What to time and take scales from.
        teacher: The checkpoint's choices, to compare with.
        step: Announces what is done.

    Raises:
        BuildError: A graph does not have the form that it is exported in.
        ConfigError: OpenVINO was asked for and cannot be imported.
        EngineError: An engine cannot be loaded or run.
    """
    with step("time the encoder's engines"):
        encoder = choose_encoder(config.encoder_engine, folder, shape, documents, teacher)
    engines = EngineConfig(runtime="onnxruntime", shape=shape, encoder_engine=encoder.engine)
    if config.cross_kv == "float":
        lay_out(folder, shape.num_decoder_layers, step)
        return CpuEngines(encoder=encoder, cross_kv=CrossKvChoice(kept="float", reason="as asked"))
    with step("quantize cross-attention keys and values"):
        write_int8(folder, engines, documents)
    lay_out(folder, shape.num_decoder_layers, step, cross_int8=True)
    with step("time decode steps"):
        cross_kv = choose_cross_kv(config.cross_kv, folder, engines, documents, teacher)
    return CpuEngines(encoder=encoder, cross_kv=cross_kv)
