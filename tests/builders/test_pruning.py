"""ModelPruner: what is zero, what is gone, what never changes, and what is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BartConfig, BartForConditionalGeneration

from builders import ModelPruner, create_model_pruner
from builders.prune_documents import LossBatch, synthetic_batches
from builders.prune_format import PrunedBart
from builders.prune_layers import mean_loss
from builders.prune_selection import prunable_linears, select
from kobart_runtime.errors import ConfigError

SIZES: dict[str, Any] = {
    "vocab_size": 60, "d_model": 24, "encoder_layers": 3, "decoder_layers": 3,
    "encoder_attention_heads": 6, "decoder_attention_heads": 6,
    "encoder_ffn_dim": 40, "decoder_ffn_dim": 20, "max_position_embeddings": 32,
    "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 3, "decoder_start_token_id": 1,
    "forced_eos_token_id": 1,
}  # fmt: skip
Prune = Callable[[ModelPruner, BartForConditionalGeneration], Any]
METHODS: dict[str, Prune] = {
    "magnitude": lambda pruner, model: pruner.magnitude_pruning(model, 0.3),
    "global": lambda pruner, model: pruner.global_pruning(model, 0.3),
    "2:4": lambda pruner, model: pruner.two_four_pruning(model),
    "structured, dim 0": lambda pruner, model: pruner.structured_pruning(model, 0.35),
    "structured, dim 1": lambda pruner, model: pruner.structured_pruning(model, 0.35, dim=1),
    "structured, some neurons": lambda pruner, model: pruner.structured_pruning(
        model, 0.35, layers_to_prune=["model.decoder.layers.1.fc1"]
    ),
    "structured, some heads": lambda pruner, model: pruner.structured_pruning(
        model, 0.35, layers_to_prune=["model.encoder.layers.0.self_attn.q_proj"]
    ),
    "layers": lambda pruner, model: pruner.layer_pruning(model, 2, 1),
    "all": lambda pruner, model: (
        pruner.layer_pruning(model, 2),
        pruner.structured_pruning(model, 0.2),
        pruner.magnitude_pruning(model, 0.3),
        pruner.two_four_pruning(model, ["model.encoder.*"]),
    ),
}


@pytest.fixture
def model() -> BartForConditionalGeneration:
    torch.manual_seed(5)
    model = BartForConditionalGeneration(BartConfig(**SIZES)).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@pytest.fixture
def batch() -> LossBatch:
    generator = torch.Generator().manual_seed(7)
    input_ids = torch.randint(4, 60, (2, 9), generator=generator)
    labels = torch.randint(4, 60, (2, 5), generator=generator)
    return LossBatch(input_ids, torch.ones_like(input_ids), labels.roll(1, 1), labels)


@torch.no_grad()
def logits_of(model: BartForConditionalGeneration, batch: LossBatch) -> Tensor:
    logits: Tensor = model(
        input_ids=batch.input_ids, decoder_input_ids=batch.decoder_input_ids
    ).logits
    return logits


def generated(model: Any, batch: LossBatch, use_cache: bool = True) -> Tensor:
    ids: Tensor = model.generate(
        batch.input_ids, num_beams=2, max_new_tokens=6, do_sample=False, use_cache=use_cache
    )
    return ids


def zeros(linear: nn.Module) -> int:
    assert isinstance(linear.weight, Tensor)
    return int((linear.weight == 0).sum())


@pytest.mark.parametrize("method", METHODS)
def test_embeddings_and_output_layer_stay_bit_identical(
    method: str, model: BartForConditionalGeneration
) -> None:
    before = {
        name: module.weight.detach().clone()
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.Embedding) or name == "lm_head"
    }
    pruner = create_model_pruner()
    METHODS[method](pruner, model)
    pruner.make_permanent(model)
    assert len(before) == 6
    for name, weight in before.items():
        assert torch.equal(model.get_submodule(name).weight, weight)  # type: ignore[arg-type]
    assert model.lm_head.weight is model.model.shared.weight


@pytest.mark.parametrize("method", ["magnitude", "global", "2:4", "all"])
def test_masked_and_permanent_models_give_identical_outputs(
    method: str, model: BartForConditionalGeneration, batch: LossBatch
) -> None:
    pruner, dense = ModelPruner(), logits_of(model, batch)
    METHODS[method](pruner, model)
    assert any(name.endswith("weight_mask") for name, _ in model.named_buffers())
    masked, masked_stats = logits_of(model, batch), pruner.get_pruning_stats()
    pruner.make_permanent(model)
    assert not any("_mask" in name or "_orig" in name for name in model.state_dict())
    assert torch.equal(logits_of(model, batch), masked)
    assert not torch.equal(masked, dense)
    assert pruner.get_pruning_stats() == masked_stats


@pytest.mark.parametrize("method", METHODS)
def test_save_load_gives_the_same_model(
    method: str, model: BartForConditionalGeneration, batch: LossBatch, tmp_path: Path
) -> None:
    pruner = ModelPruner()
    METHODS[method](pruner, model)
    pruner.make_permanent(model)
    model.save_pretrained(tmp_path)
    loaded = PrunedBart.from_pretrained(tmp_path).eval()
    assert torch.equal(logits_of(loaded, batch), logits_of(model, batch))
    answer = generated(loaded, batch)
    assert torch.equal(generated(model, batch), answer)
    assert torch.equal(generated(model, batch, use_cache=False), answer)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert pruner.get_pruning_stats()["bytes_on_disk"] == size


def test_magnitude_takes_the_smallest_of_each_layer(model: BartForConditionalGeneration) -> None:
    weights = {name: part.weight.detach() for name, part in prunable_linears(model).items()}
    ModelPruner(amount=0.25).magnitude_pruning(model)
    assert len(weights) == 3 * 6 + 3 * 10
    for name, linear in prunable_linears(model).items():
        smallest = weights[name].abs().flatten().sort().values[: weights[name].numel() // 4]
        assert zeros(linear) == len(smallest)
        assert linear.weight[linear.weight != 0].abs().min() >= smallest[-1]
        assert linear.bias is not None
        assert bool(linear.bias.all())


def test_global_takes_the_smallest_of_all(model: BartForConditionalGeneration) -> None:
    every = [part.weight.detach().flatten() for part in prunable_linears(model).values()]
    smallest = torch.cat(every).abs().sort().values
    ModelPruner().global_pruning(model, 0.4)
    linears = prunable_linears(model).values()
    count = round(0.4 * len(smallest))
    assert sum(zeros(linear) for linear in linears) == count
    assert min(part.weight[part.weight != 0].abs().min() for part in linears) == smallest[count]
    assert len({zeros(linear) / linear.weight.numel() for linear in linears}) > 1


def test_two_four_keeps_the_two_largest_of_four(model: BartForConditionalGeneration) -> None:
    weights = {name: part.weight.detach() for name, part in prunable_linears(model).items()}
    ModelPruner().two_four_pruning(model)
    for name, linear in prunable_linears(model).items():
        groups = linear.weight.unflatten(1, (-1, 4))
        assert bool(((groups != 0).sum(-1) == 2).all())
        largest = weights[name].abs().unflatten(1, (-1, 4)).topk(2).values.sum(-1)
        assert torch.allclose(groups.abs().sum(-1), largest)


def test_structured_removes_the_least_important_neurons(
    model: BartForConditionalGeneration, batch: LossBatch
) -> None:
    layer = model.model.encoder.layers[0]
    with torch.no_grad():  # neurons that do nothing, so that nothing is lost without them
        layer.fc2.weight[:, [3, 17]] = 0
        layer.self_attn.out_proj.weight[:, 4:8] = 0  # head 1 of 6, D = 4
    before = logits_of(model, batch)
    pruner = ModelPruner()
    pruner.structured_pruning(model, 0.05, layers_to_prune=["model.encoder.layers.0.fc1"])
    pruner.structured_pruning(model, 0.2, layers_to_prune=["model.encoder.layers.0.*.v_proj"])
    assert layer.fc1.weight.shape == (38, 24)
    assert layer.fc1.bias.shape == (38,)
    assert layer.fc2.weight.shape == (24, 38)
    assert layer.self_attn.q_proj.weight.shape == (20, 24)
    assert layer.self_attn.out_proj.weight.shape == (24, 20)
    assert (layer.self_attn.num_heads, layer.self_attn.head_dim) == (5, 4)
    torch.testing.assert_close(logits_of(model, batch), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dim", [0, 1])
def test_structured_share_is_rounded_down_everywhere(
    dim: int, model: BartForConditionalGeneration
) -> None:
    ModelPruner("structured", 0.35).structured_pruning(model, dim=dim)
    for layer in [*model.model.encoder.layers, *model.model.decoder.layers]:
        assert layer.self_attn.num_heads == 6 - 2
    for layer in model.model.decoder.layers:
        assert layer.encoder_attn.num_heads == 6 - 2
        assert (layer.fc1.out_features, layer.fc2.in_features) == (20 - 7, 20 - 7)
    assert (model.config.encoder_ffn_dim, model.config.decoder_ffn_dim) == (40 - 14, 20 - 7)


def test_what_bart_config_can_express_needs_no_extension(
    model: BartForConditionalGeneration, batch: LossBatch, tmp_path: Path
) -> None:
    ModelPruner().structured_pruning(model, 0.5, layers_to_prune=["fc1"])
    model.save_pretrained(tmp_path)
    assert "kobart_triton" not in json.loads((tmp_path / "config.json").read_text("utf-8"))
    plain = BartForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(logits_of(plain, batch), logits_of(model, batch))


def test_layers_go_by_backward_elimination(model: BartForConditionalGeneration) -> None:
    batches = synthetic_batches(model)
    layers = list(model.model.decoder.layers)
    losses = []
    for left_out in layers:
        model.model.decoder.layers = nn.ModuleList(part for part in layers if part is not left_out)
        losses.append(mean_loss(model, batches))
    model.model.decoder.layers = nn.ModuleList(layers)
    whole, first = mean_loss(model, batches), losses.index(min(losses))

    pruner = ModelPruner()
    pruner.layer_pruning(model.train(), decoder_layers=1)
    assert model.training
    [step] = pruner.get_pruning_stats()["steps"]
    [decoder] = step["stacks"]
    assert decoder["removed"][0] == first
    assert decoder["losses"][:2] == pytest.approx((whole, losses[first]))
    assert decoder["losses"][2] == pytest.approx(mean_loss(model.eval(), batches))
    [left] = model.model.decoder.layers
    assert left is layers[({0, 1, 2} - set(decoder["removed"])).pop()]
    assert (model.config.encoder_layers, model.config.decoder_layers) == (3, 1)


def test_statistics_count_zeros_and_what_is_gone(model: BartForConditionalGeneration) -> None:
    total = sum(parameter.numel() for parameter in model.parameters())
    chosen = sum(part.weight.numel() for part in prunable_linears(model).values())
    pruner = ModelPruner(amount=0.25)
    pruner.prune(model)
    stats = pruner.get_pruning_stats()
    pruned = sum(zeros(part) for part in prunable_linears(model).values())
    assert (stats["total_params"], stats["pruned_params"]) == (total, pruned)
    assert stats["active_params"] == total - pruned
    assert stats["sparsity"] == pytest.approx(pruned / total)
    assert stats["target_sparsity"] == pytest.approx(pruned / chosen) == pytest.approx(0.25)
    assert stats["compression_ratio"] == pytest.approx(total / (total - pruned))
    assert stats["bytes_on_disk"] == stats["bytes_on_disk_before"]

    pruner.make_permanent(model)
    pruner.structured_pruning(model, 0.5, layers_to_prune=["fc1"])
    stats = pruner.get_pruning_stats()
    left = sum(parameter.numel() for parameter in model.parameters())
    zero = sum(zeros(part) for part in prunable_linears(model).values())
    assert (stats["total_params"], stats["active_params"]) == (total, left - zero)
    assert stats["bytes_on_disk_before"] - stats["bytes_on_disk"] == pytest.approx(
        4 * (total - left), abs=200
    )
    assert [step["method"] for step in stats["steps"]] == ["magnitude", "structured"]


def test_statistics_start_anew_with_another_model(model: BartForConditionalGeneration) -> None:
    pruner = ModelPruner()
    with pytest.raises(ConfigError, match="no statistics yet"):
        pruner.get_pruning_stats()
    pruner.magnitude_pruning(BartForConditionalGeneration(BartConfig(**SIZES)), 0.5)
    pruner.magnitude_pruning(model, 0.1, ["fc1"])
    stats = pruner.get_pruning_stats()
    assert len(stats["layers"]) == 6
    assert stats["warnings"] == []


def test_statistics_are_saved_as_json(model: BartForConditionalGeneration, tmp_path: Path) -> None:
    pruner = ModelPruner()
    METHODS["all"](pruner, model)
    pruner.save_pruning_stats(tmp_path / "reports" / "stats.json")
    saved = json.loads((tmp_path / "reports" / "stats.json").read_text("utf-8"))
    assert saved == json.loads(json.dumps(pruner.get_pruning_stats()))
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["stats.json"]


def test_each_pruned_layer_is_logged_with_its_sparsity(
    model: BartForConditionalGeneration, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("tests.pruning")
    caplog.set_level(logging.INFO, logger.name)
    ModelPruner(logger=logger).magnitude_pruning(model, 0.25, ["model.decoder.layers.*.fc1"])
    assert caplog.messages == [
        f"model.decoder.layers.{layer}.fc1: sparsity 25.0 %" for layer in range(3)
    ]


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("layers", "all")])
def test_the_log_is_what_the_statistics_say(
    method: str, model: BartForConditionalGeneration, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pruner = ModelPruner()
    METHODS[method](pruner, model)
    layers = pruner.get_pruning_stats()["layers"]
    logged = [message for message in caplog.messages if ": sparsity " in message]
    assert sorted(logged) == sorted(
        f"{name}: sparsity {100 * share:.1f} %" for name, share in layers.items()
    )
    assert any(layers.values())


@pytest.mark.parametrize(
    ("prune", "warns"),
    [
        (lambda pruner, model: pruner.magnitude_pruning(model, 0.39), False),
        (lambda pruner, model: pruner.magnitude_pruning(model, 0.4), True),
        (lambda pruner, model: pruner.structured_pruning(model, 0.4), True),
        (lambda pruner, model: pruner.two_four_pruning(model), True),
        (lambda pruner, model: pruner.layer_pruning(model, 2), False),
        (lambda pruner, model: pruner.layer_pruning(model, 2, 1), True),
    ],
)
def test_forty_percent_or_more_warns(
    prune: Prune,
    warns: bool,
    model: BartForConditionalGeneration,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pruner = ModelPruner()
    prune(pruner, model)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert pruner.get_pruning_stats()["warnings"] == warnings
    assert [("% without fine-tuning" in warning) for warning in warnings] == [True] * warns


@pytest.mark.parametrize(
    ("patterns", "count"),
    [
        (None, 48),
        (["model.encoder.layers.0.fc1"], 1),
        (["fc1", "fc2"], 12),
        (["model.decoder.layers.*.fc1"], 3),
        (["*.encoder_attn.?_proj", "model.decoder.layers.0.*"], 16),
        (["*"], 48),
    ],
)
def test_layers_are_named_exactly_barely_or_by_globs(
    patterns: list[str] | None, count: int, model: BartForConditionalGeneration
) -> None:
    assert len(select(model, patterns)) == count


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["lm_head"], "'lm_head' names the output layer, which is never pruned: its weight is"),
        (["fc1", "lm_*"], "names the output layer"),
        (["model.shared"], "names the embedding model.shared, which is never pruned"),
        (["model.encoder.embed_tokens"], "names the embedding model.encoder.embed_tokens"),
        (["embed_positions"], "names the embedding model.encoder.embed_positions"),
        (["fc3"], "'fc3' matches no Linear .* near names: fc., fc."),
        (
            ["model.decoder.layer.*.fc1"],
            r"matches no Linear .* near names: model\.decoder\.layers\.\*\.fc1, ",
        ),
        (["self_attn_layer_norm"], "matches no Linear"),
        (["????"], "near names: k_proj, v_proj"),
        ([], r"must be a list of names or None, got \[\]"),
        ("fc1", "must be a list of names or None, got 'fc1'"),
    ],
)
def test_names_that_are_refused(
    patterns: Any, message: str, model: BartForConditionalGeneration
) -> None:
    for method in ("magnitude_pruning", "global_pruning", "structured_pruning", "two_four_pruning"):
        with pytest.raises(ConfigError, match=message):
            getattr(ModelPruner(), method)(model, layers_to_prune=patterns)
    assert not any("_mask" in name for name in model.state_dict())


@pytest.mark.parametrize(
    ("patterns", "dim", "message"),
    [
        (["fc2"], 0, r"fc2 cannot lose output neurons \(dim 0\): .* residual stream.* name fc1, q"),
        (["*.out_proj"], 0, "out_proj cannot lose output neurons"),
        (["fc1"], 1, r"fc1 cannot lose input neurons \(dim 1\): .* name fc2, out_proj"),
        (["model.decoder.layers.0.self_attn.q_proj"], 0, "must keep the same number of heads"),
        (["*.encoder_attn.out_proj"], 1, "model.decoder.layers.0.encoder_attn 4: name all"),
        (None, 2, r"dim must be 0 \(output neurons\) or 1 \(input neurons\), got 2"),
    ],
)
def test_structures_that_are_refused(
    patterns: list[str] | None, dim: int, message: str, model: BartForConditionalGeneration
) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelPruner(amount=0.35).structured_pruning(model, dim=dim, layers_to_prune=patterns)


def test_a_glob_takes_what_can_shrink(model: BartForConditionalGeneration) -> None:
    ModelPruner().structured_pruning(model, 0.5, layers_to_prune=["model.decoder.*"])
    assert model.model.decoder.layers[0].fc1.out_features == 10
    assert model.model.decoder.layers[0].encoder_attn.num_heads == 3
    assert model.model.encoder.layers[0].fc1.out_features == 40


@pytest.mark.parametrize("amount", [-0.1, 1, 1.0, 30, float("nan"), float("inf"), "0.3", True])
def test_amounts_that_are_refused(amount: Any, model: BartForConditionalGeneration) -> None:
    message = r"must be a share from 0 to below 1 \(0.3 = 30 %\), got"
    with pytest.raises(ConfigError, match=message):
        ModelPruner(amount=amount)
    for method in ("magnitude_pruning", "global_pruning", "structured_pruning"):
        with pytest.raises(ConfigError, match=message):
            getattr(ModelPruner(), method)(model, amount)


def test_an_amount_of_nothing_changes_nothing(
    model: BartForConditionalGeneration, batch: LossBatch
) -> None:
    before = logits_of(model, batch)
    pruner = ModelPruner(amount=0)
    pruner.structured_pruning(model)
    pruner.magnitude_pruning(model)
    pruner.global_pruning(model)
    assert torch.equal(logits_of(model, batch), before)
    assert pruner.get_pruning_stats()["pruned_params"] == 0


def test_other_refusals(model: BartForConditionalGeneration) -> None:
    with pytest.raises(ConfigError, match="must be one of magnitude, structured, global, got 'l1'"):
        ModelPruner("l1")
    with pytest.raises(ConfigError, match="global has no structured form"):
        create_model_pruner("global", structured=True)
    with pytest.raises(ConfigError, match=r"the encoder has 3 layers: 1..3 can stay, got 4"):
        ModelPruner().layer_pruning(model, 4)
    with pytest.raises(ConfigError, match=r"the decoder has 3 layers: 1..3 can stay, got 0"):
        ModelPruner().layer_pruning(model, 2, 0)
    with pytest.raises(ConfigError, match="a BartForConditionalGeneration can be pruned, got"):
        ModelPruner().magnitude_pruning(nn.Linear(4, 4))  # type: ignore[arg-type]
    masked = ModelPruner().magnitude_pruning(model)
    with pytest.raises(ConfigError, match=r"has a pruning mask, .* call make_permanent first"):
        ModelPruner().structured_pruning(masked)
    odd = BartForConditionalGeneration(BartConfig(**{**SIZES, "decoder_ffn_dim": 22}))
    with pytest.raises(ConfigError, match="fc2 has 22 inputs, 2:4 sparsity needs a multiple of 4"):
        ModelPruner().two_four_pruning(odd)


def test_shares_below_one_head_are_told(model: BartForConditionalGeneration) -> None:
    pruner = ModelPruner()
    pruner.structured_pruning(model, 0.1)
    assert model.model.encoder.layers[0].self_attn.num_heads == 6
    assert pruner.get_pruning_stats()["warnings"] == [
        "0.1 of 6 heads is less than one: none was removed"
    ]


def test_structured_by_the_constructor(model: BartForConditionalGeneration) -> None:
    pruner = create_model_pruner(amount=0.5, structured=True)
    assert pruner.prune(model, ["fc1"]) is model
    assert model.model.encoder.layers[2].fc1.out_features == 20
