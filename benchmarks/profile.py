"""`kobart-bench profile`: where the time goes, so that a bottleneck has a name."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from benchmarks.engine_feeds import Point, encoder_feeds, front_decoder_feeds, output_names
from benchmarks.operators import OperatorProfile, profile_engine
from benchmarks.our_runtime import open_tokenizer
from benchmarks.phases import PHASES, PhaseTimer
from benchmarks.recording import REPORTS, Content, add_output, record
from benchmarks.subjects import BuildFacts, add_documents
from client.arguments import add_setting_flags, given_settings
from client.perf.statistics import Spread
from client.report.document import Column, Headline, Plot, Row, Series, Table, Text
from kobart_documents import ReadOptions, read_texts

COMMAND = "profile"
ROLES = ("encoder", "decoder")
BATCH_SIZE = 8
_KOREAN = dict(zip(PHASES, ("토큰화", "인코딩", "디코드", "탐색과 캐시", "역토큰화"), strict=True))
_SHARE = Column(key="share", title=Text("Share", "비중"), unit="%")
_PHASE_COLUMNS = (
    Column(key="phase", title=Text("Phase", "단계"), is_key=True),
    Column(key="ms", title=Text("A document", "문서당"), unit="ms", digits=2, better="lower"),
    _SHARE,
)


class ProfileBenchmark:
    """See `benchmarks.recording.Benchmark`."""

    command = f"kobart-bench {COMMAND}"

    def __init__(self, args: argparse.Namespace) -> None:
        self._build = BuildFacts.read(args.build)
        config = self._build.config
        self._settings = config.defaults.override(given_settings(args))
        self._settings.check(config.limits)
        self._repeats = 2 if args.quick else 5
        self._documents = read_texts(
            args.data, ReadOptions.given(args), limit=8 if args.quick else 32
        )
        self._num_calls = 3 if args.quick else 20
        tokenizer = open_tokenizer(self._build.path, config)
        sources = [tokenizer.encode(text).input_ids for text in self._documents]
        self._ids = [int(i) for source in sources for i in source]
        self._source_len = int(statistics.median(len(source) for source in sources))
        self._phases: dict[str, list[float]] = {}
        self._operators: dict[str, OperatorProfile] = {}
        name = self._build.name
        self.title = Text(f"Where the time of {name} goes", f"{name}의 시간 분석")
        self.subject = self._build.subject
        self.settings = {
            "documents": f"{len(self._documents)}, all submitted at once",
            "generation": ", ".join(f"{k} {v}" for k, v in vars(self._settings).items()),
            "repeats": f"{self._repeats}, after one that does not count",
            "operators": f"batch {BATCH_SIZE}, source {self._source_len}, median of "
            f"{self._num_calls} calls",
        }

    def measure(self) -> None:
        """See `Benchmark`."""
        config = self._build.config
        timer = PhaseTimer(self._build.path, config, self._settings, self._documents)
        with contextlib.closing(timer):
            timer.run()
            for _ in tqdm(range(self._repeats), unit="run", disable=None):
                for phase, ms in timer.run().items():
                    self._phases.setdefault(phase, []).append(ms)
        if config.runtime == "onnxruntime":
            self._profile_operators()

    def content(self) -> Content | None:
        """See `Benchmark`."""
        if not self._phases:
            return None
        phases = {phase: Spread.of(self._phases[phase]) for phase in PHASES}
        return Content(
            headlines=tuple(self._headlines(phases)),
            findings=(self._bottleneck(phases),),
            plots=tuple(self._plots(phases)),
            tables=(_phase_table(phases), *map(self._operator_table, self._operators)),
        )

    def _profile_operators(self) -> None:
        config, folder = self._build.config, self._build.engines
        with tempfile.TemporaryDirectory() as scratch:
            for role, file in zip(ROLES, config.engines.files, strict=True):
                if role == "encoder" and config.encoder_engine != config.runtime:
                    continue  # not what runs it
                point = Point(role, BATCH_SIZE, self._source_len)
                feeds = (
                    encoder_feeds(self._ids, point)
                    if role == "encoder"
                    else front_decoder_feeds(self._ids, point, config, folder)
                )
                names = output_names(role, config)
                self._operators[role] = profile_engine(
                    folder / file, names, feeds, Path(scratch), self._num_calls
                )

    def _headlines(self, phases: dict[str, Spread]) -> Iterator[Headline]:
        total = sum(spread.median for spread in phases.values())
        yield Headline(title=Text("A document", "문서당 시간"), value=f"{total:.1f}", unit="ms")
        for phase in sorted(phases, key=lambda name: -phases[name].median)[:2]:
            share = f"{100 * phases[phase].median / total:.0f}"
            title = Text(phase.capitalize(), _KOREAN[phase])
            yield Headline(title=title, value=share, unit="%")

    def _bottleneck(self, phases: dict[str, Spread]) -> Text:
        total = sum(spread.median for spread in phases.values())
        phase = max(phases, key=lambda name: phases[name].median)
        share = f"{100 * phases[phase].median / total:.0f} %"
        found = self._operators.get({"encode": "encoder", "decode step": "decoder"}.get(phase, ""))
        korean = _KOREAN[phase]
        if found is None:
            return Text(f"The bottleneck is {phase}: {share}.", f"병목: {korean}, {share}.")
        group = next(iter(found.by_group))
        part = f"{100 * found.by_group[group] / found.total_us:.0f} %"
        return Text(
            f"The bottleneck is {phase}, {share} of the time; in it {group}, {part}.",
            f"병목: {korean}, 전체의 {share}. 그 안에서는 {group}, {part}.",
        )

    def _operator_table(self, role: str) -> Table:
        found = self._operators[role]
        parts = [("operators", found.by_group), ("layers", found.by_layer)]
        rows: list[Row] = [
            {"kind": kind, "part": name, "us": us, "share": 100 * us / found.total_us}
            for kind, group in parts
            for name, us in group.items()
        ]
        return Table(
            name=role,
            title=Text(f"The {role}'s operators and layers", f"{role}의 연산자와 층"),
            columns=(
                Column(key="kind", title=Text("By", "기준"), is_key=True),
                Column(key="part", title=Text("Part", "부분"), is_key=True),
                Column(key="us", title=Text("A call", "호출당"), unit="µs", digits=0),
                _SHARE,
            ),
            rows=tuple(rows),
            note=Text(
                "From ONNX Runtime's profiler, which slows small operators a little.",
                "ONNX Runtime 프로파일러 기준이며, 작은 연산자는 조금 느려집니다.",
            ),
        )

    def _plots(self, phases: dict[str, Spread]) -> Iterator[Plot]:
        yield Plot(
            name="phases",
            title=Text("Time of a document by phase", "단계별 문서당 시간"),
            kind="bars",
            x_label="",
            y_label="ms",
            series=(
                Series(
                    label="ms",
                    x=tuple(range(len(phases))),
                    y=tuple(spread.median for spread in phases.values()),
                    low=tuple(spread.low for spread in phases.values()),
                    high=tuple(spread.high for spread in phases.values()),
                ),
            ),
            ticks=tuple(phases),
        )
        for role, found in self._operators.items():
            yield Plot(
                name=f"{role}-operators",
                title=Text(f"One call of the {role} by operator group", f"{role}의 연산자 그룹"),
                kind="bars",
                x_label="",
                y_label="µs",
                series=(
                    Series(
                        label="µs",
                        x=tuple(range(len(found.by_group))),
                        y=tuple(found.by_group.values()),
                    ),
                ),
                ticks=tuple(found.by_group),
            )


def _phase_table(phases: dict[str, Spread]) -> Table:
    total = sum(spread.median for spread in phases.values())
    return Table(
        name="phases",
        title=Text("Phases", "단계"),
        columns=_PHASE_COLUMNS,
        rows=tuple(
            {"phase": phase, "ms": spread, "share": 100 * spread.median / total}
            for phase, spread in phases.items()
        ),
    )


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's flags."""
    parser = subparsers.add_parser(
        COMMAND,
        help="time by phase, layer and operator group: what the bottleneck is",
        description="Summarize documents in this process and time every phase, then profile both "
        "engines operator by operator (ONNX Runtime builds).",
    )
    parser.add_argument("build", type=Path, metavar="BUILD", help="folder of a build")
    add_documents(parser, summaries=False)
    add_setting_flags(parser)
    add_output(parser, COMMAND, quick="8 documents and 2 repeats")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    args.output = args.output or REPORTS / f"{COMMAND}-{args.build.name}"
    return record(lambda: ProfileBenchmark(args), args.output, is_quick=args.quick)
