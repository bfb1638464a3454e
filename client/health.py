"""`kobart-health`: one tiny real inference, as a liveness probe.

Triton's own `/v2/health/ready` goes on saying yes when the model's process has died or hangs. This
asks for one token of one short text: who answers that is alive. So is a server whose queue is
full and says so; to kill it for that would lose the work of all who wait.
"""

from __future__ import annotations

import argparse
import sys
import time

from kobart_runtime.required_packages import required_packages

with required_packages("kobart-health"):
    from client.arguments import add_server_flags
    from client.config import RetryPolicy, check_timeout
    from client.exchange import GRACE_S
    from client.sync_client import KobartClient
    from kobart_runtime.errors import ConfigError, KobartError, OverloadedError

_TEXT = "안녕하세요."
_DESCRIPTION = """\
Liveness probe: ask a served KoBART for one token. Exits with 0 and one line if it answers in
time, or is busy and says so; else with 1 and the reason on standard error.
"""
_EPILOG = """\
A request that waits in a long queue is slow, not dead: let --timeout be longer than the queue
takes, and the orchestrator fail only after several probes.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1, or 2 for a wrong command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        check_timeout(args.timeout)
        client = KobartClient(args.url, model=args.model, retry=RetryPolicy(max_attempts=1))
    except ConfigError as error:
        parser.error(str(error))
    with client:
        try:
            print(f"{args.model} at {args.url} {probe(client, args.timeout)}", flush=True)
        except KobartError as error:
            print(f"kobart-health: {error.code}: {error}", file=sys.stderr, flush=True)
            return 1
    return 0


def probe(client: KobartClient, timeout_s: float) -> str:
    """What the server did, as the end of a sentence.

    Raises:
        KobartError: It gave no answer in time, or one that says it cannot serve.
    """
    started = time.monotonic()
    patience_s = max(timeout_s - GRACE_S, timeout_s / 2)  # the client itself waits longer
    try:
        client.summarize(_TEXT, timeout_s=patience_s, num_beams=1, max_new_tokens=1)
    except OverloadedError as error:
        return f"is alive and busy: {error}"
    return f"answered in {1000 * (time.monotonic() - started):.0f} ms"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kobart-health",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_server_flags(parser)
    parser.add_argument(
        "--timeout",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="within which it must answer (default %(default)g)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
