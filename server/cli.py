"""`kobart-serve`: run the real Triton server on builds until told to stop."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kobart_runtime.errors import BuildError, KobartError
from server.admin_key import KEY_HEADER, given_key
from server.serving_flags import add_serving_flags, given_environment
from server.supervisor import TritonServer
from server.watchdog import Watchdog

_CHECK_INTERVAL_S = 0.25
_EXIT_FAILED = 1
_EXIT_USAGE = 2

_DESCRIPTION = """\
Run the real Triton server on builds: the tritonserver on PATH if there is one, else the one
of the nvidia-pytriton wheel (no Docker needed).

Prints one line on standard output when the models are ready; the server's log goes to standard
error. Restarts a model whose process dies. SIGINT (Ctrl-C) and SIGTERM stop it cleanly: new
requests are refused, accepted ones are answered, then it exits with 0. A second one stops it at
once.

Loading models, logging, tracing and shared memory are guarded by a key, on every interface: the
header kobart-serve-key over HTTP, triton-grpc-protocol-kobart-serve-key over gRPC. It is random
unless you give one; the ready line names the file that holds it, which only you can read.
"""

_EPILOG = """\
examples:
  kobart-serve build/kobart-fp32
  kobart-serve build/kobart-fp32 --model all                 the engines too, for benchmarks
  kobart-serve build/kobart-fp32 build/news-int8             two models on one server
  kobart-serve build/kobart-fp32 --host 0.0.0.0              reachable from other machines
  kobart-serve build/kobart-fp32 --threads 4 --max-queue-size 64

  curl -d '{"text_input": "..."}' localhost:8000/v2/models/kobart/generate
  curl localhost:8002/metrics

exit status:
  0  stopped by SIGINT or SIGTERM
  1  a model failed to load, the server died, a port is taken, no server was found, or a second
     signal stopped it before accepted requests were answered
  2  the build folder or the command line is wrong
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(argv)
    logging.basicConfig(format="kobart-serve: %(message)s", level=logging.INFO)
    with _stop_signals() as stop:
        try:
            return _serve(options, stop)
        except _SecondStopError:
            logging.getLogger(__name__).warning(
                "stopped at once: accepted requests may be without an answer"
            )
            return _EXIT_FAILED
        except KobartError as error:
            print(f"kobart-serve: {error}", file=sys.stderr, flush=True)
            return _EXIT_USAGE if isinstance(error, BuildError) else _EXIT_FAILED


def _serve(options: argparse.Namespace, stop: threading.Event) -> int:
    started = time.monotonic()
    server = TritonServer(
        *options.builds,
        models=options.model,
        host=options.host,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        metrics_port=options.metrics_port,
        exit_timeout_s=options.exit_timeout_s,
        admin_key=given_key(options.admin_key_file),
        environment=given_environment(options),
        hold_log=not options.verbose,
    )
    try:
        server.launch()
        if server.wait_ready(options.start_timeout_s, cancelled=stop):
            watchdog = server.watchdog()  # first: whoever reads "ready" may kill a model at once
            _announce(server, time.monotonic() - started)
            _watch(server, watchdog, stop)
            _drain(server)
        else:
            logging.getLogger(__name__).info("stopped before it was ready")
    finally:
        server.kill()
    return 0


def _announce(server: TritonServer, seconds: float) -> None:
    print(
        f"{', '.join(server.models)} ready in {seconds:.1f} s: {server.endpoints.advertised}; "
        f"admin key: header {KEY_HEADER}, value in {server.admin_key.place}",
        flush=True,
    )


def _watch(server: TritonServer, watchdog: Watchdog, stop: threading.Event) -> None:
    """Until told to stop: notice a dead server or model.

    Raises:
        ServerError: The server died, or a model does not come back.
    """
    while not stop.wait(_CHECK_INTERVAL_S):
        server.check_alive()
        watchdog.check()


def _drain(server: TritonServer) -> None:
    log = logging.getLogger(__name__)
    log.info("stopping: accepted requests are answered first")
    if server.stop():
        log.info("stopped")
    else:
        log.warning("stopped at the exit timeout; some requests may be without an answer")


class _SecondStopError(BaseException):
    """SIGINT or SIGTERM came again: whoever sent it does not want to wait."""


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of ending the program; once.

    The second of them raises `_SecondStopError`, further ones do nothing.
    """
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)

    def on_signal(*_: object) -> None:
        if not stop.is_set():
            stop.set()
            return
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise _SecondStopError

    previous = [signal.signal(number, on_signal) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kobart-serve",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "builds",
        nargs="+",
        metavar="BUILD",
        type=Path,
        help="a folder made by kobart-build; several are served side by side if their models' "
        "names differ (kobart-build --model-name)",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="a model to load, repeatable; 'all' for every one (default: the front models)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="IPv4 address to listen on (default: %(default)s, this machine alone)",
    )
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        parser.add_argument(
            f"--{name}-port", type=int, default=port, metavar="PORT", help="default: %(default)s"
        )
    parser.add_argument(
        "--admin-key-file",
        type=Path,
        metavar="FILE",
        help="holds the key of the guarded APIs (default: KOBART_ADMIN_KEY, else a random one)",
    )
    parser.add_argument(
        "--start-timeout-s",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="give up if the models are not ready by then (default: %(default)g)",
    )
    parser.add_argument(
        "--exit-timeout-s",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="when stopping, how long accepted requests may take (default: %(default)g)",
    )
    add_serving_flags(parser)
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="show the server's log from the start, not only from when it is ready",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
