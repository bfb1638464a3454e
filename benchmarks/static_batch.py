"""One static batch, by this project's engines and search: it ends when its longest request does."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.traffic import Call, longest_settings
from kobart_runtime.beam_search import BeamSearch
from kobart_runtime.decode_batch import DecodeBatch
from kobart_runtime.decode_batch import Sequence as Decoded
from kobart_runtime.errors import KobartError
from kobart_runtime.greedy_search import GreedySearch
from kobart_runtime.model_config import ModelConfig
from kobart_runtime.model_runner import ModelRunner
from kobart_runtime.request import Request
from kobart_runtime.scheduler import pad_sources
from kobart_runtime.search import Generated


def decode_together(
    runner: ModelRunner, config: ModelConfig, calls: Sequence[Call]
) -> list[list[int]]:
    """Encode all sources in one padded call, then decode all of them until the last one ends.

    Args:
        runner: Nobody else may use it meanwhile.
        config: The build's.
        calls: Of one beam width; eos is suppressed, so that all end with the longest.

    Returns:
        As many ids for each as the longest asks for.
    """
    settings = longest_settings(calls)
    requests = [Request(source, settings, _Nobody()) for source, _ in calls]
    search = GreedySearch if settings.num_beams == 1 else BeamSearch
    encoded = runner.encode(*pad_sources(requests, config.ids.pad))
    decoded = [Decoded(request, search(settings, config.ids)) for request in requests]
    batch = DecodeBatch(runner, num_beams=settings.num_beams)
    batch.admit(dict(enumerate(decoded)), encoded)
    while any(sequence.search.generated is None for sequence in decoded):
        batch.step()
    return [list(_ids(sequence)) for sequence in decoded]


def _ids(sequence: Decoded) -> tuple[int, ...]:
    assert sequence.search.generated is not None
    return sequence.search.generated.ids


class _Nobody:
    """A listener of requests that no loop sees."""

    def on_tokens(self, ids: Sequence[int]) -> None:
        pass

    def on_finished(self, generated: Generated) -> None:
        pass

    def on_failed(self, error: KobartError) -> None:
        pass
