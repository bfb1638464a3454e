from itertools import islice
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from builders.paths import DEFAULT_CHECKPOINT_FOLDER
from training.corpus.dialogue import CorpusConfig, generate
from training.tokenizer import EMOJI, SPEAKERS, VOCAB_SIZE, alphabet, build_tokenizer

CONTROL_IDS = {
    "<s>": 0,
    "</s>": 1,
    "<usr>": 2,
    "<pad>": 3,
    "<sys>": 4,
    "<unk>": 5,
    "<mask>": 6,
    "<unused0>": 7,
    "<unused99>": 106,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DEFAULT_CHECKPOINT_FOLDER / "tokenizer.json"))


def test_special_tokens_have_kobart_ids(tokenizer: Tokenizer) -> None:
    assert {token: tokenizer.token_to_id(token) for token in CONTROL_IDS} == CONTROL_IDS
    for token in (*EMOJI, *SPEAKERS):
        assert tokenizer.encode(token).tokens[-1] == token
    assert tokenizer.get_vocab_size() == VOCAB_SIZE


def test_nothing_is_added_to_the_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.post_processor is None
    assert tokenizer.encode("").ids == []
    assert tokenizer.encode("만나기로 했다.").tokens[-1] not in CONTROL_IDS


def test_auto_tokenizer_gives_the_same_ids(tokenizer: Tokenizer) -> None:
    auto = AutoTokenizer.from_pretrained(DEFAULT_CHECKPOINT_FOLDER)
    text = next(generate(CorpusConfig(split="dev"))).dialogue + "\nＡＢＣ ㅋㅋㅋ 뷁 🤣 hello"
    encoded = auto(text)
    assert auto.is_fast
    assert set(encoded) == {"input_ids", "attention_mask"}
    assert encoded["input_ids"] == tokenizer.encode(text).ids
    assert (auto.pad_token_id, auto.eos_token_id, auto.unk_token_id) == (3, 1, 5)


def test_ordinary_korean_outside_the_corpus_is_not_unknown(tokenizer: Tokenizer) -> None:
    text = "국회는 어제 본회의를 열어 예산안을 처리했다. (약 12.5% 증가)\nHello, world!"
    assert "<unk>" not in tokenizer.encode(text).tokens
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert sum(0xAC00 <= ord(char) <= 0xD7A3 for char in alphabet()) == 2350
    assert tokenizer.encode("뷁").tokens == ["▁", "<unk>"]


def test_values_keep_their_ids_in_front_of_particles(tokenizer: Tokenizer) -> None:
    for name in ("민수", "김민수", "태빈"):
        ids = tokenizer.encode(name).ids
        for sentence in (f"{name}는 갔다.", f"{name} 씨, 안녕하세요.", f"{name}의 집"):
            assert tokenizer.encode(sentence).ids[: len(ids)] == ids


def test_dialogue_lengths(tokenizer: Tokenizer) -> None:
    dialogues = [e.dialogue for e in islice(generate(CorpusConfig()), 2000)]
    lengths = sorted(len(encoding.ids) for encoding in tokenizer.encode_batch(dialogues))
    assert lengths[0] >= 30
    assert lengths[-1] <= 700
    assert 140 <= lengths[1000] <= 180
    assert 280 <= lengths[1800] <= 360


def test_committed_tokenizer_is_the_trained_one(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    build_tokenizer().save(str(path))
    assert path.read_bytes() == (DEFAULT_CHECKPOINT_FOLDER / "tokenizer.json").read_bytes()
