"""What ONNX Runtime's builds are fitted to CPUs by, once their graphs are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from builders.agreement import Teacher
from builders.choosing import Policy
from builders.config import BuildConfig
from builders.cpu_candidates import group_candidates
from builders.cpu_graph import keep_beams_apart
from builders.cross_kv_choice import (
    CrossKvChoice,
    choose_cross_kv,
    keep_floats,
    tries_int8,
    write_int8,
)
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

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line for each way that was to be taken and is below the accuracy gate."""
        return tuple(each.reason for each in (self.encoder, self.cross_kv) if each.fell_back)


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
    policy: Policy,
    shape: ModelShape,
    documents: DocumentSet,
    teacher: Teacher,
    step: Steps,
) -> CpuEngines:
    """Lay out the decoder, and choose what runs.

    Args:
        folder: Holds the int8 graphs that ONNX Runtime would run, and the portable ones.
        config: What was asked for.
        policy: What to choose by where that is "auto".
        shape: The graphs' dimensions.
        documents: What to time and take scales from.
        teacher: The checkpoint's choices, to compare with.
        step: Announces what is done.

    Raises:
        BuildError: A graph does not have the form that it is exported in.
        ConfigError: OpenVINO was asked for and cannot be imported.
        EngineError: An engine cannot be loaded or run.
    """
    with step("choose the encoder's engine"):
        encoder = choose_encoder(config.encoder_engine, policy, folder, shape, documents, teacher)
    engines = EngineConfig(runtime="onnxruntime", shape=shape, encoder_engine=encoder.engine)
    if not tries_int8(config.cross_kv, policy):
        lay_out(folder, shape.num_decoder_layers, step)
        return CpuEngines(encoder=encoder, cross_kv=keep_floats(config.cross_kv, policy))
    with step("quantize cross-attention keys and values"):
        write_int8(folder, engines, documents)
    lay_out(folder, shape.num_decoder_layers, step, cross_int8=True)
    with step("choose how keys and values are kept"):
        cross_kv = choose_cross_kv(config.cross_kv, policy, folder, engines, documents, teacher)
    return CpuEngines(encoder=encoder, cross_kv=cross_kv)
