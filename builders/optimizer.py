"""`TensorRTOptimizer`: a small door onto the plan builder for a model in memory.

`kobart-build` makes a whole Triton repository; this makes the two engines of one PyTorch model
and measures them. Without TensorRT or a GPU it says so and traces the model instead.
"""

from __future__ import annotations

import json
import logging
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import BartForConditionalGeneration

from builders.forward_pass import engine_pass, pytorch_pass
from builders.generating import generate, token_ids
from builders.gpu import Gpu
from builders.gpu_sampler import GpuSampler
from builders.measuring import measure
from builders.optimizer_graphs import (
    IdPairs,
    document_set,
    export_graphs,
    half_graphs,
    int8_graphs,
)
from builders.plan_facts import PlanFacts
from builders.profiles import decoder_profiles, encoder_profiles
from builders.runtime_choice import find_gpu, missing_packages
from calibration.documents import DocumentSet
from calibration.scales import GRAPH_FILES
from kobart_runtime.errors import ConfigError
from kobart_runtime.model_config import ENGINE_FILES, EngineConfig, ModelShape
from kobart_runtime.model_runner import ModelRunner
from kobart_runtime.runners import open_runner
from kobart_runtime.settings import GenerationSettings, Limits

PRECISIONS = ("fp32", "fp16", "int8")
SAVED = ("precision", "workspace_size", "max_batch_size")
AXES = {"input_ids", "attention_mask"}


@dataclass(frozen=True)
class OptimizedModel:
    """The engines of one model, open."""

    runtime: str  # "tensorrt" or "torchscript"
    folder: Path  # holds the two engine files
    model: BartForConditionalGeneration  # what they were made from
    runner: ModelRunner
    shape: ModelShape
    limits: Limits
    facts: dict[str, PlanFacts]  # of TensorRT plans, by file name

    def generate(
        self, input_ids: Sequence[Sequence[int]], settings: GenerationSettings | None = None
    ) -> list[list[int]]:
        """Summaries of token ids, as `transformers` `generate()` would give them.

        Args:
            input_ids: One list a source; no padding.
            settings: How to search (default: `GenerationSettings()`).

        Returns:
            The generated ids of each source, decoder start excluded.

        Raises:
            InvalidArgumentError: A setting is outside the limits.
        """
        chosen = settings or GenerationSettings()
        return generate(self.runner, self.model, input_ids, chosen, self.limits, self.shape)


class TensorRTOptimizer:
    """Turns a BART model into TensorRT plans, and measures models."""

    def __init__(
        self,
        precision: str = "fp16",
        workspace_size: int | None = None,
        max_batch_size: int = 32,
        logger: logging.Logger | None = None,
    ) -> None:
        """Look at the machine.

        Args:
            precision: "fp32", "fp16", or "int8", whose conversion asks for documents.
            workspace_size: Scratch memory that a layer may use, bytes; None: as much as it wants.
            max_batch_size: Sources that run together at most.
            logger: Told what is done (default: this module's).

        Raises:
            ConfigError: A setting is out of range, or the GPU cannot do it.
        """
        self.logger = logger or logging.getLogger(__name__)
        self.gpu: Gpu | None = find_gpu()
        self.missing = missing_packages()
        self._set(precision, workspace_size, max_batch_size)

    @property
    def tensorrt_available(self) -> bool:
        """Whether plans can be built and run here."""
        return self.gpu is not None and not self.missing

    def convert_to_tensorrt(
        self,
        model: BartForConditionalGeneration,
        input_shape: tuple[int, int],
        output_path: str | Path,
        dynamic_axes: Mapping[str, Mapping[int, str]] | None = None,
        *,
        documents: IdPairs | None = None,
    ) -> OptimizedModel:
        """Make the encoder's and the decoder's engine and open them.

        Args:
            model: The checkpoint, float32.
            input_shape: (sources, source tokens) of a usual batch.
            output_path: Folder for the engine files; made if it is missing.
            dynamic_axes: Axes of `input_ids` that may grow beyond `input_shape`: 0 to
                `max_batch_size`, 1 to the model's positions (default: both).
            documents: What int8 is calibrated on: (source ids, summary ids) of each; the summary
                without the decoder's start. A hundred of the kind to be served are enough.

        Raises:
            ConfigError: The shape or an axis is not possible, or int8 was given no documents.
            BuildError: TensorRT refused the model.
        """
        model = model.eval()
        limits = self._limits(model, input_shape, dynamic_axes)
        shape = _model_shape(model, limits)
        calibration = self._documents(model, documents, limits)
        folder = Path(output_path)
        folder.mkdir(parents=True, exist_ok=True)
        facts: dict[str, PlanFacts] = {}
        if self.tensorrt_available:
            facts = self._build_plans(model, shape, limits, folder, calibration)
        else:
            self._trace(model, shape, folder)
        runtime = "tensorrt" if self.tensorrt_available else "torchscript"
        runner = open_runner(folder, EngineConfig(runtime=runtime, shape=shape))
        return OptimizedModel(runtime, folder, model, runner, shape, limits, facts)

    def benchmark(
        self,
        model: OptimizedModel | BartForConditionalGeneration,
        input_shape: tuple[int, int],
        n_iterations: int = 100,
        warmup_iterations: int = 10,
    ) -> dict[str, float]:
        """Time a forward pass: the encoder and one decoder token of every source.

        Args:
            model: Engines, or the PyTorch model to compare them with.
            input_shape: (sources, source tokens).
            n_iterations: Passes that are timed.
            warmup_iterations: Passes before them.

        Returns:
            Seconds `avg_time`, `p50`, `p95`, `p99`; `throughput` in sources a second;
            `memory_mb`, the most that this process has had of the host's memory up to now.
            Where the engines run on a GPU: `memory_mb`, the most that was in use on the GPU, by
            this or any other program, and `gpu_utilization`, the mean in %; both are sampled
            while the timed passes run, ten times a second (see `GpuSampler`).

        Raises:
            ConfigError: A number is not above 0.
            BuildError: nvidia-smi does not tell the GPU's use.
        """
        for name, value in (("n_iterations", n_iterations), ("input_shape", min(input_shape))):
            if value < 1:
                raise ConfigError(f"{name} must be above 0, got {value}")
        vocab_size = _bart(model).config.vocab_size
        ids = np.random.default_rng(0).integers(vocab_size, size=input_shape).astype(np.int32)
        if isinstance(model, OptimizedModel):
            run, on_gpu = engine_pass(model.runner, ids), model.runtime == "tensorrt"
        else:
            run, on_gpu = pytorch_pass(model, ids), False
        return measure(
            run,
            num_samples=input_shape[0],
            num_iterations=n_iterations,
            num_warmup=warmup_iterations,
            watch=GpuSampler() if on_gpu else None,
        )

    def save_config(self, path: str | Path) -> None:
        """Write the settings, what this machine has, and versions as JSON."""
        settings = {name: getattr(self, name) for name in SAVED}
        content = {
            **settings,
            "tensorrt_available": self.tensorrt_available,
            "versions": _versions(),
        }
        Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def load_config(self, path: str | Path) -> None:
        """Take the settings of a saved file; what this machine has is looked at anew.

        Raises:
            ConfigError: The file is no such JSON, or a setting is out of range.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            settings = {name: content[name] for name in SAVED}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is no saved configuration ({error!r})") from error
        self._set(**settings)

    def _set(self, precision: str, workspace_size: int | None, max_batch_size: int) -> None:
        if precision not in PRECISIONS:
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision}")
        for name, value in (("workspace_size", workspace_size), ("max_batch_size", max_batch_size)):
            if (name, value) == ("workspace_size", None):
                continue
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be a whole number above 0, got {value!r}")
        if self.tensorrt_available and self.gpu:
            self.gpu.check(precision)
        self.precision = precision
        self.workspace_size = workspace_size
        self.max_batch_size = max_batch_size

    def _limits(
        self,
        model: BartForConditionalGeneration,
        input_shape: tuple[int, int],
        dynamic_axes: Mapping[str, Mapping[int, str]] | None,
    ) -> Limits:
        positions = int(model.config.max_position_embeddings)
        largest = (self.max_batch_size, min(positions, Limits.max_source_length))
        for name, size, most in zip(("batch", "source"), input_shape, largest, strict=True):
            if not 1 <= size <= most:
                raise ConfigError(f"the {name} of input_shape must be 1..{most}, got {size}")
        unknown = set(dynamic_axes or ()) - AXES
        if unknown:
            raise ConfigError(f"dynamic_axes names {', '.join(unknown)}: valid are input_ids alone")
        axes = {0, 1} if dynamic_axes is None else set().union(*dynamic_axes.values())
        batch, source = (largest[i] if i in axes else input_shape[i] for i in (0, 1))
        return Limits(
            max_batch_size=batch,
            max_source_length=source,
            max_target_length=min(positions, Limits.max_target_length),
        )

    def _documents(
        self, model: BartForConditionalGeneration, documents: IdPairs | None, limits: Limits
    ) -> DocumentSet | None:
        if self.precision != "int8":
            return None
        if documents is None:
            raise ConfigError(
                "precision int8 is calibrated on documents: give documents=[(source ids, summary "
                "ids), ...], a hundred or so of the kind to be served"
            )
        start, vocab_size = token_ids(model).decoder_start, int(model.config.vocab_size)
        return document_set(documents, start, vocab_size, limits)

    def _build_plans(
        self,
        model: BartForConditionalGeneration,
        shape: ModelShape,
        limits: Limits,
        folder: Path,
        documents: DocumentSet | None,
    ) -> dict[str, PlanFacts]:
        from builders.engine import EngineOptions, build_plan

        options = EngineOptions(precision=self.precision, workspace_bytes=self.workspace_size)
        profiles = (encoder_profiles(limits), decoder_profiles(shape, limits))
        with TemporaryDirectory() as temporary:
            graphs = Path(temporary)
            export_graphs(model, graphs, shape)
            if self.precision == "fp16":
                graphs = half_graphs(graphs, shape, limits)
            elif documents:
                graphs = int8_graphs(graphs, shape, documents)
            jobs = zip(ENGINE_FILES["tensorrt"], GRAPH_FILES, profiles, strict=True)
            return {
                name: build_plan(graphs / graph, folder / name, wanted, options)
                for name, graph, wanted in jobs
            }

    def _trace(self, model: BartForConditionalGeneration, shape: ModelShape, folder: Path) -> None:
        from builders.torchscript import trace_decoder, trace_encoder

        found = "" if self.gpu else "an NVIDIA GPU that answers its driver"
        lacks = " and ".join(filter(None, [*self.missing, found]))
        self.logger.warning(
            "TensorRT is not used, this machine lacks %s: the engines are TorchScript, in fp32 on "
            "the CPU",
            lacks,
        )
        encoder, decoder = (folder / name for name in ENGINE_FILES["torchscript"])
        trace_encoder(model, encoder)
        trace_decoder(model, decoder, shape.num_candidates)
        for path in (encoder, decoder):
            _optimize_for_inference(path)


def create_tensorrt_optimizer(
    precision: str = "fp16",
    workspace_size: int | None = None,
    max_batch_size: int = 32,
    logger: logging.Logger | None = None,
) -> TensorRTOptimizer:
    """See `TensorRTOptimizer`."""
    return TensorRTOptimizer(precision, workspace_size, max_batch_size, logger)


def _optimize_for_inference(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated for new work, not for this
        optimized = torch.jit.optimize_for_inference(torch.jit.load(path, map_location="cpu"))
        optimized.save(str(path))


def _model_shape(model: BartForConditionalGeneration, limits: Limits) -> ModelShape:
    layers = model.model.decoder.layers
    vocab_size = int(model.config.vocab_size)
    num_candidates = 2 * (1 + len(token_ids(model).eos)) * limits.max_beams
    return ModelShape(
        num_decoder_layers=len(layers),
        num_heads=layers[0].self_attn.num_heads,
        head_dim=layers[0].self_attn.head_dim,
        vocab_size=vocab_size,
        num_candidates=min(vocab_size, num_candidates),
    )


def _bart(model: OptimizedModel | BartForConditionalGeneration) -> BartForConditionalGeneration:
    return model.model if isinstance(model, OptimizedModel) else model


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("torch", "tensorrt", "polygraphy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
