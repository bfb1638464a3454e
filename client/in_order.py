"""Many documents at a time, their outcomes in the documents' order and as soon as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from client.interruption import Interruption
from client.results import Summary
from kobart_documents import Document
from kobart_runtime.errors import KobartError

Outcome: TypeAlias = Summary | KobartError
Pending: TypeAlias = deque[tuple[Document, Future[Outcome]]]  # sent, in the documents' order
_AHEAD = 32  # for each in flight: documents that are sent while an earlier one takes long


def outcomes_in_order(
    documents: Iterable[Document], summarize: Callable[[str], Summary], concurrency: int
) -> Generator[tuple[Document, Outcome], None, None]:
    """Each document with its summary, or with the error that it ended in.

    Documents are taken from the iterable as they are sent, so that it may be longer than memory.

    Args:
        documents: What to summarise.
        summarize: Summarises one text; called on other threads.
        concurrency: Requests in flight at once.

    Raises:
        KeyboardInterrupt: Ctrl-C, once everything that was answered by then has been yielded.
    """
    unread = iter(documents)
    pending: Pending = deque()
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="kobart-summarize")
    try:
        with Interruption() as interruption:
            try:
                while document := _next_document(unread, interruption):
                    pending.append((document, pool.submit(_outcome, summarize, document.text)))
                    while pending and (pending[0][1].done() or len(pending) > _AHEAD * concurrency):
                        yield _next_outcome(pending, interruption)
                while pending:
                    yield _next_outcome(pending, interruption)
            except KeyboardInterrupt:
                for document, future in pending:
                    if future.done():
                        yield document, future.result()
                raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _next_document(unread: Iterator[Document], interruption: Interruption) -> Document | None:
    with interruption.allowed():  # standard input may be a terminal
        return next(unread, None)


def _next_outcome(pending: Pending, interruption: Interruption) -> tuple[Document, Outcome]:
    """That of the first document, once it is answered; interrupted, it stays in `pending`."""
    with interruption.allowed():
        outcome = pending[0][1].result()
    return pending.popleft()[0], outcome


def _outcome(summarize: Callable[[str], Summary], text: str) -> Outcome:
    try:
        return summarize(text)
    except KobartError as error:
        return error
