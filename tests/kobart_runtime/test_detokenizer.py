"""Joined pieces equal the unary answer, and no piece ends inside what a reader sees as one."""

import itertools
import random
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import regex  # type: ignore[import-untyped]  # transformers needs it
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from kobart_runtime.detokenizer import StreamingDetokenizer, _is_joined
from kobart_runtime.model_config import TokenIds, TokenizerConfig
from kobart_runtime.tokenizer import Tokenizer
from tests.conftest import KOBART_KINDS, tokenizer_folder

NAMED = ["<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>"]
# What clusters are made of, so that random ids hit every rule.
PARTS = [
    *"ᄀ카ᅲᆨᆫ가각ㅋ ae다.\n\u0301\u0300क्षिกำ",
    *"👨👩👧\u200d🏽👍❤\ufe0f1\u20e3🇰🇷\ufffd\u200c",
    "안녕", "하세요", "▁", "▁이", "▁가", "각\u0301", "🇰🇷🇰", "👨\u200d", ":)",
]  # fmt: skip


def load(path: Path, kind: type[Tokenizer] = Tokenizer) -> Tokenizer:
    ids = TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2)
    return kind(path, TokenizerConfig(), ids, max_source_length=100_000, vocab_size=40_000)


def write(path: Path, tokens: Sequence[str], decoder: Any, **options: Any) -> Path:
    """A tokenizer.json of whole tokens without merges."""
    vocab = {token: id_ for id_, token in enumerate(dict.fromkeys([*NAMED, *tokens]))}
    backend = Backend(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", **options))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoder
    backend.save(str(path / "tokenizer.json"))
    return path / "tokenizer.json"


def write_kind(kind: str, path: Path) -> Path:
    byte_names = [f"<0x{byte:02X}>" for byte in range(256)]
    if kind == "clusters":
        return write(path, PARTS, decoders.Metaspace())
    if kind == "byte_fallback":
        decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
        return write(path, [*byte_names, *PARTS], decoder, byte_fallback=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return write(path, [*alphabet, "the", "Ġof", "ê°", "Ģê"], decoders.ByteLevel())


@pytest.fixture(scope="module", params=[*KOBART_KINDS, "kobart-mini"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(tokenizer_folder(request.param, tmp_path_factory) / "tokenizer.json")


@pytest.fixture(scope="module", params=["clusters", "byte_fallback"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(write_kind(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(write_kind("byte_level", tmp_path_factory.mktemp("byte_level")))


@pytest.fixture(scope="module")
def byte_fallback(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(write_kind("byte_fallback", tmp_path_factory.mktemp("bytes")))


def all_ids(tokenizer: Tokenizer) -> list[int]:
    """Every id, control tokens and two ids without a token included."""
    return [*range(tokenizer._backend.get_vocab_size()), 39_998, 39_999]


def ids_of(tokenizer: Tokenizer, tokens: Sequence[str]) -> list[int]:
    vocab = tokenizer._backend.get_vocab()
    return [vocab[token] for token in tokens]


def stream(tokenizer: Tokenizer, chunks: Sequence[Sequence[int]]) -> list[str]:
    """Pieces of each push, and of finish as the last."""
    detokenizer = StreamingDetokenizer(tokenizer)
    return [*[detokenizer.push(chunk) for chunk in chunks], detokenizer.finish()]


def one_by_one(ids: Sequence[int]) -> list[list[int]]:
    return [[id_] for id_ in ids]


def check_joined(tokenizer: Tokenizer, chunks: Sequence[Sequence[int]]) -> None:
    whole = tokenizer.decode(list(itertools.chain.from_iterable(chunks)))
    assert "".join(stream(tokenizer, chunks)) == whole


def check_borders(tokenizer: Tokenizer, chunks: Sequence[Sequence[int]]) -> None:
    """Every piece ends between two grapheme clusters of the whole text."""
    whole = tokenizer.decode(list(itertools.chain.from_iterable(chunks)))
    borders = {match.start() for match in regex.finditer(r"\X", whole)} | {0, len(whole)}
    assert set(itertools.accumulate(map(len, stream(tokenizer, chunks)))) <= borders


def check_pieces(tokenizer: Tokenizer, chunks: Sequence[Sequence[int]]) -> None:
    check_joined(tokenizer, chunks)
    check_borders(tokenizer, chunks)


# --- joined pieces equal the whole -------------------------------------------------------------


def test_random_ids_of_the_whole_vocabulary(trained: Tokenizer) -> None:
    rng = random.Random(0)
    for _ in range(300):
        check_pieces(trained, one_by_one(rng.choices(all_ids(trained), k=24)))


def test_random_ids_of_made_vocabularies(made: Tokenizer) -> None:
    rng = random.Random(1)
    for _ in range(1500):
        check_pieces(made, one_by_one(rng.choices(all_ids(made), k=rng.randint(1, 20))))


def test_every_split_in_two(trained: Tokenizer) -> None:
    rng = random.Random(2)
    for _ in range(40):
        ids = rng.choices(all_ids(trained), k=20)
        for split in range(len(ids) + 1):
            check_pieces(trained, [ids[:split], ids[split:]])


def test_every_split_in_two_of_bytes(byte_fallback: Tokenizer) -> None:
    ids = byte_fallback.encode("▁뷁 안녕 뷁꿿 é 👩‍🚀 다").input_ids.tolist()
    assert len(ids) > len(byte_fallback.decode(ids))
    for split in range(len(ids) + 1):
        check_pieces(byte_fallback, [ids[:split], ids[split:]])
        check_pieces(byte_fallback, one_by_one(ids[split:]))


def test_a_line_end_of_two_characters_is_not_split(byte_fallback: Tokenizer) -> None:
    check_pieces(byte_fallback, one_by_one(ids_of(byte_fallback, ["<0x0D>", "<0x0A>", "<0x41>"])))
    assert stream(byte_fallback, [ids_of(byte_fallback, ["<0x41>", "<0x0D>"])])[0] == ""


def test_random_ids_of_parts_of_characters(byte_level: Tokenizer) -> None:
    rng = random.Random(3)
    for _ in range(1500):
        check_joined(byte_level, one_by_one(rng.choices(all_ids(byte_level), k=rng.randint(1, 20))))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_chunks_of_any_ids(data: st.DataObject, made: Tokenizer) -> None:
    ids = st.sampled_from(all_ids(made))
    check_pieces(made, data.draw(st.lists(st.lists(ids, max_size=4), max_size=12)))


def test_sentences(trained: Tokenizer, sentences: list[str]) -> None:
    for text in sentences[:500]:
        ids = trained.encode(text).input_ids.tolist()
        assert "".join(stream(trained, one_by_one(ids))) == trained.decode(ids)


def test_a_reader_waits_for_one_character_at_most(trained: Tokenizer) -> None:
    ids = trained.encode("오늘은 날씨가 맑고 바람이 분다.\n내일은 비가 온다 :)").input_ids.tolist()
    detokenizer, shown = StreamingDetokenizer(trained), ""
    for count, id_ in enumerate(ids, start=1):
        shown += detokenizer.push([id_])
        assert len(trained.decode(ids[:count])) - len(shown) <= 1 + (id_ == ids[-1])


# --- nothing shown is ever changed -------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "\u1112\u1161\u11ab", "가\u11a8", "ᄏᄏᄏ", "각\u0301", "e\u0301\u0300", "กำ", "क्षि",
        "❤\ufe0f", "👨\u200d👩\u200d👧", "👍🏽", "1\ufe0f\u20e3", "🇰🇷", "👩\u200c",
    ],
)  # fmt: skip
def test_one_visible_character_comes_in_one_piece(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tokenizer = load(write(tmp_path_factory.mktemp("one"), ["b", *text], decoders.Metaspace()))
    ids = ids_of(tokenizer, ["b", *text, "b"])
    pieces = stream(tokenizer, one_by_one(ids))
    assert [piece for piece in pieces if piece] == ["b", text, "b"]


def test_flags_are_paired_from_the_left(tmp_path: Path) -> None:
    tokenizer = load(write(tmp_path, ["a", "🇰", "🇷"], decoders.Metaspace()))
    k, r = ids_of(tokenizer, "🇰🇷")
    assert stream(tokenizer, one_by_one([k, r, k, r])) == ["", "", "🇰🇷", "", "🇰🇷"]
    assert stream(tokenizer, [[k, r, k], [r], [k]]) == ["🇰🇷", "", "🇰🇷", "🇰"]


def test_bytes_come_as_whole_characters(byte_fallback: Tokenizer) -> None:
    ids = ids_of(byte_fallback, [f"<0x{byte:02X}>" for byte in "뷁".encode()])
    [end] = ids_of(byte_fallback, "다")
    assert stream(byte_fallback, one_by_one([*ids, end])) == ["", "", "", "뷁", "다"]
    assert stream(byte_fallback, one_by_one(ids[:2])) == ["", "", "��"]


def test_a_genuine_replacement_character_is_kept(tmp_path: Path) -> None:
    tokenizer = load(write(tmp_path, ["a", "�"], decoders.Metaspace()))
    a, mark = ids_of(tokenizer, "a�")
    assert stream(tokenizer, one_by_one([mark, mark, a])) == ["", "", "��", "a"]


def test_control_tokens_add_nothing(trained: Tokenizer) -> None:
    ids = trained.encode("안녕 세상").input_ids.tolist()
    spaced = [x for id_ in ids for x in (2, id_, 5)]
    assert "".join(stream(trained, one_by_one([2, *spaced, 1]))) == "안녕 세상"
    assert stream(trained, [[2], [], [1]]) == ["", "", "", ""]


def test_clusters_are_never_finer_than_unicode_says() -> None:
    """Each assigned mark, and each Hangul or emoji pair, against the rules of `regex`."""
    planes = [range(0x20, 0x3100), range(0xA000, 0xAC10), range(0xD7A0, 0xD800)]
    planes += [range(0xFB00, 0x10000), range(0x1F1E0, 0x1F200), range(0x1F3F0, 0x1F400)]
    for code in itertools.chain(*planes):
        char = chr(code)
        if unicodedata.category(char) != "Cn" and regex.fullmatch(r"\X", "a" + char):
            assert _is_joined("a" + char, 1), hex(code)
    kinds = "ᄀꥠᅡ\ud7b0ᆨ\ud7cb가각a\u200d👨🏽\ufe0f🇰क\u0301"
    for text in [*map("".join, itertools.product(kinds, repeat=3)), "क्ष", "क्\u200dष"]:
        borders = {match.start() for match in regex.finditer(r"\X", text)}
        ours = {index for index in range(1, len(text)) if not _is_joined(text, index)}
        assert ours <= borders, ascii(text)


# --- cost --------------------------------------------------------------------------------------


class CountingTokenizer(Tokenizer):
    """Counts the ids it is asked to decode."""

    num_decoded = 0

    def decode(self, ids: Sequence[int]) -> str:
        self.num_decoded += len(ids)
        return super().decode(ids)

    def decode_behind(self, ids: Sequence[int]) -> str:
        self.num_decoded += len(ids)
        return super().decode_behind(ids)


@pytest.mark.parametrize("kind", ["clusters", "byte_fallback"])
def test_each_id_is_decoded_once(kind: str, tmp_path: Path) -> None:
    tokenizer = load(write_kind(kind, tmp_path), CountingTokenizer)
    assert isinstance(tokenizer, CountingTokenizer)
    [replacement] = ids_of(tokenizer, "�")
    ids = [id_ for id_ in all_ids(tokenizer) if id_ != replacement] * 10
    stream(tokenizer, one_by_one(ids))
    assert tokenizer.num_decoded == len(tokenizer.text_ids(ids))


def test_a_late_push_costs_what_an_early_one_does(trained: Tokenizer) -> None:
    detokenizer = StreamingDetokenizer(trained)
    ids = trained.encode("오늘은 날씨가 맑고 바람이 분다. ").input_ids.tolist()

    def seconds_of_pushes() -> float:
        start = time.thread_time()  # of the CPU, not of the clock
        for id_ in ids * 20:
            detokenizer.push([id_])
        return time.thread_time() - start

    rounds = [seconds_of_pushes() for _ in range(100)]
    assert min(rounds[-20:]) < 3 * min(rounds[:20])
