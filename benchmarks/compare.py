"""`kobart-bench compare`: builds side by side with PyTorch and CTranslate2, and which to ship."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.compare_builds import standard_builds
from benchmarks.compare_content import CompareResults, compare_content
from benchmarks.contestants import (
    BuildContestant,
    Contestant,
    TorchContestant,
    one_round,
    runners,
)
from benchmarks.converted import ctranslate2_contestants
from benchmarks.our_runtime import open_tokenizer
from benchmarks.recording import REPORTS, Content, add_output, record
from benchmarks.subjects import BuildFacts, add_documents
from builders.checkpoint import RANDOM_CHECKPOINT
from builders.checkpoint_files import find_folder
from builders.paths import DEFAULT_CHECKPOINT
from client.arguments import add_setting_flags, given_settings
from client.report.document import Text
from client.rouge import characters, rouge_l
from kobart_documents import ReadOptions, read_pairs
from kobart_runtime.errors import CheckpointError, ConfigError, InvalidArgumentError

COMMAND = "compare"
BASELINE = "PyTorch fp32"


class CompareBenchmark:
    """See `benchmarks.recording.Benchmark`."""

    command = f"kobart-bench {COMMAND}"

    def __init__(self, args: argparse.Namespace) -> None:
        paths = [*args.builds, *(standard_builds(args.checkpoint) if args.standard else ())]
        self._builds = [BuildFacts.read(path) for path in paths]
        if not self._builds:
            raise ConfigError("there is nothing to compare: name builds, or give --standard")
        config = self._builds[0].config
        self._checkpoint = args.checkpoint or self._builds[0].checkpoint
        self._load_options = self._builds[0].load_options(self._checkpoint)
        self._settings = config.defaults.override(given_settings(args))
        for build in self._builds:
            self._settings.check(build.config.limits)
        self._repeats = 2 if args.quick else args.repeats
        num_documents = 4 if args.quick else args.documents
        self._pairs = read_pairs(args.data, ReadOptions.given(args), num_documents).pairs
        self._tokenizer = open_tokenizer(self._builds[0].path, config)
        self._batch_size = args.batch_size
        self._wants_peers = args.peers
        self._results = CompareResults(
            baseline=BASELINE,
            least_rouge_share=args.min_rouge_share,
            builds=tuple(build.name for build in self._builds),
            is_trained=self._builds[0].is_trained,
        )
        self.title = Text("Builds side by side", "빌드 비교")
        names = ", ".join(build.name for build in self._builds)
        self.subject = {"builds": names, "checkpoint": self._checkpoint}
        self.settings = {
            "documents": f"{len(self._pairs)} of {args.data.name}, {self._batch_size} a batch",
            "generation": ", ".join(f"{k} {v}" for k, v in vars(self._settings).items()),
            "repeats": f"{self._repeats}, all systems in turn, after one that does not count",
            "processes": "one for each system",
        }

    def measure(self) -> None:
        """See `Benchmark`."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            contestants = list(self._contestants(folder))
            started = stack.enter_context(runners(contestants))
            work = partial(one_round, batches=self._batches(), settings=self._settings)
            total = len(started) * (self._repeats + 1)
            bar = stack.enter_context(tqdm(total=total, unit="run", disable=None))
            for repeat in range(self._repeats + 1):
                for contestant, runner in zip(contestants, started, strict=True):
                    bar.set_postfix_str(runner.name)
                    found = runner.run(work)
                    if repeat == 0:  # the warm-up gives the summaries
                        self._results.add(
                            contestant.name, contestant.size_mb, found.ids, self._rouge(found.ids)
                        )
                    else:
                        self._results.time(contestant.name, found)
                    bar.update()

    def content(self) -> Content | None:
        """See `Benchmark`."""
        return compare_content(self._results)

    def _contestants(self, folder: Path) -> Iterator[Contestant]:
        ids = self._builds[0].config.ids
        yield TorchContestant(
            name=BASELINE,
            size_mb=_weights_mb(self._checkpoint, self._builds[0]),
            checkpoint=self._checkpoint,
            ids=ids,
            load_options=self._load_options,
        )
        for build in self._builds:
            yield BuildContestant(name=build.name, size_mb=build.size_mb, path=build.path)
        if self._wants_peers:
            yield from self._ctranslate2(folder)

    def _ctranslate2(self, folder: Path) -> Iterator[Contestant]:
        ids = self._builds[0].config.ids
        try:
            yield from ctranslate2_contestants(self._checkpoint, ids, folder, self._load_options)
        except ConfigError as error:
            self._results.skipped.append(f"CTranslate2: {error}")
            print(f"note: CTranslate2 is not compared: {error}", file=sys.stderr)

    def _batches(self) -> list[list[np.ndarray]]:
        """Neighbours in length together, which is kind to systems that pad."""
        sources = [self._tokenizer.encode(pair.text).input_ids for pair in self._pairs]
        self._order = sorted(range(len(sources)), key=lambda index: len(sources[index]))
        ordered = [sources[index] for index in self._order]
        return [ordered[i : i + self._batch_size] for i in range(0, len(ordered), self._batch_size)]

    def _rouge(self, ids: Sequence[Sequence[int]]) -> float:
        """Mean ROUGE-L on characters."""
        scores = [
            rouge_l(characters(self._pairs[index].summary), characters(self._tokenizer.decode(row)))
            for index, row in zip(self._order, ids, strict=True)
        ]
        return sum(scores) / len(scores)


def _weights_mb(checkpoint: str, build: BuildFacts) -> float:
    """Of the checkpoint's files; random weights have none, and would take four bytes each."""
    if checkpoint == RANDOM_CHECKPOINT:
        return 4 * build.num_parameters / 1e6
    try:
        folder = find_folder(checkpoint)
    except CheckpointError:
        folder = None
    patterns = ("*.safetensors", "pytorch_model*.bin")
    files = [file for pattern in patterns for file in folder.glob(pattern)] if folder else []
    if not files:
        raise InvalidArgumentError(
            f"the checkpoint {checkpoint} has no weights here: give its folder with --checkpoint"
        )
    return sum(file.stat().st_size for file in files) / 1e6


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's flags."""
    parser = subparsers.add_parser(
        COMMAND,
        help="builds, PyTorch and CTranslate2 on the same documents: speed, ROUGE, memory, size",
        description="Summarize the same documents with builds, PyTorch and CTranslate2, each in a "
        "process of its own, in turns; recommends a build and says why.",
    )
    parser.add_argument(
        "builds", type=Path, nargs="*", metavar="BUILD", help="folders of builds of one checkpoint"
    )
    parser.add_argument(
        "--standard",
        action="store_true",
        help="fp32, TorchScript, pruning, fp16, int8 and fp16 with pruning; missing ones are built",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="what the builds came from (default: as the first one says)",
    )
    add_documents(parser, summaries=True)
    parser.add_argument(
        "--documents",
        type=int,
        default=64,
        metavar="N",
        help="how many of them are summarized (default %(default)s; --quick: 4)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=8,
        metavar="N",
        help="documents that a system is given at once (default %(default)s)",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        metavar="N",
        help="timed runs of each system, after one that is not timed "
        "(default %(default)s; --quick: 2)",
    )
    parser.add_argument(
        "--min-rouge-share",
        type=float,
        default=0.99,
        metavar="SHARE",
        help="of PyTorch's ROUGE-L that a recommended build keeps (default %(default)g)",
    )
    parser.add_argument(
        "--peers",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compare with CTranslate2 (default: yes)",
    )
    add_setting_flags(parser)
    add_output(parser, COMMAND, quick="4 documents and 2 repeats")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    if args.standard and args.checkpoint is None:
        args.checkpoint = DEFAULT_CHECKPOINT
    args.output = args.output or REPORTS / COMMAND
    return record(lambda: CompareBenchmark(args), args.output, is_quick=args.quick)
