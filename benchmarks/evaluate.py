"""`kobart-evaluate`: ROUGE of a build's summaries, and how far they are PyTorch's."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from kobart_runtime.required_packages import required_packages

with required_packages("kobart-evaluate", "serve,build,report"):
    import numpy as np
    from tqdm import tqdm

    from benchmarks.our_runtime import LocalAnswers, open_tokenizer
    from benchmarks.recording import EXIT_FAILED, REPORTS, Content, add_output, record
    from benchmarks.subjects import BuildFacts
    from client.arguments import add_setting_flags, given_settings
    from client.cli import use_utf8
    from client.evaluation.content import Evaluation, headlines, plots, tables
    from client.evaluation.journal import Journal
    from client.evaluation.outcome import Answer, Outcome, Splitter
    from client.evaluation.served import ServedAnswers
    from client.morphemes import morpheme_splitter
    from client.report.document import Text
    from client.rouge import characters, words
    from client.sync_client import KobartClient
    from kobart_documents import Pair, ReadOptions, add_reading_flags, read_pairs
    from kobart_documents.options import FORMATS
    from kobart_runtime.errors import ConfigError
    from kobart_runtime.model_config import MANIFEST_NAME, sha256_of
    from kobart_runtime.settings import GenerationSettings

NUM_QUICK = 16


class Answers(Protocol):
    """Whatever summarizes."""

    group_size: int

    def answers(self, texts: Sequence[str]) -> list[Answer]:
        """One answer a text."""


class EvaluateBenchmark:
    """See `benchmarks.recording.Benchmark`."""

    command = "kobart-evaluate"

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._build = BuildFacts.read(args.build)
        self._settings = self._build.config.defaults.override(given_settings(args))
        self._settings.check(self._build.config.limits)
        limit = NUM_QUICK if args.quick else args.limit
        self._file = read_pairs(args.data, ReadOptions.given(args), limit)
        self._splitters = _splitters()
        self._journal = Journal(args.output, self._inputs())
        name = self._build.name
        self.title = Text(f"Summaries of {name}", f"{name}의 요약 품질")
        self.subject = self._build.subject
        self.settings = {
            "data": f"{args.data.name}, {len(self._file.pairs)} documents",
            "answered_by": "a server" if args.url else "the runtime in this process",
            "compared_with": args.checkpoint or "the references alone",
            "generation": ", ".join(f"{k} {v}" for k, v in vars(self._settings).items()),
        }

    def measure(self) -> None:
        """See `Benchmark`; documents that an earlier run finished are not asked again."""
        done = {outcome.index for outcome in self._journal.outcomes}
        left = [index for index in range(len(self._file.pairs)) if index not in done]
        with (
            contextlib.closing(self._journal),
            self._answers() as answers,
            tqdm(total=len(self._file.pairs), initial=len(done), unit="doc", disable=None) as bar,
        ):
            checkpoint = self._checkpoint() if left else None
            for start in range(0, len(left), answers.group_size):
                group = left[start : start + answers.group_size]
                for outcome in self._evaluate(group, answers, checkpoint):
                    self._journal.add(outcome)
                    bar.update()

    def content(self) -> Content | None:
        """See `Benchmark`."""
        outcomes = sorted(self._journal.outcomes, key=lambda outcome: outcome.index)
        if not outcomes:
            return None
        return Content(
            headlines=tuple(headlines(Evaluation.of(outcomes))),
            plots=tuple(plots(outcomes)),
            tables=tuple(tables(outcomes)),
        )

    def shortfalls(self) -> Iterator[str]:
        """What lies below the limits of the command line."""
        found = Evaluation.of(self._journal.outcomes)
        if self._args.min_rouge_l is not None and found.rouge_l < self._args.min_rouge_l:
            yield (
                f"ROUGE-L on characters is {found.rouge_l:.4f}, below --min-rouge-l "
                f"{self._args.min_rouge_l:g}"
            )
        least = self._args.min_agreement
        if least is not None and found.agreement is not None and found.agreement < least:
            share = f"{found.agreement:.2%}"
            yield f"{share} of the tokens are PyTorch's, below --min-agreement {least:g}"

    def _evaluate(
        self, group: Sequence[int], answers: Answers, checkpoint: _Checkpoint | None
    ) -> Iterator[Outcome]:
        pairs = [self._file.pairs[index] for index in group]
        given = answers.answers([pair.text for pair in pairs])
        ids = checkpoint.ids(pairs) if checkpoint else [None] * len(group)
        for index, pair, answer, theirs in zip(group, pairs, given, ids, strict=True):
            yield Outcome.of(index, pair.summary, answer, self._splitters, theirs)

    @contextlib.contextmanager
    def _answers(self) -> Iterator[Answers]:
        config = self._build.config
        if self._args.url:
            with KobartClient(self._args.url, model=config.name) as client:
                client.check_ready()
                yield ServedAnswers(client, dict(vars(self._settings)))
        else:
            local = LocalAnswers(self._build.path, config, self._settings)
            with contextlib.closing(local):
                yield local

    def _checkpoint(self) -> _Checkpoint | None:
        source = self._args.checkpoint
        return _Checkpoint(source, self._build, self._settings) if source else None

    def _inputs(self) -> dict[str, object]:
        """What the answers depend on; an evaluation of other inputs is not gone on with."""
        return {
            "build": sha256_of(self._build.path / MANIFEST_NAME),
            "data": self._file.sha256,
            "columns": list(self._file.columns),
            "documents": len(self._file.pairs),
            "checkpoint": self._args.checkpoint,
            "served": bool(self._args.url),
            "units": list(self._splitters),
            "settings": vars(self._settings),
        }


class _Checkpoint:
    """The PyTorch checkpoint, asked with the build's ids, tokenizer and settings."""

    def __init__(self, source: str, build: BuildFacts, settings: GenerationSettings) -> None:
        # Imported here: without --checkpoint nothing needs PyTorch.
        from transformers.utils import logging as transformers_logging

        from benchmarks.systems import TorchGenerate
        from builders.checkpoint import load_checkpoint
        from builders.special_ids import IdOverrides

        transformers_logging.disable_progress_bar()  # there is one of our own
        transformers_logging.set_verbosity_error()
        checkpoint = load_checkpoint(source, IdOverrides(), **build.load_options(source))
        self._system = TorchGenerate(replace(checkpoint, ids=build.config.ids))
        self._tokenizer = open_tokenizer(build.path, build.config)
        self._settings = settings

    def ids(self, pairs: Sequence[Pair]) -> list[tuple[int, ...] | None]:
        """Its answers."""
        sources: list[np.ndarray] = [self._tokenizer.encode(pair.text).input_ids for pair in pairs]
        return [tuple(row) for row in self._system.generate(sources, self._settings)]


def _splitters() -> dict[str, Splitter]:
    """The units that can be scored here; a missing one is told of in the report."""
    splitters: dict[str, Splitter] = {"characters": characters, "words": words}
    try:
        splitters["morphemes"] = morpheme_splitter()
    except ConfigError as error:
        print(f"note: {error}", file=sys.stderr)
    return splitters


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="kobart-evaluate",
        description="Summarize documents with a build and score the summaries against their "
        "references: ROUGE-1, 2 and L on characters, morphemes and words. An interrupted run "
        "goes on where it stopped.",
        epilog="exit status: 0; 1 after an error, or below a --min flag; 130 after Ctrl-C",
    )
    parser.add_argument("build", type=Path, metavar="BUILD", help="folder of a build")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FILE",
        help=f"documents with their summaries: {FORMATS}",
    )
    add_reading_flags(parser)
    parser.add_argument(
        "--url", metavar="HOST:PORT", help="ask a server of this build (default: in process)"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="DIR_OR_HUB_ID",
        help="compare the ids with those of this checkpoint in PyTorch",
    )
    parser.add_argument(
        "--limit", type=_positive_int, metavar="N", help="only the first N documents"
    )
    parser.add_argument(
        "--min-rouge-l", type=float, metavar="F1", help="least mean ROUGE-L on characters, 0..1"
    )
    parser.add_argument(
        "--min-agreement", type=float, metavar="SHARE", help="least share of PyTorch's tokens, 0..1"
    )
    add_setting_flags(parser)
    add_output(parser, "evaluate", quick=f"the first {NUM_QUICK} documents alone")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.min_agreement is not None and args.checkpoint is None:
        parser.error("--min-agreement needs --checkpoint: there is nothing else to agree with")
    args.output = args.output or REPORTS / f"evaluate-{args.build.name}"
    use_utf8()
    made: list[EvaluateBenchmark] = []

    def make() -> EvaluateBenchmark:
        made.append(EvaluateBenchmark(args))
        return made[0]

    code = record(make, args.output, is_quick=args.quick)
    if code != 0:
        return code
    shortfalls = list(made[0].shortfalls())
    for shortfall in shortfalls:
        print(f"error: {shortfall}", file=sys.stderr)
    return EXIT_FAILED if shortfalls else 0


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
