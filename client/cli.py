"""`kobart-summarize`: summaries of files or standard input."""

from __future__ import annotations

import argparse
import io
import os
import sys

from tqdm import tqdm

from client.arguments import build_parser, given_settings
from client.documents import Document, read_documents
from client.printer import Printer
from client.results import Summary
from client.sync_client import KobartClient
from kobart_runtime.errors import ConfigError, KobartError

EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0, 1 after an error (it stands on standard error), 130 after Ctrl-C.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        client = KobartClient(args.url, model=args.model, timeout_s=args.timeout_s)
    except ConfigError as error:
        parser.error(str(error))
    try:
        with client:
            return run(client, args)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader went away, as `head` does: what Python flushes at exit must go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE


def run(client: KobartClient, args: argparse.Namespace) -> int:
    """Summarise what the arguments name and print it; returns the exit code."""
    use_utf8()
    printer = Printer(as_json=args.json, with_names=len(args.files) > 1)
    try:
        documents = read_documents(args.files)
        if args.stream:
            stream_each(client, documents, given_settings(args), printer)
        else:
            summarize_all(client, documents, given_settings(args), printer, args.concurrency)
    except KobartError as error:
        printer.error(error)
    return printer.exit_code


def summarize_all(
    client: KobartClient,
    documents: list[Document],
    settings: dict[str, float],
    printer: Printer,
    concurrency: int,
) -> None:
    """Summarise several documents at a time and print them in their order."""
    if len(documents) > 1:
        client.check_ready()  # a dead server is one error now, not one a document later
    # `disable=None` shows the bar on a terminal alone.
    with tqdm(
        total=len(documents), unit="doc", disable=None if len(documents) > 1 else True
    ) as bar:
        outcomes = client.summarize_many(
            [document.text for document in documents],
            concurrency=concurrency,
            on_progress=lambda num_done, _: bar.update(num_done - bar.n),
            return_errors=True,
            **settings,
        )
    for document, outcome in zip(documents, outcomes, strict=True):
        if isinstance(outcome, Summary):
            printer.summary(document, outcome)
        else:
            printer.error(outcome, document)


def stream_each(
    client: KobartClient, documents: list[Document], settings: dict[str, float], printer: Printer
) -> None:
    """Print each document's summary while it is written, one document after the other."""
    for document in documents:
        printer.begin(document)
        try:
            for chunk in client.stream(document.text, **settings):
                printer.piece(chunk.text)
        except KobartError as error:
            printer.error(error, document)
        finally:
            printer.end()


def use_utf8() -> None:
    """Write UTF-8 whatever the locale: summaries are Korean, and the input is UTF-8 too."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
