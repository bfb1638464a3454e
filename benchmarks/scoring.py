"""How good a build's summaries are: ROUGE-L, and the tokens that it chooses as PyTorch does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from benchmarks.systems import OurRuntime
from builders.agreement import Teacher
from builders.checkpoint import load_checkpoint
from builders.special_ids import IdOverrides
from calibration.documents import Encoders, encode_pairs
from client.rouge import rouge_l_means
from kobart_documents import read_pairs
from kobart_runtime.model_config import TOKENIZER_FILE, TokenizerConfig
from kobart_runtime.settings import Limits


@dataclass(frozen=True)
class Score:
    """Means over the documents, in 0..1."""

    rouge_l_characters: float  # F1 against the references, spaces left out
    rouge_l_words: float  # the same on words as split at white space
    agreement: float  # tokens chosen as the whole float32 checkpoint does, along the references
    agreement_tokens: int


@dataclass(frozen=True)
class Judge:
    """Scores builds on the same documents, against the same checkpoint."""

    dialogues: tuple[str, ...]
    references: tuple[str, ...]
    teacher: Teacher

    @classmethod
    @lru_cache(maxsize=1)
    def of(cls, checkpoint: Path, documents: Path) -> Judge:
        """Read the documents, and what the checkpoint chooses along their references.

        Args:
            checkpoint: Folder of the model that was not pruned.
            documents: A file of pairs.

        Raises:
            KobartError: A file cannot be used.
        """
        file = read_pairs(documents)
        loaded = load_checkpoint(str(checkpoint), IdOverrides())
        encoders = Encoders.from_tokenizer(
            checkpoint / TOKENIZER_FILE, TokenizerConfig(), loaded.ids, Limits(), loaded.vocab_size
        )
        return cls(
            tuple(pair.text for pair in file.pairs),
            tuple(pair.summary for pair in file.pairs),
            Teacher(loaded, encode_pairs(file, encoders)),
        )

    def score(self, build: Path) -> Score:
        """Summarize the documents with a build and its own settings.

        Raises:
            KobartError: The build cannot be opened or run.
        """
        ours = OurRuntime(build)
        try:
            agreement = self.teacher.agreement_of(ours.runner)
            rouge = rouge_l_means(self.references, ours.summarize(self.dialogues))
        finally:
            ours.close()
        return Score(rouge.characters, rouge.words, agreement, self.teacher.num_tokens)
