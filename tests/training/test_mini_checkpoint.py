import json
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import BartForConditionalGeneration

from builders.paths import DEFAULT_CHECKPOINT_FOLDER
from training.evaluate_mini import score, summarize
from training.evaluation_sets import CONFIGS, FILES, SAMPLES, lines, read_set

MAX_BYTES = 15 * 1000 * 1000
IDS = {
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": 1,
    "pad_token_id": 3,
}


def read_json(name: str) -> dict[str, Any]:
    return json.loads((DEFAULT_CHECKPOINT_FOLDER / name).read_text(encoding="utf-8"))


def test_config_is_of_kobart_kind() -> None:
    config = read_json("config.json")
    assert {key: config[key] for key in IDS} == IDS
    assert config["architectures"] == ["BartForConditionalGeneration"]
    assert config["d_model"] // config["encoder_attention_heads"] == 48
    assert config["d_model"] // config["decoder_attention_heads"] == 48
    assert config["encoder_layers"] != config["decoder_layers"]
    assert config["max_position_embeddings"] == 1026
    assert config["tie_word_embeddings"] is True


def test_generation_config() -> None:
    config = read_json("generation_config.json")
    assert {key: config[key] for key in IDS} == IDS
    assert config["num_beams"] == 4
    assert config["no_repeat_ngram_size"] == 3
    assert config["early_stopping"] is True


def test_weights_are_small_half_precision_and_tied() -> None:
    path = DEFAULT_CHECKPOINT_FOLDER / "model.safetensors"
    assert path.stat().st_size <= MAX_BYTES
    with safe_open(path, framework="pt") as weights:
        names = set(weights.keys())
        types = {weights.get_slice(name).get_dtype() for name in names}
    assert types == {"F16"}
    assert len(names & {"model.shared.weight", "lm_head.weight"}) == 1


@pytest.mark.parametrize("file", sorted(FILES))
def test_committed_sets_are_what_the_seed_gives(file: str) -> None:
    assert (DEFAULT_CHECKPOINT_FOLDER / file).read_text(encoding="utf-8") == lines(file)


def test_committed_sets_have_the_promised_sizes() -> None:
    for name, (_, num_examples) in CONFIGS.items():
        assert len(read_set(DEFAULT_CHECKPOINT_FOLDER, name)) == num_examples


def test_samples_are_dev_dialogues() -> None:
    dev = read_set(DEFAULT_CHECKPOINT_FOLDER, "dev")
    for file, index in SAMPLES.items():
        text = (DEFAULT_CHECKPOINT_FOLDER / "samples" / file).read_text(encoding="utf-8")
        assert text == dev[index].dialogue + "\n"


def test_stated_scores_meet_the_bars() -> None:
    scores = read_json("metrics.json")["scores"]
    assert set(scores) == set(CONFIGS)
    assert scores["test"]["num_examples"] == 100
    assert scores["test"]["rouge_l_characters"] >= 0.80
    assert scores["test"]["rouge_l_words"] >= 0.80
    assert scores["test"]["slot_recall"] >= 0.95
    assert scores["test"]["leak_rate"] <= 0.01


def test_checkpoint_summarizes() -> None:
    model = BartForConditionalGeneration.from_pretrained(
        DEFAULT_CHECKPOINT_FOLDER, dtype=torch.float32
    )
    tokenizer = Tokenizer.from_file(str(DEFAULT_CHECKPOINT_FOLDER / "tokenizer.json"))
    examples = read_set(DEFAULT_CHECKPOINT_FOLDER, "test")[:8]
    summaries = summarize(model.eval(), tokenizer, [e.dialogue for e in examples])
    scores = score(examples, summaries)
    assert scores.rouge_l_characters >= 0.80
    assert scores.slot_recall >= 0.80
