"""Tokenizers of checkpoints: what is refused, and that the advice given for it works.

The advice is followed as a user would: its commands are run, and its flags are given.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from builders.build_all import main
from builders.checkpoint import Checkpoint, load_checkpoint
from builders.special_ids import IdOverrides
from kobart_runtime.errors import CheckpointError
from kobart_runtime.model_config import sha256_of
from tests.builders.conftest import VOCAB_SIZE
from tests.patience import PATIENCE_S

MakeCheckpoint = Callable[..., Path]
TEXT = "어제 회의에서 🤣 확정했습니다"


def load(folder: Path, tokenizer: str | None = None) -> Checkpoint:
    return load_checkpoint(str(folder), IdOverrides(), tokenizer=tokenizer)


def refusal(folder: Path, tokenizer: str | None = None) -> str:
    before = contents(folder)
    with pytest.raises(CheckpointError) as refused:
        load(folder, tokenizer)
    assert "\n" not in str(refused.value)
    assert contents(folder) == before  # nothing is ever written into a checkpoint
    return str(refused.value)


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(files)}


def advised_flag(message: str) -> str:
    found = re.search(r"--tokenizer (\S+)$", message)
    assert found, message
    return found[1]


def advised_command(message: str) -> str:
    found = re.search(r"`(.+)`", message)
    assert found, message
    return found[1]


def run(command: str, folder: Path) -> None:
    """Run what a message advises, in a folder of the user's."""
    python = Path(sys.executable).parent
    result = subprocess.run(
        ["bash", "-c", f'PATH="{python}:$PATH"; {command}'],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def split(tokenizer_json: str, vocab: Path, merges: Path) -> None:
    """The two files of older tokenizers."""
    model = json.loads(tokenizer_json)["model"]
    write(vocab, model["vocab"])
    lines = [" ".join(merge) for merge in model["merges"]]
    merges.write_text("\n".join(["#version: 0.2", *lines]) + "\n", encoding="utf-8")


def as_first_release(tokenizer_json: str, path: Path) -> None:
    """As KoBART's first releases wrote it: no unk_token, merges as lines."""
    definition = json.loads(tokenizer_json)
    definition["model"]["unk_token"] = None
    definition["model"]["merges"] = [" ".join(pair) for pair in definition["model"]["merges"]]
    write(path, definition)


@pytest.fixture
def bare(make_checkpoint: MakeCheckpoint) -> Path:
    """A checkpoint of weights alone."""
    folder = make_checkpoint()
    (folder / "tokenizer.json").unlink()
    return folder


@pytest.fixture
def elsewhere(tokenizer_json: str, tmp_path: Path) -> Path:
    """What `hf download ORIGIN tokenizer.json --local-dir tokenizer` makes."""
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    return tmp_path / "tokenizer"


def test_weights_alone(bare: Path, elsewhere: Path) -> None:
    message = refusal(bare)
    assert "`hf download gogamza/kobart-base-v2 tokenizer.json --local-dir tokenizer`" in message
    assert advised_flag(message) == elsewhere.name
    checkpoint = load(bare, str(elsewhere))
    assert checkpoint.tokenizer_path == elsewhere / "tokenizer.json"
    assert checkpoint.files["tokenizer.json"] == sha256_of(elsewhere / "tokenizer.json")


@pytest.mark.parametrize(
    ("origin", "named"),
    [
        ("digit82/kobart-summarization", "digit82/kobart-summarization"),
        ("/somebody/else/kobart", "gogamza/kobart-base-v2"),
        ("./kobart", "gogamza/kobart-base-v2"),
    ],
)
def test_weights_alone_that_name_their_origin(bare: Path, origin: str, named: str) -> None:
    write(bare / "config.json", {**read(bare / "config.json"), "_name_or_path": origin})
    assert f"`hf download {named} tokenizer.json" in refusal(bare)


def test_weights_alone_whose_origin_is_here(bare: Path, elsewhere: Path) -> None:
    write(bare / "config.json", {**read(bare / "config.json"), "_name_or_path": str(elsewhere)})
    flag = advised_flag(refusal(bare))
    assert flag == str(elsewhere)
    load(bare, flag)


def test_kobarts_older_folder(bare: Path, tokenizer_json: str, tmp_path: Path) -> None:
    """`emji_tokenizer/` has the old two files and a model.json, which has no unk_token."""
    old = bare / "emji_tokenizer"
    old.mkdir()
    split(tokenizer_json, old / "emji_tokenizer-vocab.json", old / "emji_tokenizer-merges.txt")
    as_first_release(tokenizer_json, old / "model.json")
    first = refusal(bare)
    assert f"has no tokenizer.json, but {old / 'model.json'} is one under another name" in first
    assert refusal(bare, str(old)) == first.replace(f"{bare} has", f"{old} has")
    second = refusal(bare, advised_flag(first))
    assert "unknown characters would vanish" in second
    run(advised_command(second), tmp_path)
    checkpoint = load(bare, str(tmp_path / advised_flag(second)))
    ours = Tokenizer.from_file(str(checkpoint.tokenizer_path))
    assert ours.encode(TEXT).ids == Tokenizer.from_str(tokenizer_json).encode(TEXT).ids


def test_kobarts_older_folder_without_its_model_json(
    bare: Path, tokenizer_json: str, elsewhere: Path
) -> None:
    old = bare / "emji_tokenizer"
    old.mkdir()
    split(tokenizer_json, old / "emji_tokenizer-vocab.json", old / "emji_tokenizer-merges.txt")
    message = refusal(bare)
    assert "its vocabulary and merges do not tell how text is split" in message
    assert advised_flag(message) == elsewhere.name
    load(bare, str(elsewhere))


def test_vocabulary_and_merges(bare: Path, tokenizer_json: str, elsewhere: Path) -> None:
    split(tokenizer_json, bare / "vocab.json", bare / "merges.txt")
    message = refusal(bare)
    assert "its vocabulary and merges do not tell how text is split" in message
    assert advised_flag(message) == elsewhere.name
    load(bare, str(elsewhere))
    vocab = read(bare / "vocab.json")
    write(bare / "vocab.json", {**vocab, "회의": VOCAB_SIZE - 1, "없는말": 3})
    assert f"lacks '회의' with id {VOCAB_SIZE - 1}, '없는말' with id 3, which " in refusal(
        bare, str(elsewhere)
    )


@pytest.mark.parametrize("indent", [None, 2])
def test_a_tokenizer_without_unk_token(
    make_checkpoint: MakeCheckpoint, tokenizer_json: str, tmp_path: Path, indent: int | None
) -> None:
    folder = make_checkpoint()
    as_first_release(tokenizer_json, folder / "tokenizer.json")
    definition = read(folder / "tokenizer.json")
    (folder / "tokenizer.json").write_text(json.dumps(definition, indent=indent), encoding="utf-8")
    message = refusal(folder)
    run(advised_command(message), tmp_path)
    checkpoint = load(folder, str(tmp_path / advised_flag(message)))
    assert Tokenizer.from_file(str(checkpoint.tokenizer_path)).model.unk_token == "<unk>"


@pytest.mark.parametrize(
    ("name", "as_content"),
    [
        ("added_tokens.json", lambda ids: ids),
        (
            "tokenizer_config.json",
            lambda ids: {
                "added_tokens_decoder": {
                    str(id_): {"content": token, "special": True} for token, id_ in ids.items()
                }
            },
        ),
        ("tokenizer_config.json", lambda ids: {"additional_special_tokens": list(ids)}),
    ],
    ids=["added_tokens.json", "added_tokens_decoder", "additional_special_tokens"],
)
def test_tokens_that_the_tokenizer_lacks_are_named(
    make_checkpoint: MakeCheckpoint,
    tokenizer_json: str,
    tmp_path: Path,
    name: str,
    as_content: Callable[[dict[str, int]], object],
) -> None:
    folder = make_checkpoint()
    size = Tokenizer.from_str(tokenizer_json).get_vocab_size()
    ids = {"#Person1#": size, "#Person2#": size + 1}
    write(folder / name, as_content(ids))
    message = refusal(folder)
    assert all(token in message for token in ids)
    assert f"which {folder / name} names: they would be read as letters" in message
    run(advised_command(message), tmp_path)
    checkpoint = load(folder, str(tmp_path / advised_flag(message)))
    complete = Tokenizer.from_file(str(checkpoint.tokenizer_path))
    assert set(ids.values()) <= set(complete.encode("#Person1# #Person2#").ids)


def test_a_token_with_another_id_is_named_and_no_command_is_advised(
    make_checkpoint: MakeCheckpoint,
) -> None:
    folder = make_checkpoint()
    write(folder / "added_tokens.json", {"<usr>": 77})
    message = refusal(folder)
    assert "lacks '<usr>' with id 77" in message
    assert message.endswith("give --tokenizer the tokenizer that this checkpoint was trained with")


def test_files_that_name_what_the_tokenizer_has_are_no_reason_to_refuse(
    make_checkpoint: MakeCheckpoint,
) -> None:
    folder = make_checkpoint()
    write(folder / "added_tokens.json", {"<usr>": 2})
    write(
        folder / "tokenizer_config.json",
        {"added_tokens_decoder": {"2": {"content": "<usr>"}}, "extra_special_tokens": {}},
    )
    assert load(folder).tokenizer_path == folder / "tokenizer.json"


def test_kobarts_own_files_agree(make_checkpoint: MakeCheckpoint, kobart_tokenizer: Path) -> None:
    folder = make_checkpoint({"vocab_size": 30000})
    for path in kobart_tokenizer.glob("*token*.json"):
        shutil.copy(path, folder)
    load(folder)


@pytest.mark.parametrize("content", ["[]", "{", "{}", '{"added_tokens_decoder": {"x": 1}}'])
def test_what_is_no_tokenizer(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, content: str
) -> None:
    (tmp_path / "given.json").write_text(content, encoding="utf-8")
    assert "given.json" in refusal(make_checkpoint(), str(tmp_path / "given.json"))
    assert "does not exist: give a tokenizer.json" in refusal(make_checkpoint(), "/no/such")
    folder = make_checkpoint()
    (folder / "tokenizer_config.json").write_text('{"added_tokens_decoder": {"x": 1}}')
    assert "tokenizer_config.json names its tokens in no known way" in refusal(folder)


def test_a_build_has_the_tokenizer_that_was_given_and_documents_of_the_checkpoint(
    bare: Path, elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = [{"dialogue": "어제 회의에서 확정했습니다", "summary": "확정했습니다"}]
    write(bare / "dev.jsonl", documents[0])
    command = ["--checkpoint", str(bare), "--tokenizer", str(elsewhere), "--precision", "fp16"]
    command += ["--runtime", "onnxruntime", "--output", str(tmp_path / "build"), "--force"]
    assert main(command) == 0, capsys.readouterr().err
    manifest = read(tmp_path / "build" / "manifest.json")
    assert manifest["checkpoint"]["tokenizer"] == str(elsewhere)
    built = tmp_path / "build" / "kobart" / "1" / "tokenizer.json"
    assert sha256_of(built) == sha256_of(elsewhere / "tokenizer.json")
    assert manifest["checkpoint"]["files"]["tokenizer.json"] == sha256_of(built)
