"""`kobart-bench engine`: encoder and decoder alone, in process and through Triton."""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from benchmarks.engine_content import EngineResults, Timing, engine_content
from benchmarks.engine_feeds import (
    Feeds,
    Point,
    decoder_feeds,
    encoder_feeds,
    largest_output_bytes,
    output_names,
    perf_input,
)
from benchmarks.our_runtime import open_tokenizer
from benchmarks.recording import REPORTS, Content, add_output, record
from benchmarks.subjects import BuildFacts, add_documents, serving
from client.perf.input_data import write_json
from client.perf.options import Concurrency, PerfOptions, RequestCount
from client.perf.profile import read_csv
from client.perf.usage import UsageSampler
from client.perf_analyzer import PerfAnalyzer, find_perf_analyzer
from client.report.document import Text
from kobart_documents import ReadOptions, read_texts
from kobart_runtime.errors import ConfigError
from kobart_runtime.runners import Engine, open_engine
from server.supervisor import TritonServer

COMMAND = "engine"
ROLES = ("encoder", "decoder")
_LIMIT_S = 300.0


@dataclass(frozen=True, kw_only=True)
class EnginePlan:
    """What is measured, and for how long."""

    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    source_lens: tuple[int, ...] = (64, 128, 256, 512, 1024)
    repeats: int = 3
    seconds: float = 2.0  # of each measurement
    least_calls: int = 8


QUICK = EnginePlan(batch_sizes=(1, 4), source_lens=(64, 256), repeats=2, seconds=0.2, least_calls=5)


class EngineBenchmark:
    """See `benchmarks.recording.Benchmark`."""

    command = f"kobart-bench {COMMAND}"

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._build = BuildFacts.read(args.build)
        if self._build.config.runtime == "tensorrt":
            raise ConfigError(
                "the engines of a TensorRT build are plans, which are measured by trtexec or by "
                "perf_analyzer on a server with Triton's tensorrt backend: see docs/tensorrt.md"
            )
        plan = QUICK if args.quick else EnginePlan()
        self._plan = replace(
            plan,
            batch_sizes=args.batch_sizes or plan.batch_sizes,
            source_lens=args.source_lengths or plan.source_lens,
        )
        tokenizer = open_tokenizer(self._build.path, self._build.config)
        texts = read_texts(args.data, ReadOptions.given(args))
        self._ids = [int(i) for text in texts for i in tokenizer.encode(text).input_ids]
        self._engines: dict[str, Engine] = {
            role: open_engine(self._build.engines, role, self._build.config) for role in ROLES
        }
        self._results = EngineResults()
        name = self._build.name
        self.title = Text(f"The engines of {name} alone", f"{name} 엔진 단독 측정")
        self.subject = self._build.subject
        self.settings = {
            "repeats": f"{self._plan.repeats}, in turns: all shapes, in process and then served",
            "calls": f"{self._plan.seconds:g} s of calls, at least {self._plan.least_calls}",
            "served": "perf_analyzer, one request in flight, system shared memory",
        }
        if self._build.config.cross_kv == "int8":
            self.settings["keys and values"] = (
                "the encoder is the front model's, whose int8 ones are made float; the decoder "
                "takes float ones, the front model's takes int8: see kobart-bench profile"
            )

    def measure(self) -> None:
        """See `Benchmark`."""
        points = self._points()
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            log = self._args.output / "server.log"
            server = stack.enter_context(serving(self._build.path, log, "all"))
            analyzer = find_perf_analyzer()
            total = len(points) * self._plan.repeats
            bar = stack.enter_context(tqdm(total=total, unit="shape", disable=None))
            for _ in range(self._plan.repeats):
                for point in points:
                    bar.set_postfix_str(f"{point.role} {point.batch_size} x {point.source_len}")
                    feeds = self._feeds(point)
                    local = self._in_process(point, feeds)
                    num_calls = self._num_calls(local.avg_ms)
                    self._served(server, analyzer, folder, point, feeds, num_calls)
                    bar.update()

    def content(self) -> Content | None:
        """See `Benchmark`."""
        return engine_content(self._results)

    def _points(self) -> list[Point]:
        limits = self._build.config.limits
        return [
            Point(role, batch_size, source_len)
            for role in ROLES
            for batch_size in self._plan.batch_sizes
            if batch_size <= limits.max_batch_size
            for source_len in self._plan.source_lens
            if source_len <= limits.max_source_length
        ]

    def _feeds(self, point: Point) -> Feeds:
        if point.role == "encoder":
            return encoder_feeds(self._ids, point)
        return decoder_feeds(self._ids, point, self._build.config, self._engines["encoder"])

    def _in_process(self, point: Point, feeds: Feeds) -> Timing:
        engine, names = self._engines[point.role], output_names(point.role, self._build.config)
        warm_ms = [_call_ms(engine, names, feeds) for _ in range(2)][1]
        calls = [_call_ms(engine, names, feeds) for _ in range(self._num_calls(warm_ms))]
        timing = Timing.of(calls)
        self._results.add_local(point, timing)
        return timing

    def _served(
        self,
        server: TritonServer,
        analyzer: PerfAnalyzer,
        folder: Path,
        point: Point,
        feeds: Feeds,
        num_calls: int,
    ) -> None:
        csv = folder / "report.csv"
        options = PerfOptions(
            model=f"{self._build.config.name}_{point.role}",
            url=server.grpc_url,
            load=Concurrency(1),
            window=RequestCount(num_calls),
            input_data=write_json(folder / "input.json", perf_input(feeds)),
            csv=csv,
            batch_size=point.batch_size,
            shared_memory="system",
            output_shared_memory_bytes=largest_output_bytes(point, self._build.config),
            headers=server.admin_key.grpc_headers,
            verbose_csv=True,
        )
        with UsageSampler(server.pid) as sampler:
            analyzer.run(options.argv(), _LIMIT_S, server.check_alive)
        (row,) = read_csv(csv)
        self._results.add_served(point, Timing.of_csv(row), sampler.usage)

    def _num_calls(self, call_ms: float) -> int:
        return max(self._plan.least_calls, min(500, int(1000 * self._plan.seconds / call_ms)))


def _call_ms(engine: Engine, names: list[str], feeds: Feeds) -> float:
    started = time.perf_counter()
    engine(names, feeds)
    return 1000 * (time.perf_counter() - started)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's flags."""
    parser = subparsers.add_parser(
        COMMAND,
        help="encoder and decoder alone: latency by batch and length, and the share of transport",
        description="Time the encoder and one decode step, in this process and through "
        "perf_analyzer on the real Triton; the difference is transport.",
    )
    parser.add_argument("build", type=Path, metavar="BUILD", help="folder of a build")
    add_documents(parser, summaries=False)
    parser.add_argument("--batch-sizes", type=_integers, metavar="N,...", help="default: 1 to max")
    parser.add_argument(
        "--source-lengths", type=_integers, metavar="N,...", help="tokens; default: 64 to max"
    )
    add_output(parser, COMMAND, quick="few shapes and 2 repeats")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    args.output = args.output or REPORTS / f"{COMMAND}-{args.build.name}"
    return record(lambda: EngineBenchmark(args), args.output, is_quick=args.quick)


def _integers(text: str) -> tuple[int, ...]:
    values = tuple(int(part) for part in text.split(","))
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return values
