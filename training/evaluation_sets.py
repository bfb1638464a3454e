"""The documents committed with the checkpoint: dev, test and held-out pairs, and three samples."""

import json
from itertools import islice
from pathlib import Path

from training.corpus.dialogue import CorpusConfig, Example, generate

CONFIGS = {
    "dev": (CorpusConfig(split="dev"), 100),
    "test": (CorpusConfig(split="test"), 100),
    "heldout_situation": (CorpusConfig(split="test", held_out_situation=True), 50),
    "heldout_names": (CorpusConfig(split="test", held_out_names=True), 50),
}
FILES = {
    "dev.jsonl": ("dev",),
    "test.jsonl": ("test",),
    "heldout.jsonl": ("heldout_situation", "heldout_names"),
}
SAMPLES = {"appointment.txt": 0, "refund.txt": 2, "doctor.txt": 8}  # file -> index in the dev set


def regenerate(name: str) -> list[Example]:
    """Return one of the sets of `CONFIGS`, from the seed."""
    config, num_examples = CONFIGS[name]
    return list(islice(generate(config), num_examples))


def lines(file: str) -> str:
    """Return the content of one of the JSONL `FILES`, from the seed."""
    examples = [example for name in FILES[file] for example in regenerate(name)]
    return "".join(json.dumps(e.to_json(), ensure_ascii=False) + "\n" for e in examples)


def read_set(folder: Path, name: str) -> list[Example]:
    """Return one of the sets of `CONFIGS` as it is committed in a checkpoint's folder."""
    file = next(file for file, names in FILES.items() if name in names)
    text = (folder / file).read_text(encoding="utf-8")
    examples = [Example(**json.loads(line)) for line in text.splitlines()]
    return [example for example in examples if example.id.startswith(f"{name}-")]


def write_sets(folder: Path) -> None:
    """Write the JSONL files and the samples into a checkpoint's folder."""
    for file in FILES:
        (folder / file).write_text(lines(file), encoding="utf-8")
    dev = regenerate("dev")
    (folder / "samples").mkdir(exist_ok=True)
    for file, index in SAMPLES.items():
        (folder / "samples" / file).write_text(dev[index].dialogue + "\n", encoding="utf-8")
