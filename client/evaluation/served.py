"""Answers of a served build."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from client.evaluation.outcome import Answer
from client.sync_client import KobartClient


class ServedAnswers:
    """Sends a group of documents together and waits for all of them."""

    group_size = 16

    def __init__(self, client: KobartClient, settings: dict[str, Any]) -> None:
        """Use a client that is open; `settings` are sent with every document."""
        self._client = client
        self._settings = settings

    def answers(self, texts: Sequence[str]) -> list[Answer]:
        """One answer a text.

        Raises:
            KobartError: A text cannot be summarized, or the server is gone.
        """
        summaries = self._client.summarize_many(
            texts, concurrency=self.group_size, return_errors=False, **self._settings
        )
        return [
            Answer(
                text=summary.text,
                output_ids=summary.output_ids,
                num_input_tokens=summary.num_input_tokens,
                finish_reason=summary.finish_reason,
                truncated=summary.truncated,
            )
            for summary in summaries
        ]
