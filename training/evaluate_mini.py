"""Scores a checkpoint: ROUGE-L on characters and on words, slot recall, leaked distractors."""

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import BartForConditionalGeneration

from builders.paths import DEFAULT_CHECKPOINT_FOLDER
from client.rouge import mean, rouge_l_means
from training.corpus.dialogue import Example
from training.corpus.values import group_of, mentions
from training.evaluation_sets import CONFIGS, read_set
from training.model import PAD_ID

BATCH_SIZE = 10


@dataclass(frozen=True)
class Scores:
    """Means over a set of summaries; every value lies in 0..1 but `num_examples`."""

    num_examples: int
    rouge_l_characters: float  # F1 of the longest common subsequence, spaces left out
    rouge_l_words: float  # the same on words as split at white space
    slot_recall: float  # share of the references' slots that the summaries mention
    slot_recall_by_kind: dict[str, float]
    leak_rate: float  # share of summaries that mention at least one distractor
    exact_match: float  # share of summaries equal to the reference


def score(examples: Sequence[Example], summaries: Sequence[str]) -> Scores:
    """Score summaries against the examples they belong to.

    Raises:
        ValueError: There are not as many summaries as examples, or none.
    """
    if len(examples) != len(summaries) or not examples:
        raise ValueError(f"{len(summaries)} summaries for {len(examples)} examples")
    pairs = list(zip(examples, summaries, strict=True))
    hits: dict[str, list[bool]] = {}
    for example, summary in pairs:
        for key, value in example.slots.items():
            hits.setdefault(group_of(key), []).append(mentions(summary, value))
    rouge = rouge_l_means([example.summary for example in examples], summaries)
    return Scores(
        num_examples=len(pairs),
        rouge_l_characters=rouge.characters,
        rouge_l_words=rouge.words,
        slot_recall=mean(hit for group in hits.values() for hit in group),
        slot_recall_by_kind={kind: mean(hits[kind]) for kind in sorted(hits)},
        leak_rate=mean(any(mentions(s, d) for d in e.distractors) for e, s in pairs),
        exact_match=mean(e.summary == s for e, s in pairs),
    )


def pad(ids: Sequence[Sequence[int]], fill: int = PAD_ID) -> torch.Tensor:
    """Return token ids padded on the right, int64[B, S]."""
    longest = max(map(len, ids))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in ids])


def summarize(
    model: BartForConditionalGeneration,
    tokenizer: Tokenizer,
    dialogues: Sequence[str],
    *,
    progress: bool = False,
    **generation: Any,
) -> list[str]:
    """Return a summary of each dialogue; `generation` overrides the model's own settings."""
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(dialogues))]
    return tokenizer.decode_batch(generate_ids(model, ids, progress=progress, **generation))


@torch.inference_mode()
def generate_ids(
    model: BartForConditionalGeneration,
    sources: Sequence[Sequence[int]],
    *,
    fill: int = PAD_ID,
    progress: bool = False,
    **generation: Any,
) -> list[list[int]]:
    """Return the ids that the model generates for each source, in batches of similar length.

    Args:
        model: On any device, in eval mode.
        sources: Source ids.
        fill: Pads the sources.
        progress: Show a bar.
        generation: Overrides the model's own settings.
    """
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    generated: list[list[int]] = [[]] * len(sources)
    for start in tqdm(range(0, len(sources), BATCH_SIZE), disable=not progress, unit="batch"):
        rows = order[start : start + BATCH_SIZE]
        output = cast(Any, model).generate(
            input_ids=pad([sources[i] for i in rows], fill).to(model.device),
            attention_mask=pad([[1] * len(sources[i]) for i in rows], 0).to(model.device),
            **generation,
        )
        for i, ids in zip(rows, output.tolist(), strict=True):
            generated[i] = ids
    return generated


def evaluate(checkpoint: Path) -> dict[str, object]:
    """Score a checkpoint on the four sets committed with it, with its own generation settings."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    model = BartForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    scores: dict[str, object] = {}
    for name in CONFIGS:
        examples = read_set(checkpoint, name)
        summaries = summarize(model, tokenizer, [e.dialogue for e in examples], progress=True)
        scores[name] = asdict(score(examples, summaries))
    return {
        "measured_with": {
            "weights": "model.safetensors (float16), loaded as float32",
            "generation": "transformers generate, generation_config.json as it is (beam 4)",
            "batch_size": BATCH_SIZE,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "machine": platform.machine(),
        },
        "scores": scores,
    }


def main() -> None:
    """Score a checkpoint and write metrics.json beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "checkpoint",
        type=Path,
        nargs="?",
        default=DEFAULT_CHECKPOINT_FOLDER,
        metavar="DIR",
        help="folder of a checkpoint with test.jsonl beside it (default: %(default)s)",
    )
    checkpoint = parser.parse_args().checkpoint
    path = checkpoint / "metrics.json"
    metrics = json.loads(path.read_text()) if path.exists() else {}
    text = json.dumps(metrics | evaluate(checkpoint), ensure_ascii=False, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
