"""An encoder of int8 keys and values behind the engines' contract, which has floats.

`kobart_encoder` runs it, so that what is measured there is the graph that the front model runs, in
the same library; turning bytes into floats is all that is added to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kobart_runtime import bindings
from kobart_runtime.model_config import ModelShape
from kobart_runtime.onnxruntime_runner import Encoder, open_session, run_session


class FloatKvEncoder:
    """See `onnxruntime_runner.Encoder`.

    Attributes:
        kv_dtype: Of the keys and values that it gives.
    """

    kv_dtype: Any = np.float32

    def __init__(
        self, encoder: Encoder, path: Path, shape: ModelShape, num_threads: int = 0
    ) -> None:
        """Open the graph that turns keys and values into floats.

        Args:
            encoder: Of int8 K/V.
            path: The graph; see `builders/cross_kv.py`.
            shape: The engines' dimensions.
            num_threads: Of the graph; 0 takes one per physical core.

        Raises:
            EngineError: The file cannot be loaded.
        """
        self._encoder = encoder
        self._to_float = open_session(path, num_threads)
        self._bytes = bindings.of_layers(bindings.past_cross, shape.num_decoder_layers)
        self._floats = bindings.of_layers(bindings.present_cross, shape.num_decoder_layers)

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> list[np.ndarray]:
        """Cross-attention K/V of each decoder layer, float32[R, H, S, D].

        Raises:
            EngineError: The encoder refused the inputs or failed.
        """
        feeds = {bindings.INPUT_IDS: input_ids, bindings.ATTENTION_MASK: attention_mask}
        return self.run(self._floats, feeds)

    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Some of these.

        Args:
            names: Of the outputs.
            feeds: `input_ids` and `attention_mask`, int32[R, S].

        Raises:
            EngineError: The encoder refused the inputs or failed.
        """
        states = self._encoder.encode(feeds[bindings.INPUT_IDS], feeds[bindings.ATTENTION_MASK])
        return run_session(self._to_float, list(names), dict(zip(self._bytes, states, strict=True)))

    def give_back_freed(self) -> None:
        """See `onnxruntime_runner.Encoder`.

        Raises:
            EngineError: The encoder could not.
        """
        self._encoder.give_back_freed()
