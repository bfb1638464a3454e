"""CTranslate2 on a converted checkpoint; PyTorch is not imported here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kobart_runtime.errors import ConfigError
from kobart_runtime.model_config import TokenIds
from kobart_runtime.settings import GenerationSettings


class CTranslate2Folder:
    """CTranslate2, one call for the batch; its own beam search, and no `early_stopping`.

    It cannot force an eos: the last token of a summary that reaches the limit is replaced, which
    in greedy search is what `generate()` does.
    """

    def __init__(
        self,
        folder: Path,
        ids: TokenIds,
        compute_type: str,
        *,
        inter_threads: int = 1,
        intra_threads: int | None = None,
    ) -> None:
        """Load what `systems.convert_to_ctranslate2` wrote.

        Args:
            folder: Where it lies.
            ids: The checkpoint's special ids.
            compute_type: `float32` or `int8`.
            inter_threads: Batches that are worked on side by side.
            intra_threads: Threads of each of them; None: one for each core.

        Raises:
            ConfigError: ctranslate2 is not installed.
        """
        self.name = f"CTranslate2 {compute_type}"
        self.model_bytes = (folder / "model.bin").stat().st_size
        self._ids = ids
        self._translator = import_ctranslate2().Translator(
            str(folder),
            compute_type=compute_type,
            inter_threads=inter_threads,
            intra_threads=intra_threads or os.cpu_count() or 1,
        )

    def generate(
        self,
        sources: Sequence[np.ndarray],
        settings: GenerationSettings,
        max_batch_size: int | None = None,
    ) -> list[list[int]]:
        """See `benchmarks.decoding.System`; may be called by several threads.

        Args:
            sources: See there.
            settings: See there.
            max_batch_size: CTranslate2 sorts the sources by length and cuts them into batches of
                so many; None: one batch.
        """
        forced_bos = self._ids.forced_bos
        results = self._translator.translate_batch(
            [[str(token) for token in source] for source in sources],
            target_prefix=None if forced_bos is None else [[str(forced_bos)]] * len(sources),
            beam_size=settings.num_beams,
            max_decoding_length=settings.max_new_tokens,
            min_decoding_length=settings.min_new_tokens,
            no_repeat_ngram_size=settings.no_repeat_ngram_size,
            repetition_penalty=settings.repetition_penalty,
            length_penalty=settings.length_penalty,
            end_token=[str(token) for token in self._ids.eos],
            return_end_token=True,
            max_input_length=0,  # no limit of its own
            max_batch_size=max_batch_size or 0,
        )
        rows = [[int(token) for token in result.hypotheses[0]] for result in results]
        return [self._ended(row, settings.max_new_tokens) for row in rows]

    def _ended(self, ids: list[int], max_new_tokens: int) -> list[int]:
        forced_eos = self._ids.forced_eos
        if forced_eos is None or len(ids) < max_new_tokens:
            return ids
        return [*ids[: max_new_tokens - 1], forced_eos]


def import_ctranslate2() -> Any:
    """The package `ctranslate2`.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import ctranslate2
    except ImportError as error:
        raise ConfigError(
            f"ctranslate2 cannot be imported ({error}): pip install 'kobart-triton[peers]'"
        ) from error
    return ctranslate2
