"""The build itself: checkpoint -> engines -> comparison with PyTorch -> repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers.utils import logging as transformers_logging

from builders import repository
from builders.artefact import Artefact, read_back
from builders.checkpoint import Checkpoint, load_checkpoint
from builders.config import BuildConfig
from builders.console import print_lines, print_summary, step
from builders.export import export_decoder, export_encoder
from builders.fit import fit_limits, model_shape
from builders.generation_defaults import fit_defaults
from builders.manifest import BuildFacts, write_manifest
from builders.prune_checkpoint import Pruning, prune_checkpoint
from builders.repository import Layout
from builders.special_ids import IdOverrides
from builders.staging import check_output, staged
from builders.verification import Verification, verify
from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE, TOKENIZER_FILE, ModelShape
from kobart_runtime.settings import GenerationSettings, Limits
from kobart_runtime.tokenizer import Tokenizer

AUTO_REASON = "auto: this version has no TensorRT builder"
ASKED_REASON = "as asked"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint, fitted to what the build was asked for."""

    checkpoint: Checkpoint
    limits: Limits
    defaults: GenerationSettings
    tokenizer: Tokenizer
    shape: ModelShape
    pruning: Pruning | None


def build(config: BuildConfig) -> Path:
    """Build, print the progress, and return the build's folder.

    Raises:
        KobartError: Says what is wrong with the options, the checkpoint or the result.
    """
    output = config.output_folder
    check_output(output, force=config.force)  # before minutes of work
    repository.check_sources()
    reason = AUTO_REASON if config.runtime == "auto" else ASKED_REASON
    print_lines("runtime", [f"onnxruntime ({reason})"])
    pruned = "".join(f", prune {text}" for text in config.prune or ())
    with step(1, f"load {config.checkpoint}{pruned}"):
        source, notes = load_source(config)
    print_lines("note", notes)
    print_lines("WARNING", source.checkpoint.warnings)
    if source.pruning:
        print_lines("prune", source.pruning.lines)
        print_lines("WARNING", source.pruning.stats["warnings"])
    with staged(output, force=config.force) as folder:
        facts = _fill(Layout(root=folder, name=config.model_name), config, source, reason)
    print_summary(facts, output)
    return output


def load_source(config: BuildConfig) -> tuple[Source, tuple[str, ...]]:
    """Load, prune and fit a checkpoint.

    Returns:
        What to export, and a line for each limit or default that was lowered.

    Raises:
        KobartError: Says what is wrong with the options or the checkpoint.
    """
    transformers_logging.disable_progress_bar()
    overrides = IdOverrides(
        decoder_start=config.decoder_start_token_id, forced_eos=config.forced_eos_token_id
    )
    checkpoint = load_checkpoint(config.checkpoint, overrides)
    limits, limit_notes = fit_limits(config, checkpoint.max_positions)
    defaults, default_notes = fit_defaults(checkpoint.defaults, limits)
    tokenizer = Tokenizer(
        checkpoint.tokenizer_path,
        config.tokenizer,
        checkpoint.ids,
        max_source_length=limits.max_source_length,
        vocab_size=checkpoint.vocab_size,
    )
    steps, patterns = config.prune_steps, config.prune_layers or None
    pruning = prune_checkpoint(checkpoint, steps, patterns, tokenizer) if steps else None
    source = Source(
        checkpoint=checkpoint,
        limits=limits,
        defaults=defaults,
        tokenizer=tokenizer,
        shape=model_shape(checkpoint, limits),
        pruning=pruning,
    )
    return source, limit_notes + default_notes


def _fill(layout: Layout, config: BuildConfig, source: Source, reason: str) -> BuildFacts:
    """Make everything that a build consists of below `layout.root`."""
    artefact = _export(layout, config.precision, source)
    facts = BuildFacts(
        config=config,
        runtime="onnxruntime",
        reason=reason,
        checkpoint=source.checkpoint,
        shape=source.shape,
        limits=source.limits,
        defaults=source.defaults,
        artefact=artefact,
        verification=_verify(layout, source, force=config.force),
        pruning=source.pruning,
    )
    with step(5, "lay out the repository"):
        path, files = source.checkpoint.tokenizer_path, source.checkpoint.files
        repository.write_front(layout, path, files[TOKENIZER_FILE])
        write_manifest(layout.root, facts, layout.artefacts)
        repository.link_models(layout, source.shape, source.limits.max_batch_size)
    return facts


def _export(layout: Layout, precision: str, source: Source) -> Artefact:
    """Write the engines and read back what they are; both must be what was asked for."""
    encoder, decoder = layout.front / ENCODER_FILE, layout.front / DECODER_FILE
    layout.front.mkdir(parents=True)
    with step(2, f"export {ENCODER_FILE}"):
        export_encoder(source.checkpoint.model, encoder)
    with step(3, f"export {DECODER_FILE}"):
        export_decoder(source.checkpoint.model, decoder, source.shape.num_candidates)
    artefacts = [read_back(path) for path in (encoder, decoder)]
    for artefact in artefacts:
        if artefact.precision != precision:
            raise BuildError(f"precision {precision} was asked for, built was {artefact.precision}")
    return min(artefacts, key=lambda artefact: artefact.precision_share)


def _verify(layout: Layout, source: Source, *, force: bool) -> Verification:
    """Compare the engines with PyTorch.

    Raises:
        BuildError: They differ by more than the gate, and nobody forced the build.
    """
    enforced = source.checkpoint.trained and not force
    with step(4, "compare with PyTorch"):
        verification = verify(
            source.checkpoint, layout.front, source.shape, source.tokenizer, enforced=enforced
        )
    if not verification.passed:
        _report_failed_gate(verification)
    return verification


def _report_failed_gate(verification: Verification) -> None:
    message = (
        f"the engines differ from the checkpoint by {verification.max_abs_error_logits:.1e} on "
        f"logits and {verification.max_abs_error_candidates:.1e} on candidates, the gate is "
        f"{verification.gate:.0e}"
    )
    if verification.enforced:
        raise BuildError(f"{message}; --force delivers the build all the same")
    print_lines("WARNING", [f"{message}; it is not enforced here"])
