"""Pruning of BART models: weights by masks; neurons, heads and layers for real.

    pruner = create_model_pruner()
    pruner.structured_pruning(model, amount=0.2)
    pruner.save_pruning_stats("stats.json")
    model.save_pretrained("pruned")  # loads with builders.prune_format.PrunedBart

Zeros of the unstructured methods take as much room and time as other numbers, on every engine
here; structured pruning makes a model smaller and faster.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.utils import prune
from transformers import BartForConditionalGeneration

from builders.prune_documents import LossBatch
from builders.prune_format import store_shapes
from builders.prune_layers import counts_to_keep, keep_best_layers, stack, stack_of
from builders.prune_ledger import PruningLedger
from builders.prune_masks import (
    WEIGHT,
    TwoFourPruning,
    check_two_four,
    check_unmasked,
    remove_masks,
)
from builders.prune_selection import prunable_linears, select
from builders.prune_steps import check_amount
from builders.prune_structure import check_decoder_heads, ends, owners, residual_refusal, shrink
from kobart_runtime.errors import ConfigError

METHODS = ("magnitude", "structured", "global")
FINE_TUNE_FROM = 0.4  # share from which a model does not recover by itself


class ModelPruner:
    """Prunes a BartForConditionalGeneration in place, and counts what it did.

    The statistics are those of one model: the first call with another one starts them anew.
    """

    def __init__(
        self,
        pruning_method: str = "magnitude",
        amount: float = 0.3,
        structured: bool = False,
        logger: logging.Logger | None = None,
    ) -> None:
        """Set what `prune` does, and the amount of every call that names none.

        Args:
            pruning_method: "magnitude", "structured" or "global".
            amount: Share to remove, from 0 to below 1.
            structured: The same as pruning_method "structured".
            logger: Gets a line for each pruned layer, and the warnings.

        Raises:
            ConfigError: The method is unknown or contradicts `structured`, or the amount is out
                of range.
        """
        if pruning_method not in METHODS:
            raise ConfigError(
                f"pruning_method must be one of {', '.join(METHODS)}, got {pruning_method!r}"
            )
        if structured and pruning_method == "global":
            raise ConfigError("structured pruning is per layer: global has no structured form")
        self.pruning_method = "structured" if structured else pruning_method
        self.amount = check_amount(amount)
        self._logger = logger or logging.getLogger(__name__)
        self._ledger: PruningLedger | None = None

    def prune(
        self, model: BartForConditionalGeneration, layers_to_prune: Sequence[str] | None = None
    ) -> BartForConditionalGeneration:
        """Prune by the method and amount that this pruner was made with."""
        method = getattr(self, f"{self.pruning_method}_pruning")
        pruned: BartForConditionalGeneration = method(model, layers_to_prune=layers_to_prune)
        return pruned

    def magnitude_pruning(
        self,
        model: BartForConditionalGeneration,
        amount: float | None = None,
        layers_to_prune: Sequence[str] | None = None,
    ) -> BartForConditionalGeneration:
        """Mask the smallest weights of each layer (L1).

        Args:
            model: Changed in place, and returned.
            amount: Share of each layer's weights that are not masked yet; None: the pruner's.
            layers_to_prune: Exact names, bare names (`fc1`) or globs
                (`model.decoder.layers.*.fc1`); None: every Linear of encoder and decoder.

        Raises:
            ConfigError: The amount is out of range, or a name fits nothing that can be pruned.
        """
        share = self._share(amount)
        linears = select(model, layers_to_prune)
        self._open(model, linears)
        for linear in linears.values():
            prune.l1_unstructured(linear, WEIGHT, amount=share)
        self._close("magnitude", linears, share)
        return model

    def global_pruning(
        self,
        model: BartForConditionalGeneration,
        amount: float | None = None,
        layers_to_prune: Sequence[str] | None = None,
    ) -> BartForConditionalGeneration:
        """Mask the smallest weights of all chosen layers together: see `magnitude_pruning`."""
        share = self._share(amount)
        linears = select(model, layers_to_prune)
        self._open(model, linears)
        parameters = [(linear, WEIGHT) for linear in linears.values()]
        prune.global_unstructured(parameters, prune.L1Unstructured, amount=share)
        self._close("global", linears, share)
        return model

    def two_four_pruning(
        self, model: BartForConditionalGeneration, layers_to_prune: Sequence[str] | None = None
    ) -> BartForConditionalGeneration:
        """Mask two of every four neighbouring inputs: see `magnitude_pruning`.

        Raises:
            ConfigError: As `magnitude_pruning`, or a layer's width is no multiple of four.
        """
        linears = select(model, layers_to_prune)
        check_two_four(linears)
        self._open(model, linears)
        for linear in linears.values():
            TwoFourPruning.apply(linear, WEIGHT)
        self._close("2:4", linears, 0.5)
        return model

    def structured_pruning(
        self,
        model: BartForConditionalGeneration,
        amount: float | None = None,
        dim: int = 0,
        layers_to_prune: Sequence[str] | None = None,
    ) -> BartForConditionalGeneration:
        """Remove feed-forward neurons and whole attention heads, those of the smallest norm.

        Args:
            model: Changed in place, and returned.
            amount: Share of each layer's neurons and heads, rounded down; None: the pruner's.
            dim: 0 names layers by their output neurons (fc1, and the q, k and v projections), 1
                by their input neurons (fc2, out_proj). Either end of a pair takes the other along.
            layers_to_prune: As for `magnitude_pruning`.

        Raises:
            ConfigError: As `magnitude_pruning`; a named layer's dimension is the residual
                stream's; the decoder's attentions would differ; or there are masks.
        """
        share = self._share(amount)
        if dim not in (0, 1):
            raise ConfigError(f"dim must be 0 (output neurons) or 1 (input neurons), got {dim!r}")
        named = select(model, layers_to_prune, lambda name: residual_refusal(name, dim))
        chosen = owners(model, named)
        linears = ends(chosen)
        check_decoder_heads(model, chosen, share)
        check_unmasked(linears)
        self._open(model, linears)
        unchanged = set()
        for name, owner in chosen.items():
            unit, before, left = shrink(owner, share)
            self._logger.info("%s: %d of %d %s stay", name, left, before, unit)
            if left == before and share:
                unchanged.add(f"{share} of {before} {unit} is less than one: none was removed")
        for warning in sorted(unchanged):
            self._warn(warning)
        store_shapes(model)
        self._close("structured", linears, share, dim=dim)
        return model

    def layer_pruning(
        self,
        model: BartForConditionalGeneration,
        encoder_layers: int | None = None,
        decoder_layers: int | None = None,
        documents: Sequence[LossBatch] | None = None,
    ) -> BartForConditionalGeneration:
        """Keep that many layers of each stack, the most useful by measured loss.

        Args:
            model: Changed in place, and returned.
            encoder_layers: How many of the encoder's layers stay; None: all.
            decoder_layers: How many of the decoder's layers stay; None: all.
            documents: What the loss is measured on; None: random sources with the model's own
                greedy answers, which ranks layers less well.

        Raises:
            ConfigError: A number is not from 1 to the layers that there are.
        """
        counts = counts_to_keep(model, encoder_layers, decoder_layers)
        chosen = {
            name: linear
            for name, linear in prunable_linears(model).items()
            if stack_of(name) in counts
        }
        shares = [1 - count / len(stack(model, name).layers) for name, count in counts.items()]
        self._open(model, chosen)
        results = keep_best_layers(model, counts, documents)
        for result in results:
            self._logger.info(
                "%s: layers %s removed, loss %.4f -> %.4f",
                result.stack,
                list(result.removed),
                result.losses[0],
                result.losses[-1],
            )
        store_shapes(model)
        self._close("layers", {}, max(shares), stacks=[asdict(result) for result in results])
        return model

    def make_permanent(self, model: BartForConditionalGeneration) -> BartForConditionalGeneration:
        """Write the masks into the weights and take them away; the outputs stay the same."""
        remove_masks(prunable_linears(model).values())
        return model

    def get_pruning_stats(self) -> dict[str, Any]:
        """What pruning did to the model, counted on the model as it is now.

        Returns:
            `total_params` before pruning, `active_params` that are still there and not pruned to
            zero, `pruned_params`, `sparsity` = pruned / total, `target_sparsity` over the weights
            of the layers that were chosen, `compression_ratio` = total / active,
            `bytes_on_disk` of the saved weights and `bytes_on_disk_before`; `layers` (name ->
            sparsity), `steps` and `warnings`.

        Raises:
            ConfigError: Nothing was pruned yet.
        """
        if self._ledger is None:
            raise ConfigError("there are no statistics yet: prune a model first")
        return self._ledger.stats()

    def save_pruning_stats(self, path: str | Path) -> None:
        """Write the statistics as JSON; the file appears whole or not at all."""
        target = Path(path)
        text = json.dumps(self.get_pruning_stats(), ensure_ascii=False, indent=2)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.tmp")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(target)

    def _share(self, amount: float | None) -> float:
        return self.amount if amount is None else check_amount(amount)

    def _open(self, model: BartForConditionalGeneration, linears: dict[str, nn.Linear]) -> None:
        if self._ledger is None or self._ledger.model is not model:
            self._ledger = PruningLedger(model)
        self._ledger.choose(linears.values())

    def _close(
        self, method: str, linears: dict[str, nn.Linear], share: float, **details: Any
    ) -> None:
        """Log each pruned layer, warn of a large share, and note the step."""
        assert self._ledger is not None
        for name, linear in linears.items():
            sparsity = 100 * self._ledger.layer_sparsity(linear)
            self._logger.info("%s: sparsity %.1f %%", name, sparsity)
        if share >= FINE_TUNE_FROM:
            self._warn(
                f"{method} pruning of {100 * share:.0f} % without fine-tuning: at "
                f"{100 * FINE_TUNE_FROM:.0f} % or more a model needs it; fine-tune the pruned "
                "model before it is served"
            )
        self._ledger.steps.append({"method": method, "share": share, **details})

    def _warn(self, warning: str) -> None:
        assert self._ledger is not None
        self._logger.warning(warning)
        self._ledger.warnings.append(warning)


def create_model_pruner(
    pruning_method: str = "magnitude",
    amount: float = 0.3,
    structured: bool = False,
    logger: logging.Logger | None = None,
) -> ModelPruner:
    """A `ModelPruner`; the arguments are its own."""
    return ModelPruner(pruning_method, amount, structured, logger)
