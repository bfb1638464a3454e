"""The systems that are compared: each summarises a batch of sources and returns its tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.ctranslate2_folder import CTranslate2Folder, import_ctranslate2
from benchmarks.our_runtime import OurRuntime
from builders.checkpoint import Checkpoint
from kobart_runtime.settings import GenerationSettings

__all__ = ["CTranslate2Generate", "OurRuntime", "TorchGenerate"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchGenerate:
    """`transformers` `generate()`, one padded call for the batch."""

    def __init__(
        self, checkpoint: Checkpoint, device: str = "cpu", precision: str = "fp32"
    ) -> None:
        """Put the model where it is to run.

        Args:
            checkpoint: Its model is moved and converted, not copied.
            device: Of PyTorch.
            precision: `fp32` or `bf16`, of weights and activations.
        """
        self.name = f"PyTorch generate {precision}"
        self._model: Any = checkpoint.model.to(device, DTYPES[precision])  # type: ignore[arg-type]
        self._device = device
        self._ids = checkpoint.ids

    def generate(
        self,
        sources: Sequence[np.ndarray],
        settings: GenerationSettings,
        max_batch_size: int | None = None,
    ) -> list[list[int]]:
        """See `benchmarks.decoding.System`; at most `max_batch_size` sources go into one call."""
        size = max_batch_size or len(sources)
        batches = [sources[i : i + size] for i in range(0, len(sources), size)]
        return [ids for batch in batches for ids in self._generate(batch, settings)]

    def _generate(
        self, sources: Sequence[np.ndarray], settings: GenerationSettings
    ) -> list[list[int]]:
        input_ids, attention_mask = self._padded(sources)
        beam_settings = {
            "early_stopping": settings.early_stopping,
            "length_penalty": settings.length_penalty,
        }
        with torch.inference_mode():
            output = self._model.generate(
                input_ids,
                attention_mask=attention_mask,
                do_sample=False,
                num_beams=settings.num_beams,
                max_new_tokens=settings.max_new_tokens,
                min_new_tokens=settings.min_new_tokens,
                no_repeat_ngram_size=settings.no_repeat_ngram_size,
                repetition_penalty=float(settings.repetition_penalty),
                decoder_start_token_id=self._ids.decoder_start,
                forced_bos_token_id=self._ids.forced_bos,
                forced_eos_token_id=self._ids.forced_eos,
                eos_token_id=list(self._ids.eos),
                pad_token_id=self._ids.pad,
                **(beam_settings if settings.num_beams > 1 else {}),
            )
        return [self._cut(row[1:]) for row in output.tolist()]

    def _padded(self, sources: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Input ids and attention mask, int64[R, S]."""
        rows = [torch.from_numpy(np.asarray(source, np.int64)) for source in sources]
        masks = [torch.ones_like(row) for row in rows]
        pad = torch.nn.utils.rnn.pad_sequence
        return (
            pad(rows, batch_first=True, padding_value=float(self._ids.pad)).to(self._device),
            pad(masks, batch_first=True).to(self._device),
        )

    def _cut(self, ids: list[int]) -> list[int]:
        """Without the padding that a longer neighbour in the batch causes."""
        ends = [position for position, token in enumerate(ids) if token in self._ids.eos]
        return ids[: ends[0] + 1] if ends else ids


class CTranslate2Generate(CTranslate2Folder):
    """A checkpoint converted and loaded at once; see `CTranslate2Folder` for what differs."""

    def __init__(self, checkpoint: Checkpoint, compute_type: str = "float32") -> None:
        """Convert the checkpoint and load it.

        Args:
            checkpoint: Not pruned.
            compute_type: `float32` or `int8`, of the stored weights and of the products.

        Raises:
            ConfigError: ctranslate2 is not installed.
        """
        with tempfile.TemporaryDirectory() as folder:
            convert_to_ctranslate2(checkpoint, Path(folder), compute_type)
            super().__init__(Path(folder), checkpoint.ids, compute_type)


def convert_to_ctranslate2(checkpoint: Checkpoint, folder: Path, compute_type: str) -> None:
    """Write a checkpoint in CTranslate2's form into an empty folder.

    Raises:
        ConfigError: ctranslate2 is not installed.
    """
    import_ctranslate2()
    spec = _ctranslate2_spec(checkpoint)
    spec.validate()
    spec.optimize(quantization=compute_type)
    spec.save(str(folder))


def _ctranslate2_spec(checkpoint: Checkpoint) -> Any:
    """CTranslate2's form of the model; its vocabulary is the ids as decimal text."""
    from ctranslate2.converters.transformers import BartLoader

    model: Any = checkpoint.model
    # The loader asks for two settings of old BartConfigs, which every BART has at these values.
    config = SimpleNamespace(
        **{**checkpoint.config.to_dict(), "normalize_before": False, "normalize_embedding": True}
    )
    loader = BartLoader()
    with torch.inference_mode():
        spec = loader.get_model_spec(
            SimpleNamespace(
                config=config,
                model=model.model,
                lm_head=model.lm_head,
                final_logits_bias=model.final_logits_bias,
            )
        )
    loader.set_vocabulary(spec, [str(token) for token in range(checkpoint.vocab_size)])
    spec.config.bos_token = str(checkpoint.ids.decoder_start)
    spec.config.eos_token = str(checkpoint.ids.eos[0])
    spec.config.unk_token = str(checkpoint.ids.pad)
    spec.config.decoder_start_token = str(checkpoint.ids.decoder_start)
    return spec
