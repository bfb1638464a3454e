"""`kobart-summarize`: summaries of files or standard input."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing

from kobart_runtime.required_packages import required_packages

with required_packages("kobart-summarize"):
    from tqdm import tqdm

    from client.arguments import build_parser, given_settings
    from client.in_order import outcomes_in_order
    from client.printer import Printer
    from client.results import Summary
    from client.sync_client import KobartClient
    from kobart_documents import Document, DocumentInput, ReadOptions, open_inputs
    from kobart_runtime.errors import ConfigError, DocumentError, KobartError

EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0; 1 if a document could not be read or summarised, which stands on
        standard error; 130 after Ctrl-C.
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
    try:
        inputs = open_inputs(args.files, ReadOptions.given(args))
    except KobartError as error:
        Printer(as_json=args.json, with_names=False).error(error)
        return 1
    with_names = len(inputs) > 1 or inputs[0].is_table
    printer = Printer(as_json=args.json, with_names=with_names)
    try:
        counted = [(each, count) for each in inputs if (count := count_documents(each, printer))]
        printer.num_documents = sum(count for _, count in counted)
        documents = read_documents([each for each, _ in counted], printer)
        if args.stream:
            stream_each(client, documents, given_settings(args), printer)
        else:
            summarize_all(client, documents, given_settings(args), printer, args.concurrency)
    except KobartError as error:
        printer.error(error)
    except KeyboardInterrupt:
        printer.interrupted()
        return EXIT_INTERRUPTED
    return printer.exit_code


def count_documents(source: DocumentInput, printer: Printer) -> int:
    """How many documents an input holds; 0 and an error if it cannot be read."""
    try:
        return source.count()
    except DocumentError as error:
        printer.error(error)
        return 0


def read_documents(inputs: Iterable[DocumentInput], printer: Printer) -> Iterator[Document]:
    """The documents of all inputs; one that cannot be read is an error and stops no other."""
    for source in inputs:
        try:
            yield from source
        except DocumentError as error:
            printer.error(error)


def summarize_all(
    client: KobartClient,
    documents: Iterable[Document],
    settings: dict[str, float],
    printer: Printer,
    concurrency: int,
) -> None:
    """Summarise several documents at a time and print them in their order, as they come."""
    several = printer.num_documents > 1
    if several:
        client.check_ready()  # a dead server is one error now, not one a document later
    outcomes = outcomes_in_order(
        documents, lambda text: client.summarize(text, **settings), concurrency
    )
    with (
        closing(outcomes),
        # `disable=None` shows the bar on a terminal alone.
        tqdm(total=printer.num_documents, unit="doc", disable=None if several else True) as bar,
    ):
        for document, outcome in outcomes:
            with tqdm.external_write_mode():
                if isinstance(outcome, Summary):
                    printer.summary(document, outcome)
                else:
                    printer.error(outcome, document)
            bar.update()


def stream_each(
    client: KobartClient,
    documents: Iterable[Document],
    settings: dict[str, float],
    printer: Printer,
) -> None:
    """Print each document's summary while it is written, one document after the other."""
    for document in documents:
        printer.begin(document)
        summary = None
        try:
            for chunk in client.stream(document.text, **settings):
                printer.piece(chunk.text)
                summary = chunk.summary
        except KobartError as error:
            printer.error(error, document)
        finally:
            printer.end()
        if summary is not None:
            printer.finished(document, summary)


def use_utf8() -> None:
    """Write UTF-8 whatever the locale: summaries are Korean, and the input is UTF-8 too."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
