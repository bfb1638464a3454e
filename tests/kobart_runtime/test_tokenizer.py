"""Equality with transformers on ordinary text, and control tokens out of the user's reach."""

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, processors
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from kobart_runtime.errors import BuildError, CheckpointError, InvalidArgumentError
from kobart_runtime.model_config import TokenIds, TokenizerConfig
from kobart_runtime.tokenizer import Tokenizer
from tests.conftest import KOBART_KINDS, MINI_CHECKPOINT, tokenizer_folder

IDS = TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2, forced_eos=2)
UNK = 5
NAMED = ["<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>"]
CONTROL = [*NAMED, *(f"<unused{n}>" for n in range(100))]
FULL_WIDTH = {ord(char): ord(char) + 0xFEE0 for char in "</>abcdefghijklmnopqrstuvwxyz0123456789"}

ORDINARY = [
    "안녕하세요. 한국어 BART 입니다.🤣:)l^o",
    "😀😇🙂 웃음:-) :( ^^ BI ㅠㅠ ㅜㅜ ㅡㅡ O | : = `'",
    "👨‍👩‍👧 🇰🇷 👍🏽 ❤️ 1️⃣",
    "ㅋㅋㅋ ㅎㅎ ㄱㄴㄷ ㅏㅑㅓ",
    "한글 각",
    "ＡＢＣ１２３㈜½㎏ ﾊﾝｶｸ ①②③ Ⅳ ﷺ",
    "첫 줄이다.\n둘째 줄이다.\r\n\n\t끝",
    "#Person1#: 안녕? #Person2#: 응. #PhoneNumber#",
    "뷁쀏 꿿 쀍",
    "漢字 かな カナ Ελληνικά русский عربى ไทย हिन्दी 𠅨",
    "a < b > c </ s> <S> <unused> <unused1x> < s > <usr",
    "가" * 5000,
    ":-" * 5000,
    "\x00\x01\x1b\x7f\x85\u200b\u2028\ufeff\ufffd\ufdd0\U0010ffff 글",
    "▁▁밑줄▁",
    "  앞뒤 공백  ",
]


def load(path: Path, **changes: Any) -> Tokenizer:
    arguments: dict[str, Any] = {
        "config": TokenizerConfig(),
        "ids": IDS,
        "max_source_length": 1_000_000,
        "vocab_size": 40_000,
        **changes,
    }
    return Tokenizer(path / "tokenizer.json", **arguments)


@pytest.fixture(scope="module", params=[*KOBART_KINDS, "kobart-mini"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Tokenizer:
    return load(checkpoint)


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Any:
    return AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture
def change(tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Writes kobart-mini's tokenizer with a change; returns the folder."""

    def write(edit: Callable[[dict[str, Any]], object]) -> Path:
        source = MINI_CHECKPOINT / "tokenizer.json"
        definition = json.loads(source.read_text(encoding="utf-8"))
        edit(definition)
        (tmp_path / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer as fine-tunes have it: more added tokens, control ones among them."""
    path = tmp_path_factory.mktemp("fine_tuned")
    backend = Backend.from_file(str(MINI_CHECKPOINT / "tokenizer.json"))
    backend.add_special_tokens(["<unused100>", "#Speaker1#", "[EOS]", "#CarNumber#"])
    backend.add_tokens([AddedToken("<sep>", normalized=True), AddedToken("<unused101>")])
    backend.enable_truncation(4)
    backend.enable_padding(length=16)
    backend.save(str(path / "tokenizer.json"))
    return path


def id_of(path: Path, token: str) -> int:
    return int(Backend.from_file(str(path / "tokenizer.json")).get_vocab()[token])


def as_lf(text: str) -> str:
    """The text whose ids transformers must give: CRLF and CR are LF before anything else."""
    return re.sub(r"\r\n?", "\n", text)


def without_control(reference: Any, ids: list[int]) -> str:
    control_ids = set(reference.convert_tokens_to_ids(CONTROL))
    return str(reference.decode([id_ for id_ in ids if id_ not in control_ids]))


# --- ordinary text: identical to transformers ------------------------------------------------


@pytest.mark.parametrize("text", ORDINARY)
def test_ids_and_text_equal_transformers(text: str, tokenizer: Tokenizer, reference: Any) -> None:
    ids = reference(as_lf(text))["input_ids"]
    source = tokenizer.encode(text)
    assert source.input_ids.dtype == np.int32
    assert source.input_ids.tolist() == ids
    assert not source.truncated
    assert tokenizer.decode(ids) == without_control(reference, ids)


def test_every_sentence_equals_transformers(
    tokenizer: Tokenizer, reference: Any, sentences: list[str]
) -> None:
    expected = reference(sentences)["input_ids"]
    assert [tokenizer.encode(text).input_ids.tolist() for text in sentences] == expected
    assert [tokenizer.decode(ids) for ids in expected] == [
        without_control(reference, ids) for ids in expected
    ]


def test_a_document_of_100k_characters_equals_transformers(
    tokenizer: Tokenizer, reference: Any, sentences: list[str]
) -> None:
    text = ("\n".join(sentences) * 20)[:100_000]
    assert len(text) == 100_000
    assert tokenizer.encode(text).input_ids.tolist() == reference(text)["input_ids"]


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_equals_transformers(text: str, tokenizer: Tokenizer, reference: Any) -> None:
    if text.strip():
        assert tokenizer.encode(text).input_ids.tolist() == reference(as_lf(text))["input_ids"]


def test_added_tokens_of_a_fine_tune_keep_their_ids(fine_tuned: Path) -> None:
    reference = Backend.from_file(str(fine_tuned / "tokenizer.json"))
    reference.no_truncation()
    reference.no_padding()
    tokenizer, text = load(fine_tuned), "#Speaker1#: 안녕 <sep> 응😀 ＜ｓｅｐ＞ #CarNumber#"
    ids = tokenizer.encode(text).input_ids.tolist()
    assert {id_of(fine_tuned, name) for name in ("#Speaker1#", "<sep>", "#CarNumber#")} < set(ids)
    assert ids == reference.encode(text).ids
    assert tokenizer.decode(ids) == reference.decode(ids, skip_special_tokens=False)


def test_every_other_added_token_is_parsed(checkpoint: Path, tokenizer: Tokenizer) -> None:
    definition = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["content"]: token["id"] for token in definition["added_tokens"]}
    others = {name: id_ for name, id_ in added.items() if name not in CONTROL}
    assert others
    for name, id_ in others.items():
        assert id_ in tokenizer.encode(name).input_ids, name
        assert tokenizer.decode([id_]) == name


# --- control tokens ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "context",
    ["{}", "가{}나", "a{}b", " {} ", "\n{}\n", "▁{}", "<{}>", "{}:)", "😀{}", "\u200b{}", "<<s>{}"],
)
@pytest.mark.parametrize("width", ["ascii", "full"])
def test_typed_control_tokens_are_plain_text(
    context: str, width: str, tokenizer: Tokenizer
) -> None:
    names = CONTROL if width == "ascii" else [name.translate(FULL_WIDTH) for name in CONTROL]
    for text in [*(context.format(name) for name in names), context.format("".join(names))]:
        ids = set(tokenizer.encode(text).input_ids.tolist())
        assert not ids & (set(range(107)) - {UNK}), text


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(
        st.one_of(
            st.sampled_from([*NAMED, "<unused0>", "<unused99>"]),
            st.sampled_from([name.translate(FULL_WIDTH) for name in NAMED]),
            st.sampled_from(["<", ">", "/", "s", "한", " ", "\n", ":)", "😀", "\u0301", "\0"]),
            st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
        ),
        min_size=1,
    )
)
def test_no_mixture_spells_a_control_token(pieces: list[str], tokenizer: Tokenizer) -> None:
    text = "".join(pieces)
    if text.strip():
        ids = set(tokenizer.encode(text).input_ids.tolist())
        assert not ids & (set(range(107)) - {UNK})


def test_a_typed_control_token_keeps_its_letters(tokenizer: Tokenizer) -> None:
    text = "가</s>나 <usr> <unused3>"
    assert tokenizer.decode(tokenizer.encode(text).input_ids.tolist()) == text


def test_unknown_characters_still_become_unk(tokenizer: Tokenizer) -> None:
    assert UNK in tokenizer.encode("글 \U0010ffff 글").input_ids


def test_control_tokens_beyond_the_usual_ids(fine_tuned: Path) -> None:
    names = ["<unused100>", "[EOS]", "<unused101>"]
    control_ids = [id_of(fine_tuned, name) for name in names]
    stop = TokenIds(bos=0, eos=(1, control_ids[1]), pad=3, decoder_start=2)
    tokenizer = load(fine_tuned, ids=stop)
    text = "가" + "나".join(names) + "＜ｕｎｕｓｅｄ１０１＞"
    assert not set(control_ids) & set(tokenizer.encode(text).input_ids.tolist())
    assert tokenizer.decode([*control_ids, id_of(fine_tuned, "#CarNumber#")]) == "#CarNumber#"


def test_a_stop_token_that_is_a_word_stays_text(tokenizer: Tokenizer, checkpoint: Path) -> None:
    full_stop = int(tokenizer.encode("다.").input_ids[-1])
    stopping = load(checkpoint, ids=TokenIds(bos=0, eos=(1, full_stop), pad=3, decoder_start=2))
    assert stopping.decode([full_stop]) == tokenizer.decode([full_stop]) != ""


def test_merges_cannot_spell_a_control_token(change: Callable[..., Path]) -> None:
    def add_merges(definition: dict[str, Any]) -> None:
        definition["model"]["merges"] += [["<", "s"], ["<s", ">"]]
        definition["model"]["vocab"]["<s"] = len(definition["model"]["vocab"])

    path = change(add_merges)
    assert Backend.from_file(str(path / "tokenizer.json")).encode("가＜ｓ＞").ids[-1] == 0
    assert 0 not in load(path).encode("가＜ｓ＞ <s>").input_ids


def test_output_drops_control_and_unknown_ids_and_keeps_emoji(tokenizer: Tokenizer) -> None:
    text = "안녕하세요 :) #Person1#"
    ids = tokenizer.encode(text).input_ids.tolist()
    noisy = [2, 39_999, *ids, UNK, 6, 50, 3, 1]
    assert tokenizer.decode(noisy) == tokenizer.decode(list(np.array(noisy))) == text
    assert tokenizer.decode([]) == tokenizer.decode([0, 1]) == ""


# --- settings, limits, refusals ---------------------------------------------------------------


@pytest.mark.parametrize(("add_bos", "add_eos"), [(False, False), (True, False), (True, True)])
def test_truncation_equals_transformers_with_a_template(add_bos: bool, add_eos: bool) -> None:
    checkpoint = MINI_CHECKPOINT
    reference = AutoTokenizer.from_pretrained(checkpoint)
    template = ("<s> " if add_bos else "") + "$A" + (" </s>" if add_eos else "")
    reference.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    config = TokenizerConfig(add_bos=add_bos, add_eos=add_eos)
    text = "오늘은 날씨가 맑고 바람이 분다. " * 20
    num_ids = len(reference(text)["input_ids"])
    for limit in (num_ids - 1, num_ids, num_ids + 1):
        source = load(checkpoint, config=config, max_source_length=limit).encode(text)
        expected = reference(text, truncation=True, max_length=limit)["input_ids"]
        assert source.input_ids.tolist() == expected
        assert source.truncated == (limit < num_ids)


def test_a_template_of_the_file_is_followed_and_not_doubled(change: Callable[..., Path]) -> None:
    template = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )

    def add_template(definition: dict[str, Any]) -> None:
        definition["post_processor"] = json.loads(template.__getstate__())

    path = change(add_template)
    plain = load(path, max_source_length=4)
    both = load(path, max_source_length=4, config=TokenizerConfig(add_bos=True, add_eos=True))
    ids = plain.encode("안녕하세요 여러분 반갑습니다").input_ids.tolist()
    assert len(ids) == 4
    assert (ids[0], ids[-1]) == (0, 1)
    assert both.encode("안녕하세요 여러분 반갑습니다").input_ids.tolist() == ids


def test_saved_truncation_and_padding_are_ignored(fine_tuned: Path) -> None:
    tokenizer = load(fine_tuned)
    assert len(tokenizer.encode("안녕").input_ids) < 4
    assert len(tokenizer.encode("안녕 " * 20).input_ids) > 16


def test_newline_as_space(checkpoint: Path, tokenizer: Tokenizer) -> None:
    spaced = load(checkpoint, config=TokenizerConfig(newline="space"))
    text = "첫 줄이다.\n둘째 줄이다.\n\n끝"
    expected = tokenizer.encode(text.replace("\n", " ")).input_ids.tolist()
    assert spaced.encode(text).input_ids.tolist() == expected
    assert tokenizer.encode(text).input_ids.tolist() != expected


@pytest.mark.parametrize("newline", ["keep", "space"])
def test_line_ends_of_windows_and_old_macs_are_line_feeds(newline: str, checkpoint: Path) -> None:
    tokenizer = load(checkpoint, config=TokenizerConfig(newline=newline))
    text = "가: 안녕?\n\n나: 응, 이다.\n끝\n"
    expected = tokenizer.encode(text).input_ids.tolist()
    assert UNK not in expected
    for line_end in ("\r\n", "\r"):
        assert tokenizer.encode(text.replace("\n", line_end)).input_ids.tolist() == expected
    mixed = "가: 안녕?\r\n\r나: 응, 이다.\n끝\r"
    assert tokenizer.encode(mixed).input_ids.tolist() == expected


def test_line_ends_do_not_count_as_tokens_twice(checkpoint: Path) -> None:
    text = "첫 줄이다.\n둘째 줄이다.\n끝"
    length = len(load(checkpoint).encode(text).input_ids)
    source = load(checkpoint, max_source_length=length).encode(text.replace("\n", "\r\n"))
    assert len(source.input_ids) == length
    assert not source.truncated


@pytest.mark.parametrize("text", ["", " ", "\n\t\r\n", "\u3000\xa0\u2003"])
def test_blank_text_is_refused(text: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidArgumentError, match="empty or blank"):
        tokenizer.encode(text)


@pytest.mark.parametrize("text", ["\ud800", "가나\udfff다"])
def test_lone_surrogates_are_refused(text: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidArgumentError, match=r"lone surrogate U\+D[8F][0F][0F] at character"):
        tokenizer.encode(text)


def test_text_that_normalises_to_nothing_is_refused(change: Callable[..., Path]) -> None:
    def clean_text(definition: dict[str, Any]) -> None:
        definition["normalizer"]["normalizers"][1]["clean_text"] = True

    with pytest.raises(InvalidArgumentError, match="no tokens left"):
        load(change(clean_text)).encode("\x00\x01")


@pytest.mark.parametrize("content", [None, "", "{}", "no json", '{"model": 3}', "\udcff"])
def test_an_unreadable_file_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(BuildError, match=r"tokenizer\.json cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize("unk_token", [None, "[UNK]"])
def test_a_tokenizer_that_drops_unknown_characters_is_refused(
    unk_token: str | None, change: Callable[..., Path]
) -> None:
    with pytest.raises(CheckpointError, match="would vanish"):
        load(change(lambda definition: definition["model"].update(unk_token=unk_token)))


def test_another_kind_of_tokenizer_is_refused(change: Callable[..., Path]) -> None:
    model = {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}
    with pytest.raises(CheckpointError, match="only BPE"):
        load(change(lambda definition: definition.update(model=model, added_tokens=[])))


def test_whole_words_that_are_control_tokens_are_refused(change: Callable[..., Path]) -> None:
    def match_whole_words(definition: dict[str, Any]) -> None:
        definition["model"]["ignore_merges"] = True
        definition["pre_tokenizer"] = None

    with pytest.raises(CheckpointError, match="into control token"):
        load(change(match_whole_words))


def test_ids_beyond_the_model_are_refused(fine_tuned: Path) -> None:
    last = id_of(fine_tuned, "<unused101>")
    load(fine_tuned, vocab_size=last + 1)
    with pytest.raises(CheckpointError, match=rf"with id {last}, .* vocabulary has {last} entries"):
        load(fine_tuned, vocab_size=last)


def test_a_limit_without_room_for_text_is_refused(fine_tuned: Path) -> None:
    config = TokenizerConfig(add_bos=True, add_eos=True)
    with pytest.raises(CheckpointError, match="max_source_length 2 leaves no room"):
        load(fine_tuned, config=config, max_source_length=2)


def test_bos_and_eos_that_the_checkpoint_lacks_are_refused(fine_tuned: Path) -> None:
    ids = TokenIds(bos=None, eos=(), pad=3, decoder_start=2)
    with pytest.raises(CheckpointError, match="add_bos needs a bos id"):
        load(fine_tuned, config=TokenizerConfig(add_bos=True), ids=ids)
    with pytest.raises(CheckpointError, match="add_eos needs a eos id"):
        load(fine_tuned, config=TokenizerConfig(add_eos=True), ids=ids)


# --- threads ----------------------------------------------------------------------------------


def test_threads_share_one_tokenizer(tokenizer: Tokenizer) -> None:
    texts = [text for text in ORDINARY if text.strip()]
    expected = [tokenizer.encode(text).input_ids.tolist() for text in texts]
    failures: list[str] = []

    def encode_all() -> None:
        for _ in range(5):
            for text, ids in zip(texts, expected, strict=True):
                if tokenizer.encode(text).input_ids.tolist() != ids:
                    failures.append(text)
                tokenizer.decode(ids)

    threads = [threading.Thread(target=encode_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_encode_lets_other_threads_run(tokenizer: Tokenizer) -> None:
    """Ticks of another thread during one long encode; a held GIL would allow none, ever."""
    text = "오늘은 날씨가 맑고 바람이 분다. " * 20_000
    ticks: list[float] = []
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(0.001):
            ticks.append(time.perf_counter())

    def has_let_run() -> bool:
        start = time.perf_counter()
        tokenizer._encode_plain(text)
        end = time.perf_counter()
        return sum(start < moment < end for moment in ticks) >= 3

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        assert any(has_let_run() for _ in range(20))
    finally:
        ended.set()
        ticker.join()
