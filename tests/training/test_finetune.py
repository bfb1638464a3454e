"""Fine-tuning of a tiny model with dropout, through the command's own function."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import BartConfig, BartForConditionalGeneration

from builders.checkpoint import load_checkpoint
from builders.prune_format import EXTENSION, PrunedBart
from builders.prune_selection import prunable_linears
from builders.special_ids import IdOverrides
from client.rouge import rouge_l_means
from kobart_documents import Pair, read_pairs
from kobart_runtime.errors import BuildError, ConfigError, DocumentError
from kobart_runtime.model_config import sha256_of
from tests.builders.adapters import train as train_adapter
from tests.kobart_documents.files import write_rows
from training.finetune import main
from training.finetune_config import FinetuneConfig
from training.finetune_examples import Collator, ExampleEncoder
from training.finetune_output import write_checkpoint as write_output
from training.finetune_pipeline import Inputs, finetune
from training.finetune_trainer import GroupedTrainer, _arguments

TEXTS = (
    "회의는 월요일",
    "점심은 국수",
    "날씨는 맑음",
    "시험은 내일",
    "약속은 강남역",
    "버스는 두 시",
)
CONTROL_TOKENS = ["<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>"]
VOCAB_SIZE = 96
FAMILIES: dict[str, dict[str, Any]] = {
    "base-v2": {"bos_token_id": 1, "decoder_start_token_id": 1, "forced_eos_token_id": 1},
    "digit82": {"bos_token_id": 0, "decoder_start_token_id": 2, "forced_eos_token_id": 2},
}
Settings = dict[str, Any]


def write_checkpoint(folder: Path, family: str = "base-v2") -> Path:
    """A checkpoint as transformers 4 wrote it: generation settings in config.json alone."""
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=VOCAB_SIZE,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        init_std=0.2,
        dropout=0.1,
        eos_token_id=1,
        pad_token_id=3,
        **FAMILIES[family],
    )
    BartForConditionalGeneration(config).save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    settings = {"num_beams": 2, "max_length": 12, "eos_token_id": 1, "pad_token_id": 3}
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    merged = {**written, **settings, **FAMILIES[family], "num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(merged), encoding="utf-8")
    train_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=CONTROL_TOKENS, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads of a model this small only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"dialogue": f"{text} {other}", "summary": text} for text in TEXTS for other in TEXTS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def settings(checkpoint: Path, pairs: Path) -> Settings:
    return {
        "checkpoint": str(checkpoint),
        "train": str(pairs),
        "dev": str(pairs),
        "epochs": 10.0,
        "eval_steps": 20,
        "batch_size": 6,
        "learning_rate": 3e-3,
        "max_target_length": 12,
        "rouge_documents": 6,
    }


@pytest.fixture(scope="module")
def sparse(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tune behind unstructured pruning."""
    output = tmp_path_factory.mktemp("sparse") / "out"
    return finetune(FinetuneConfig(**settings, prune=("magnitude=0.5",), output=str(output)))


def report_of(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "finetune.json").read_text(encoding="utf-8"))
    return loaded


def load(folder: Path) -> BartForConditionalGeneration:
    model: BartForConditionalGeneration = load_checkpoint(str(folder), IdOverrides()).model
    return model


def interrupt_after(monkeypatch: pytest.MonkeyPatch, num_steps: int) -> None:
    """Ctrl-C in the training step behind that many."""
    step, seen = GroupedTrainer.training_step, iter(range(num_steps))

    def interrupted(*args: Any, **options: Any) -> Any:
        if next(seen, None) is None:
            raise KeyboardInterrupt
        return step(*args, **options)

    monkeypatch.setattr(GroupedTrainer, "training_step", interrupted)


def test_dev_loss_goes_down(sparse: Path) -> None:
    losses = [
        row["eval_loss"] for row in report_of(sparse)["training"]["log"] if "eval_loss" in row
    ]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert report_of(sparse)["training"]["best_dev_loss"] == pytest.approx(min(losses))


def test_zeros_stay_zero_and_the_rest_is_trained(sparse: Path, checkpoint: Path) -> None:
    before = prunable_linears(load(checkpoint))
    for name, linear in prunable_linears(load(sparse)).items():
        zeros = int((linear.weight == 0).sum())
        assert zeros == round(0.5 * linear.weight.numel()), name
        magnitudes = before[name].weight.abs().flatten().sort().values
        mask = before[name].weight.abs() <= magnitudes[zeros - 1]
        assert torch.equal(linear.weight == 0, mask), name
        assert not torch.equal(linear.weight[~mask], before[name].weight[~mask]), name


def test_zeros_of_an_earlier_pruning_stay_without_being_asked_for(
    sparse: Path, settings: Settings, tmp_path: Path
) -> None:
    again = {**settings, "checkpoint": str(sparse), "output": str(tmp_path / "again")}
    tuned = prunable_linears(load(finetune(FinetuneConfig(**again))))
    for name, linear in prunable_linears(load(sparse)).items():
        assert torch.equal(linear.weight == 0, tuned[name].weight == 0), name


def test_weights_are_saved_without_masks_and_tied_once(sparse: Path) -> None:
    names = set(load_file(sparse / "model.safetensors"))
    assert not [name for name in names if name.endswith(("_orig", "_mask"))]
    assert "lm_head.weight" not in names
    assert (sparse / "model.safetensors").stat().st_mode & 0o777 == 0o644
    model = load(sparse)
    assert model.lm_head.weight is model.model.shared.weight


def test_rouge_in_the_report_is_that_of_the_written_model(sparse: Path, settings: Settings) -> None:
    written = load_checkpoint(str(sparse), IdOverrides())
    model: Any = PrunedBart.from_pretrained(sparse)
    tokenizer = Tokenizer.from_file(str(sparse / "tokenizer.json"))
    rows = [json.loads(line) for line in (sparse / "dev.jsonl").read_text().splitlines()][:6]
    summaries = []
    for row in rows:
        ids = torch.tensor([tokenizer.encode(row["dialogue"]).ids])
        generated = model.generate(
            ids, attention_mask=torch.ones_like(ids), no_repeat_ngram_size=3, early_stopping=True
        )
        summaries.append(tokenizer.decode(generated[0].tolist()))
    assert written.defaults.num_beams == 2
    scores = rouge_l_means([row["summary"] for row in rows], summaries)
    rouge = report_of(sparse)["rouge_l"]
    assert rouge["after_training"] == {"characters": scores.characters, "words": scores.words}
    assert rouge["num_documents"] == 6
    assert rouge["after_training"]["characters"] > rouge["after_pruning"]["characters"]
    assert set(rouge["before"]) == {"characters", "words"}


def test_resumed_run_equals_an_uninterrupted_one(
    sparse: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in the middle of an epoch; dropout and the pairs' order go on as they were."""
    config = FinetuneConfig(**settings, prune=("magnitude=0.5",), output=str(tmp_path / "out"))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 29)
        with pytest.raises(KeyboardInterrupt):
            finetune(config)
    assert not Path(config.output).exists()
    with pytest.raises(ConfigError, match=r"an interrupted run lies in .*--resume"):
        finetune(config)
    with pytest.raises(ConfigError, match=r"had settings\.seed 42, not 7: .*start anew"):
        finetune(replace(config, seed=7), resume=True)
    resumed = finetune(config, resume=True)
    ours, theirs = (load_file(path / "model.safetensors") for path in (resumed, sparse))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert report_of(resumed)["rouge_l"] == report_of(sparse)["rouge_l"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_run_interrupted_before_its_first_checkpoint_resumes(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FinetuneConfig(**{**settings, "epochs": 1.0}, output=str(tmp_path / "out"))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            finetune(config)
    assert report_of(finetune(config, resume=True))["training"]["num_steps"] == 6


def test_structured_pruning_trains_and_builds(settings: Settings, tmp_path: Path) -> None:
    from builders.config import BuildConfig
    from builders.pipeline import build

    steps = ("structured=0.5", "layers=decoder:1")
    config = FinetuneConfig(
        **{**settings, "epochs": 1.0, "eval_steps": None}, prune=steps, output=str(tmp_path / "out")
    )
    output = finetune(config)
    written = json.loads((output / "config.json").read_text(encoding="utf-8"))
    assert written[EXTENSION]["encoder_heads"] == [2]
    assert written["decoder_layers"] == 1
    assert load(output).model.encoder.layers[0].fc1.out_features == 32
    built = build(
        BuildConfig(checkpoint=str(output), output=str(tmp_path / "build"), runtime="onnxruntime")
    )
    manifest = json.loads((built / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["verification"]["max_abs_error_logits"] < 1e-4


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_batches_have_the_ids_of_the_checkpoint(family: str, tmp_path: Path) -> None:
    loaded = load_checkpoint(str(write_checkpoint(tmp_path / "source", family)), IdOverrides())
    batch = Collator(loaded)([([20, 21], [30, 1]), ([22], [31, 32, 1])])
    start = FAMILIES[family]["decoder_start_token_id"]
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[20, 21], [22, 3]],
        "attention_mask": [[1, 1], [1, 0]],
        "decoder_input_ids": [[start, 30, 3], [start, 31, 32]],
        "labels": [[30, 1, -100], [31, 32, 1]],
    }


def test_labels_are_the_summary_and_eos_cut_to_the_limit(
    checkpoint: Path, pairs: Path, settings: Settings
) -> None:
    loaded = load_checkpoint(str(checkpoint), IdOverrides())
    limits = {**settings, "max_source_length": 4, "max_target_length": 3}
    encoder = ExampleEncoder(loaded, FinetuneConfig(**limits, output="unused"))
    examples = encoder.encode(read_pairs(pairs))
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    read = read_pairs(pairs).pairs
    sources = [tokenizer.encode(pair.text).ids for pair in read]
    summaries = [tokenizer.encode(pair.summary).ids for pair in read]
    assert examples.rows == [
        (source[:4], [*summary[:2], 1]) for source, summary in zip(sources, summaries, strict=True)
    ]
    assert examples.num_truncated_sources == sum(len(ids) > 4 for ids in sources) > 0
    assert examples.num_truncated_summaries == sum(len(ids) > 2 for ids in summaries) > 0


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_ids_and_defaults_are_those_of_the_checkpoint(
    family: str, settings: Settings, tmp_path: Path
) -> None:
    source = write_checkpoint(tmp_path / "source", family)
    changed = {**settings, "checkpoint": str(source), "epochs": 1.0, "rouge_documents": 1}
    output = finetune(FinetuneConfig(**changed, output=str(tmp_path / "out")))
    before, after = (load_checkpoint(str(path), IdOverrides()) for path in (source, output))
    assert after.ids == before.ids
    assert after.ids.decoder_start == FAMILIES[family]["decoder_start_token_id"]
    assert after.defaults == before.defaults


def test_a_training_of_one_step_trains(
    settings: Settings, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """At the whole learning rate: there is no step left that a warm-up could lead to."""
    one = {
        **settings,
        "epochs": 1.0,
        "limit": 6,
        "eval_steps": None,
        "output": str(tmp_path / "out"),
    }
    output = finetune(FinetuneConfig(**one))
    training = report_of(output)["training"]
    assert training["num_steps"] == 1
    assert [row["learning_rate"] for row in training["log"] if "learning_rate" in row] == [3e-3]
    before, after = load(checkpoint).state_dict(), load(output).state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    out, err = capfd.readouterr()
    assert re.search(r"^step 1 of 1: loss \d\.\d{4}, learning rate 0\.003$", out, re.MULTILINE)
    assert re.search(r"^step 1 of 1: dev loss \d\.\d{4}$", out, re.MULTILINE)
    assert re.search(r"^step 1 of 1: trained in \d+ s, mean loss \d\.\d{4}$", out, re.MULTILINE)
    assert "{" not in out + err


@pytest.mark.parametrize(
    ("num_pairs", "epochs", "has_warmup"), [(1, 1.0, False), (19, 1.0, False), (20, 1.0, True)]
)
def test_some_step_of_every_training_has_a_rate(
    num_pairs: int, epochs: float, has_warmup: bool, tmp_path: Path
) -> None:
    config = FinetuneConfig(train="t", output="o", batch_size=1, epochs=epochs)
    warmup = _arguments(config, num_pairs, tmp_path).get_warmup_steps(num_pairs)
    assert (warmup > 0) == has_warmup
    assert warmup < num_pairs


def test_early_stopping_keeps_the_best_weights(settings: Settings, tmp_path: Path) -> None:
    hopeless = {**settings, "learning_rate": 3.0, "eval_steps": 1, "early_stopping_patience": 2}
    training = report_of(finetune(FinetuneConfig(**hopeless, output=str(tmp_path / "out"))))[
        "training"
    ]
    losses = [row["eval_loss"] for row in training["log"] if "eval_loss" in row]
    assert training["num_steps"] < 60
    assert training["best_step"] == training["num_steps"] - 2
    assert training["best_dev_loss"] == min(losses)


def test_line_ends_and_formats_change_no_example(
    checkpoint: Path, settings: Settings, tmp_path: Path
) -> None:
    """CSV with Windows line ends in its texts trains on what JSON lines with LF trains on."""
    rows = [{"dialogue": f"{text}\n{text}", "summary": f"{text}\n"} for text in TEXTS]
    windows = [{name: text.replace("\n", "\r\n") for name, text in row.items()} for row in rows]
    encoder = ExampleEncoder(
        load_checkpoint(str(checkpoint), IdOverrides()),
        FinetuneConfig(**settings, output="unused"),
    )
    plain = encoder.encode(read_pairs(write_rows(tmp_path / "lf.jsonl", rows)))
    assert len(plain.rows) == len(TEXTS)
    for suffix in ("csv", "jsonl", "parquet"):
        path = write_rows(tmp_path / f"crlf.{suffix}", windows)
        assert encoder.encode(read_pairs(path)) == plain


def test_the_dev_file_is_read_before_the_checkpoint(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "wrong-file.csv").write_text("id,value\n1,2\n", encoding="utf-8")
    changes = {"checkpoint": str(tmp_path / "nowhere"), "dev": str(tmp_path / "wrong-file.csv")}
    config = FinetuneConfig(**{**settings, **changes}, output=str(tmp_path / "out"))
    with pytest.raises(DocumentError, match=r"wrong-file\.csv has no column named dialogue"):
        finetune(config)


def test_what_is_trained_on_is_the_merged_model_with_the_tokenizer_that_was_given(
    checkpoint: Path, settings: Settings, tmp_path: Path
) -> None:
    bare = shutil.copytree(checkpoint, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    changes = {
        "checkpoint": str(bare),
        "adapter": str(train_adapter(checkpoint, tmp_path / "adapter")),
        "tokenizer": str(checkpoint),
        "dev": None,
    }
    config = FinetuneConfig(**{**settings, **changes}, output=str(tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"bare ships no dev\.jsonl: give pairs by --dev FILE"):
        Inputs.load(config)
    inputs = Inputs.load(replace(config, dev=settings["dev"]))
    assert inputs.describe()["checkpoint"]["adapter"]["source"] == changes["adapter"]
    (tmp_path / "written").mkdir()
    write_output(tmp_path / "written", inputs.checkpoint, inputs.files, inputs.dev.pairs)
    written = load_checkpoint(str(tmp_path / "written"), IdOverrides())
    assert written.files["tokenizer.json"] == sha256_of(checkpoint / "tokenizer.json")
    merged, base = inputs.checkpoint.model, load_checkpoint(str(checkpoint), IdOverrides()).model
    name = "model.encoder.layers.0.self_attn.q_proj.weight"
    assert torch.equal(written.model.get_parameter(name), merged.get_parameter(name))
    assert not torch.equal(merged.get_parameter(name), base.get_parameter(name))


def test_columns_are_those_of_the_files_that_were_given(
    checkpoint: Path, settings: Settings, tmp_path: Path
) -> None:
    """The dev documents that a checkpoint ships keep their own."""
    shipping = shutil.copytree(checkpoint, tmp_path / "shipping")
    write_rows(shipping / "dev.jsonl", [{"dialogue": TEXTS[0], "summary": TEXTS[1]}])
    train = tmp_path / "train.csv"
    train.write_bytes(f"본문,한줄\r\n{TEXTS[0]},{TEXTS[1]}\r\n".encode("cp949"))
    changes = {"checkpoint": str(shipping), "train": str(train), "dev": None}
    columns: dict[str, Any] = {"text_column": "본문", "summary_column": "한줄", "encoding": "cp949"}
    config = FinetuneConfig(**{**settings, **changes}, **columns, output=str(tmp_path / "out"))
    inputs = Inputs.load(config)
    assert inputs.train.pairs == inputs.dev.pairs == (Pair(TEXTS[0], TEXTS[1]),)
    assert inputs.describe()["train"]["columns"] == ["본문", "한줄"]


def test_output_is_replaced_only_by_force(sparse: Path, settings: Settings, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(sparse, output)
    config = FinetuneConfig(**{**settings, "epochs": 1.0}, output=str(output))
    with pytest.raises(BuildError, match="give --force"):
        finetune(config)
    assert report_of(finetune(config, force=True))["pruning"] is None
    with pytest.raises(ConfigError, match="there is no run to resume"):
        finetune(config, resume=True, force=True)


def test_command_says_what_is_wrong(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--train", settings["train"], "--output", str(tmp_path / "out")]
    assert main([*arguments, "--epochs", "0"]) == 1
    assert "error: epochs must be a finite number above 0, got 0.0" in capsys.readouterr().err
    assert main([*arguments, "--prune", "magnitude=2"]) == 1
    assert "share from 0 to below 1" in capsys.readouterr().err
    assert main(["--checkpoint", settings["checkpoint"], *arguments]) == 1
    assert "ships no dev.jsonl: give pairs by --dev FILE" in capsys.readouterr().err
    long = ["--checkpoint", settings["checkpoint"], *arguments, "--dev", settings["dev"]]
    assert main([*long, "--max-source-length", "65"]) == 1
    assert "max_source_length must be 1..64" in capsys.readouterr().err
