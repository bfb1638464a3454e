"""The build itself: checkpoint -> engines -> comparison with PyTorch -> repository."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers.utils import logging as transformers_logging

from builders import int8_half, repository, torchscript
from builders.agreement import Teacher
from builders.artefact import Artefact, read_back, together
from builders.checkpoint import Checkpoint, load_checkpoint
from builders.choosing import Policy
from builders.config import BuildConfig
from builders.console import print_lines, print_prepared, print_summary
from builders.cpu_engines import CpuEngines, fit_int8, lay_out
from builders.cross_kv_choice import tries_int8
from builders.encoder_choice import find_openvino
from builders.export import export_decoder, export_encoder
from builders.fit import fit_limits, model_shape
from builders.generation_defaults import fit_defaults
from builders.manifest import BuildFacts, write_manifest
from builders.plan_preparation import write_prepared
from builders.plans import check_tensorrt_calibrates, make_plans
from builders.precision import (
    AGREEMENT_GATES,
    PORTABLE_FILES,
    QDQ,
    Conversion,
    Int8Maker,
    make_half,
    shipped_documents,
    workspace,
)
from builders.processor import Processor
from builders.prune_checkpoint import Pruning, prune_checkpoint
from builders.prune_ledger import graph_bytes
from builders.repository import Layout
from builders.runtime_choice import RuntimeChoice, choose_runtime, prepared_choice
from builders.special_ids import IdOverrides
from builders.staging import check_output, staged
from builders.steps import Steps
from builders.verification import Verification, compare
from calibration.documents import DocumentSet, Encoders, encode_pairs
from calibration.scales import SCALES_FILE
from kobart_documents import PairFile, read_pairs
from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import (
    DECODER_FILE,
    ENCODER_FILE,
    ENGINE_FILES,
    TOKENIZER_FILE,
    EngineConfig,
    ModelShape,
)
from kobart_runtime.model_runner import ModelRunner
from kobart_runtime.runners import open_runner
from kobart_runtime.settings import GenerationSettings, Limits
from kobart_runtime.tokenizer import Tokenizer

GATE_DOCUMENTS = 128  # compared with PyTorch at most


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint, fitted to what the build was asked for."""

    checkpoint: Checkpoint
    limits: Limits
    defaults: GenerationSettings
    tokenizer: Tokenizer
    shape: ModelShape
    pruning: Pruning | None
    documents: DocumentSet | None  # None: fp32 needs none
    teacher: Teacher | None  # the checkpoint's choices along the documents


def build(config: BuildConfig) -> Path:
    """Build, print the progress, and return the build's folder.

    Raises:
        KobartError: Says what is wrong with the options, the checkpoint or the result.
    """
    output = config.output_folder
    check_output(output, force=config.force)  # before minutes of work
    repository.check_sources()
    choice = (
        prepared_choice() if config.prepare else choose_runtime(config.runtime, config.precision)
    )
    if config.calibrated_by_tensorrt:
        check_tensorrt_calibrates()
    find_openvino(config.encoder_engine)
    policy = Policy(processor=Processor.read(), tune=config.tune, gate=AGREEMENT_GATES["int8"])
    print_lines("runtime", [f"{choice.runtime} ({choice.reason})"])
    pruned = "".join(f", prune {text}" for text in config.prune or ())
    if config.tune and choice.runtime == "tensorrt":
        print_lines("note", ["--tune changes nothing: TensorRT times its own kernels in any case"])
    tries_cross_int8 = tries_int8(config.cross_kv, policy)
    kind = "prepared" if config.prepare else choice.runtime
    step = Steps(config.precision, kind, tries_cross_int8=tries_cross_int8)
    with step(f"load {config.checkpoint}{pruned}"):
        source, notes = load_source(config)
    print_lines("note", notes)
    print_lines("WARNING", source.checkpoint.warnings)
    if source.pruning:
        print_lines("prune", source.pruning.lines)
        print_lines("WARNING", source.pruning.stats["warnings"])
    if not source.checkpoint.trained:
        policy = replace(policy, gate=0.0)  # random weights are measured and not judged
    # Graphs are exported in float32 whatever is made of them.
    least_bytes = graph_bytes(source.checkpoint.model)
    with staged(output, force=config.force, least_bytes=least_bytes) as folder:
        layout = Layout(root=folder, name=config.model_name, runtime=choice.runtime)
        facts = _fill(layout, config, policy, source, choice, step)
    if config.prepare:
        print_prepared(facts, output)
    else:
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
    pairs = _read_pairs(config)  # before the checkpoint is loaded, which takes long
    overrides = IdOverrides(
        decoder_start=config.decoder_start_token_id, forced_eos=config.forced_eos_token_id
    )
    checkpoint = load_checkpoint(
        config.checkpoint, overrides, tokenizer=config.tokenizer, adapter=config.adapter
    )
    limits, limit_notes = fit_limits(config, checkpoint.max_positions)
    defaults, default_notes = fit_defaults(checkpoint.defaults, limits)
    tokenizer = Tokenizer(
        checkpoint.tokenizer_path,
        config.text_to_ids,
        checkpoint.ids,
        max_source_length=limits.max_source_length,
        vocab_size=checkpoint.vocab_size,
    )
    documents = _encode_pairs(config, checkpoint, limits, pairs) if pairs else None
    steps, patterns = config.prune_steps, config.prune_layers or None
    pruning = prune_checkpoint(checkpoint, steps, patterns, tokenizer) if steps else None
    source = Source(
        checkpoint=checkpoint,
        limits=limits,
        defaults=defaults,
        tokenizer=tokenizer,
        shape=model_shape(checkpoint, limits),
        pruning=pruning,
        documents=documents,
        teacher=Teacher(checkpoint, documents.sample(GATE_DOCUMENTS)) if documents else None,
    )
    return source, limit_notes + default_notes


def _read_pairs(config: BuildConfig) -> PairFile | None:
    """What fp16 and int8 are fitted to: as asked for, or what the checkpoint ships; fp32: none."""
    if config.precision == "fp32":
        return None
    if config.calibration_data:
        return read_pairs(Path(config.calibration_data), config.reading)
    return read_pairs(shipped_documents(config.checkpoint))


def _encode_pairs(
    config: BuildConfig, checkpoint: Checkpoint, limits: Limits, pairs: PairFile
) -> DocumentSet:
    encoders = Encoders.from_tokenizer(
        checkpoint.tokenizer_path, config.text_to_ids, checkpoint.ids, limits, checkpoint.vocab_size
    )
    return encode_pairs(pairs, encoders)


def _fill(
    layout: Layout,
    config: BuildConfig,
    policy: Policy,
    source: Source,
    choice: RuntimeChoice,
    step: Steps,
) -> BuildFacts:
    """Make everything that a build consists of below `layout.root`."""
    layout.front.mkdir(parents=True)
    # TensorRT's plans are made from graphs that have been compared with PyTorch.
    runtime = "onnxruntime" if choice.runtime == "tensorrt" else choice.runtime
    conversion = None
    if runtime == "torchscript":
        _trace(layout.front, source, step)
    elif config.graph_precision == "fp32":
        _export(layout.front, source, choice.runtime, step)
    else:
        with workspace(layout.root) as graphs:
            _export(graphs, source, choice.runtime, step)
            conversion = _convert(graphs, layout.front, config.precision, policy, source, step)
    if conversion and choice.runtime == "tensorrt" and config.precision == "int8":
        conversion = _put_into_half(layout.front, conversion, source, step)
    cpu = None
    if choice.runtime == "onnxruntime":
        cpu = _fit_to_cpu(layout.front, config, policy, source, step)
    print_lines("WARNING", _fallbacks(conversion, cpu))
    engines = EngineConfig(runtime=runtime, shape=source.shape)
    if cpu:
        engines = replace(engines, encoder_engine=cpu.encoder.engine, cross_kv=cpu.cross_kv.kept)
    portable = conversion.portable if conversion else ()
    names = dict.fromkeys([*ENGINE_FILES[runtime], *engines.files, *portable])
    graphs_built = [name for name in names if name != SCALES_FILE]
    artefacts = _read_back(layout.front, runtime, graphs_built, config.graph_precision)
    with step("compare with PyTorch"):
        runner = open_runner(layout.front, engines)
        verification = _verify(runner, config, source, conversion, cpu)
    _check_gate(verification)
    plans = None
    if choice.runtime == "tensorrt" and not config.prepare:
        plans = make_plans(layout, config, source, choice.gpu, step)
        _check_gate(plans.verification)
    facts = BuildFacts(
        config=config,
        runtime=choice.runtime,
        reason=choice.reason,
        checkpoint=source.checkpoint,
        shape=source.shape,
        limits=source.limits,
        defaults=source.defaults,
        artefact=together([artefacts[name] for name in ENGINE_FILES[runtime]]),
        products={name: artefact.products for name, artefact in artefacts.items()},
        verification=verification,
        processor=policy.processor,
        conversion=conversion,
        cpu=cpu,
        pruning=source.pruning,
        plans=plans,
    )
    if config.prepare:
        with step("write graphs, profiles and manifest"):
            write_prepared(layout, facts)
        return facts
    with step("lay out the repository"):
        path, files = source.checkpoint.tokenizer_path, source.checkpoint.files
        further = [*facts.engines.files, *facts.engines.engine_model_files("encoder"), *portable]
        delivered = [*layout.artefacts, *(layout.front / name for name in further)]
        repository.write_front(layout, path, files[TOKENIZER_FILE])
        write_manifest(layout.root, facts, [*dict.fromkeys(delivered)])
        repository.link_models(
            layout,
            facts.engines,
            source.limits.max_batch_size,
            config.precision,
            plans.facts if plans else None,
        )
    return facts


def _export(folder: Path, source: Source, runtime: str, step: Steps) -> None:
    """Write the float32 graphs, as the runtime likes them best."""
    with step(f"export {ENCODER_FILE}"):
        export_encoder(source.checkpoint.model, folder / ENCODER_FILE)
    with step(f"export {DECODER_FILE}"):
        export_decoder(
            source.checkpoint.model,
            folder / DECODER_FILE,
            source.shape.num_candidates,
            joined=runtime == "tensorrt",
        )


def _trace(folder: Path, source: Source, step: Steps) -> None:
    """Write the float32 TorchScript modules."""
    encoder, decoder = ENGINE_FILES["torchscript"]
    with step(f"trace {encoder}"):
        torchscript.trace_encoder(source.checkpoint.model, folder / encoder)
    with step(f"trace {decoder}"):
        model, num_candidates = source.checkpoint.model, source.shape.num_candidates
        torchscript.trace_decoder(model, folder / decoder, num_candidates)


def _convert(
    graphs: Path, target: Path, precision: str, policy: Policy, source: Source, step: Steps
) -> Conversion:
    """Make the engines of a lower precision from the float32 graphs."""
    documents, teacher = source.documents, source.teacher
    assert documents
    assert teacher
    count = f"{len(documents.documents)} documents"
    if precision == "fp16":
        with step("convert to float16, watching for overflows"):
            return make_half(graphs, target, source.shape, documents)
    trained = source.checkpoint.trained
    maker = Int8Maker(graphs, source.shape, documents, teacher, trained, policy)
    with step(f"calibrate on {count}"):
        scales = maker.calibrate()
    with step("quantize to int8"):
        return maker.make(scales, target)


def _put_into_half(folder: Path, conversion: Conversion, source: Source, step: Steps) -> Conversion:
    """Replace the int8 engines by those that TensorRT builds plans from."""
    assert source.documents
    with step("convert what is not int8 to float16"):
        kept = int8_half.write_int8_half(
            folder, PORTABLE_FILES, folder, source.shape, source.documents
        )
    float32_nodes = (*conversion.float32_nodes, *kept)
    return replace(conversion, kind=int8_half.KIND, float32_nodes=float32_nodes)


def _fit_to_cpu(
    folder: Path, config: BuildConfig, policy: Policy, source: Source, step: Steps
) -> CpuEngines | None:
    """Lay out what ONNX Runtime runs; None: there was nothing to choose."""
    if config.precision != "int8":
        lay_out(folder, source.shape.num_decoder_layers, step)
        return None
    assert source.documents
    assert source.teacher
    return fit_int8(folder, config, policy, source.shape, source.documents, source.teacher, step)


def _fallbacks(conversion: Conversion | None, cpu: CpuEngines | None) -> tuple[str, ...]:
    """A line for each way of an int8 build that was to be taken and is below the accuracy gate."""
    kind = (conversion.reason or "",) if conversion and conversion.fell_back else ()
    return (*kind, *(cpu.warnings if cpu else ()))


def _read_back(
    folder: Path, runtime: str, names: Sequence[str], precision: str
) -> dict[str, Artefact]:
    """What the graphs of a folder compute in, by file name.

    Raises:
        BuildError: One does not compute in the precision that was asked for.
    """
    read = torchscript.read_back if runtime == "torchscript" else read_back
    artefacts = {name: read(folder / name) for name in names}
    for name, artefact in artefacts.items():
        artefact.check(name, precision)
    return artefacts


def _verify(
    runner: ModelRunner,
    config: BuildConfig,
    source: Source,
    conversion: Conversion | None,
    cpu: CpuEngines | None,
) -> Verification:
    """Compare the engines that the front model opens with PyTorch.

    The engine models have others if the front model keeps int8 K/V: the lower agreement counts.
    """
    enforced = source.checkpoint.trained and not config.force
    verification = compare(source.checkpoint, runner, source.tokenizer, enforced=enforced)
    if not (conversion and source.teacher):
        return verification
    agreement = cpu.cross_kv.agreement if cpu else None
    return verification.gated_by_agreement(
        source.teacher.agreement_of(runner) if agreement is None else agreement,
        source.teacher.num_tokens,
        AGREEMENT_GATES[config.precision],
        conversion.agreements.get(QDQ),
    )


def _check_gate(verification: Verification) -> None:
    """Let engines pass that are near enough to the checkpoint.

    Raises:
        BuildError: They differ by more than the gate, and nobody forced the build.
    """
    if verification.passed:
        return
    message = f"the engines differ from the checkpoint by too much: {verification.summary}"
    if verification.enforced:
        raise BuildError(f"{message}; --force delivers the build all the same")
    print_lines("WARNING", [f"{message}; it is not enforced here"])
