"""`kobart-bench serve`: what a server of a build carries, and how many of them a load needs."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from benchmarks.recording import REPORTS, Content, add_output, record
from benchmarks.serve_content import serve_content
from benchmarks.serve_plan import ServePlan
from benchmarks.serve_results import Level, Probe, ServeResults
from benchmarks.subjects import BuildFacts, add_documents, serving
from client.arguments import add_setting_flags, given_settings
from client.config import RetryPolicy
from client.perf.driver import Driver, PerfAnalyzerDriver
from client.perf.input_data import Lengths, of_lengths, perf_input, write_json
from client.perf.load_generator import LoadGenerator
from client.perf.options import Concurrency, RequestRate
from client.perf.records import RequestRecord, figures
from client.perf.usage import UsageSampler
from client.perf_analyzer import find_perf_analyzer
from client.report.document import Text
from client.sync_client import KobartClient
from kobart_documents import ReadOptions, read_texts
from kobart_runtime.errors import KobartError
from kobart_runtime.settings import GenerationSettings
from server.supervisor import TritonServer

T = TypeVar("T")

COMMAND = "serve"
DRIVERS = ("perf_analyzer", "asyncio")
NUM_INPUTS = 64  # distinct documents that are sent in turn


@dataclass(frozen=True, kw_only=True)
class Target:
    """The server that is measured."""

    driver: Driver
    server: TritonServer | None  # None: it was already running

    @contextlib.contextmanager
    def watched(self) -> Iterator[UsageSampler | None]:
        """Sample the server's processes while the block runs; None for somebody else's server."""
        if self.server is None:
            yield None
            return
        with UsageSampler(self.server.pid) as sampler:
            yield sampler


class ServeBenchmark:
    """See `benchmarks.recording.Benchmark`."""

    command = f"kobart-bench {COMMAND}"

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._build = BuildFacts.read(args.build)
        make = ServePlan.quick if args.quick else ServePlan
        self._plan = make(target_ms=args.target_ms, load_per_s=args.load)
        self._settings = self._build.config.defaults.override(given_settings(args))
        self._settings.check(self._build.config.limits)
        self._documents = _documents(args.data, ReadOptions.given(args), args.lengths)
        self._results = ServeResults(
            target_ms=args.target_ms,
            load_per_s=args.load,
            counts_replicas=self._plan.counts_replicas,
        )
        name = self._build.name
        self.title = Text(f"What a server of {name} carries", f"{name} 서버의 처리 능력")
        self.subject = self._build.subject
        self.settings = self._describe()

    def measure(self) -> None:
        """See `Benchmark`."""
        plan = self._plan
        with (
            self._target() as target,
            tqdm(total=plan.num_measurements, unit="run", disable=None) as bar,
        ):
            for concurrency in self._turns(plan.concurrencies):
                bar.set_postfix_str(f"{concurrency} in flight")
                self._level(target, Concurrency(concurrency))
                bar.update()
            top = self._results.greatest_throughput
            for share in self._turns(plan.rate_shares):
                bar.set_postfix_str(f"{share * top:.1f} requests/s")
                self._level(target, RequestRate(share * top))
                bar.update()
            self._search(target, bar)

    def content(self) -> Content | None:
        """See `Benchmark`."""
        return serve_content(self._results)

    def _turns(self, levels: Sequence[T]) -> Iterator[T]:
        """All levels, again and again, so that a slow moment does not hit one level alone."""
        for _ in range(self._plan.repeats):
            yield from levels

    def _level(self, target: Target, load: Concurrency | RequestRate) -> None:
        with target.watched() as sampler:
            records = self._records(target, load)
        usage = None if sampler is None else sampler.usage
        self._results.add(Level.of(load), records, usage)

    def _records(self, target: Target, load: Concurrency | RequestRate) -> list[RequestRecord]:
        num_requests = self._plan.num_requests(load)
        num_warmup = max(2, int(load.start)) if isinstance(load, Concurrency) else 2
        records = target.driver.measure(load, num_requests=num_requests, num_warmup=num_warmup)
        failed = next((record.error for record in records if not record.is_answered), "")
        if failed and not any(record.is_answered for record in records):
            raise KobartError(f"no request was answered: {failed}")
        return records

    def _search(self, target: Target, bar: tqdm) -> None:
        """Halve the range of rates until its ends are near: the highest that meets the target."""
        low, high = 0.0, 1.2 * self._results.greatest_throughput
        for _ in range(self._plan.search_steps):
            rate = (low + high) / 2
            bar.set_postfix_str(f"search, {rate:.1f} requests/s")
            found = figures(self._records(target, RequestRate(rate)), is_rate=True)
            probe = Probe.of(rate, found, self._plan.target_ms)
            self._results.probes.append(probe)
            low, high = (rate, high) if probe.is_met else (low, rate)
            bar.update()

    @contextlib.contextmanager
    def _target(self) -> Iterator[Target]:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server: TritonServer | None = None
            url = self._args.url
            if url is None:
                log = self._args.output / "server.log"
                server = stack.enter_context(serving(self._build.path, log))
                url = server.grpc_url
            name = self._build.config.name
            with KobartClient(url, model=name, retry=RetryPolicy(max_attempts=1)) as client:
                client.check_ready()
            yield Target(driver=self._driver(url, folder, server), server=server)

    def _driver(self, url: str, folder: Path, server: TritonServer | None) -> Driver:
        name, settings = self._build.config.name, self._settings
        if self._args.load_generator == "asyncio":
            return LoadGenerator(
                url=url, model=name, documents=self._documents, settings=dict(vars(settings))
            )
        data = perf_input(self._documents, settings, stream=True)
        return PerfAnalyzerDriver(
            analyzer=find_perf_analyzer(),
            url=url,
            model=name,
            input_data=write_json(folder / "input.json", data),
            folder=folder,
            check=server.check_alive if server else lambda: None,
        )

    def _describe(self) -> dict[str, str]:
        plan, lengths = self._plan, [len(document) for document in self._documents]
        levels = ", ".join(map(str, plan.concurrencies))
        return {
            "load_generator": self._args.load_generator,
            "documents": f"{len(lengths)}, {min(lengths)}-{max(lengths)} characters",
            "generation": _described(self._settings),
            "requests": f"at least {plan.least_requests} a level and {plan.requests_per_slot} for "
            f"each in flight (levels {levels}), after a warm-up under the same load",
            "rates": f"held for {plan.targets_per_rate:g} times the target",
            "repeats": f"{plan.repeats}, all levels in turn",
        }


def _documents(data: Path, options: ReadOptions, lengths: str | None) -> list[str]:
    documents = read_texts(data, options)
    if lengths is None:
        return documents[:NUM_INPUTS]
    return of_lengths(documents, Lengths.parse(lengths).draw(NUM_INPUTS, seed=0))


def _described(settings: GenerationSettings) -> str:
    return ", ".join(f"{name} {value}" for name, value in vars(settings).items())


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's flags."""
    parser = subparsers.add_parser(
        COMMAND,
        help="throughput and latency of a served build, the highest load, replicas",
        description="Start a server of a build and load it: requests in flight, Poisson arrivals, "
        "then a binary search for the highest rate whose p95 latency meets the target.",
    )
    parser.add_argument("build", type=Path, metavar="BUILD", help="folder of a build")
    parser.add_argument("--url", metavar="HOST:PORT", help="a server of this build that runs")
    parser.add_argument(
        "--target-ms",
        type=_positive,
        default=ServePlan.target_ms,
        metavar="MS",
        help="p95 latency that a request may have (default %(default)g)",
    )
    parser.add_argument(
        "--load",
        type=_positive,
        default=ServePlan.load_per_s,
        metavar="N",
        help="requests/s for which replicas are counted (default %(default)g)",
    )
    add_documents(parser, summaries=False)
    parser.add_argument(
        "--lengths", metavar="CHARS[:WEIGHT],...", help="make documents of these lengths from them"
    )
    parser.add_argument(
        "--load-generator",
        choices=DRIVERS,
        default=DRIVERS[0],
        help="what sends the requests (default %(default)s)",
    )
    add_setting_flags(parser)
    add_output(parser, COMMAND, quick="few levels of load, 2 repeats and no count of replicas")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    args.output = args.output or REPORTS / f"{COMMAND}-{args.build.name}"
    return record(lambda: ServeBenchmark(args), args.output, is_quick=args.quick)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value
