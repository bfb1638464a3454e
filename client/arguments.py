"""The command line of `kobart-summarize`."""

from __future__ import annotations

import argparse
from typing import get_type_hints

from client.config import ClientConfig
from kobart_documents import add_reading_flags
from kobart_runtime.settings import SETTING_NAMES, GenerationSettings

_SETTING_HELP = {
    "num_beams": "hypotheses of beam search; 1 = greedy",
    "max_new_tokens": "longest summary, in tokens",
    "min_new_tokens": "shortest summary, in tokens",
    "no_repeat_ngram_size": "no n-gram of this size twice; 0 = off",
    "repetition_penalty": "above 1.0 discourages repeated tokens",
    "length_penalty": "any finite number: the higher, the longer the chosen hypothesis; 0 = off",
    "early_stopping": "stop when as many hypotheses as beams are finished",
}


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """`--url` and `--model`: which front model is asked."""
    parser.add_argument(
        "--url",
        default=ClientConfig.url,
        metavar="HOST:PORT",
        help="Triton's gRPC service (default %(default)s)",
    )
    parser.add_argument(
        "--model", default=ClientConfig.model, help="the front model (default %(default)s)"
    )


def build_parser() -> argparse.ArgumentParser:
    """The command line; a generation flag that is not given is left to the checkpoint."""
    parser = argparse.ArgumentParser(
        prog="kobart-summarize",
        description="Summarise text files, rows of tables, or standard input with a served KoBART. "
        "Summaries are printed in the order of the documents, as soon as they come.",
        epilog="exit status: 0; 1 if a document could not be read or summarised (the others are); "
        "130 after Ctrl-C (what was answered is printed). Start a server with: "
        "kobart-serve build/kobart-fp32",
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="a document; - = standard input. A file that ends in .csv, .tsv, .jsonl, .json or "
        ".parquet has one in every row, which is named FILE:ROW",
    )
    add_reading_flags(parser, summaries=False)
    add_server_flags(parser)
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=ClientConfig.timeout_s,
        metavar="S",
        help="seconds for each document, retries included (default %(default)g)",
    )
    parser.add_argument(
        "--concurrency",
        type=_positive_int,
        default=8,
        metavar="N",
        help="documents in flight at once (default %(default)s)",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--stream",
        action="store_true",
        help="print the pieces as they come, one document after the other",
    )
    output.add_argument(
        "--json", action="store_true", help="print one JSON object a line, with all results"
    )
    add_setting_flags(parser)
    return parser


def add_setting_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag for each generation setting, of the setting's own type."""
    group = parser.add_argument_group("generation (default: the checkpoint's own settings)")
    types = get_type_hints(GenerationSettings)
    for name in SETTING_NAMES:
        flag, help_text = f"--{name.replace('_', '-')}", _SETTING_HELP[name]
        if types[name] is bool:
            group.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=None, help=help_text
            )
        else:
            group.add_argument(flag, type=types[name], metavar="N", help=help_text)


def given_settings(args: argparse.Namespace) -> dict[str, float]:
    """The generation settings that were given; the rest is left to the checkpoint."""
    values = {name: getattr(args, name) for name in SETTING_NAMES}
    return {name: value for name, value in values.items() if value is not None}


def _positive_int(value: str) -> int:
    """An argparse type: an integer of at least 1."""
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number
