"""A tokenizer of KoBART's kind, trained on the corpus.

Same normalizer, pre-tokenizer, decoder, model type and special ids as gogamza/kobart-base-v2; no
post-processor, so nothing is ever added to the text's own ids.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from training.corpus.dialogue import CorpusConfig, Example, generate
from training.corpus.values import given_names, listed

VOCAB_SIZE = 4000
NUM_TRAINING_EXAMPLES = 20_000
CONTROL_TOKENS = ("<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>")
UNUSED_TOKENS = tuple(f"<unused{i}>" for i in range(100))
EMOJI = (":)", ":(", "^^", "ㅜㅜ", "ㅠㅠ", "😀", "😅", "🤣", "😂", "😊")
SPEAKERS = ("#Person1#", "#Person2#", "#Person3#")
BOUNDARY = "\x1f"  # marks, in training alone, where no merge may cross


def alphabet() -> list[str]:
    """Return the characters that have an id of their own whatever the corpus holds.

    These are printable ASCII, newline and tab, the 2350 Hangul syllables of KS X 1001, the jamo as
    NFKC leaves them, and common Korean punctuation.
    """
    syllables = [chr(code) for code in range(0xAC00, 0xD7A4) if _in_ks_x_1001(chr(code))]
    jamo = [unicodedata.normalize("NFKC", chr(code)) for code in range(0x3131, 0x3164)]
    ascii_printable = [chr(code) for code in range(0x20, 0x7F)]
    return sorted({*syllables, *jamo, *ascii_printable, *"\n\t▁·–—‘’“”「」『』《》〈〉℃°×÷→"})


def _in_ks_x_1001(syllable: str) -> bool:
    """Tell whether EUC-KR has the syllable itself, in two bytes, and does not spell it by jamo."""
    return len(syllable.encode("euc_kr")) == 2


def untrained_tokenizer() -> Tokenizer:
    """Return KoBART's pipeline around an empty BPE model."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False, byte_fallback=False))
    keep = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), keep])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    return tokenizer


def train_tokenizer(examples: Iterable[Example], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """Train the BPE model on dialogues and summaries.

    A value never shares a token with the particle behind it, and names are spelled by syllable:
    a value then has the same ids in the dialogue and in the summary, and can be copied.

    Args:
        examples: The corpus; it is read once.
        vocab_size: Number of ids, special tokens and alphabet included.
    """
    tokenizer = untrained_tokenizer()
    metaspace = tokenizer.pre_tokenizer
    cut = pre_tokenizers.Split(Regex(BOUNDARY), behavior="removed")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([metaspace, cut])
    special = [*CONTROL_TOKENS, *UNUSED_TOKENS, *EMOJI, *SPEAKERS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in special],
        initial_alphabet=alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_marked_lines(examples), trainer)
    tokenizer.pre_tokenizer = metaspace
    return tokenizer


def _marked_lines(examples: Iterable[Example]) -> Iterator[str]:
    """Yield the lines as the model will see them between speaker tokens, values marked off."""
    names = {*given_names(held_out=False)}
    surnames = {*listed("surname")}
    for example in examples:
        text = example.dialogue
        summary = example.summary
        for value in [*example.slots.values(), *example.distractors]:
            is_name = value in names or (value[0] in surnames and value[1:] in names)
            marked = (BOUNDARY.join(value) if is_name else value) + BOUNDARY
            text, summary = text.replace(value, marked), summary.replace(value, marked)
        for line in text.splitlines(keepends=True):
            yield line.partition("#: ")[2].join([": ", ""])
        yield summary


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the three files from which `AutoTokenizer` of transformers 4 and 5 loads it."""
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": int(1e30),
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **names,
    }
    _write_json(folder / "special_tokens_map.json", names)
    _write_json(folder / "tokenizer_config.json", config)


def _write_json(path: Path, content: dict[str, object] | dict[str, str]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def build_tokenizer() -> Tokenizer:
    """Train the tokenizer on the first examples of the training split."""
    return train_tokenizer(
        islice(generate(CorpusConfig(mean_small_talk=3.0)), NUM_TRAINING_EXAMPLES)
    )
