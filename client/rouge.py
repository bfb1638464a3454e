"""ROUGE (Lin 2004) on sequences of units: characters, words, morphemes, ids.

Korean words carry their particles, so that word scores punish a right word with another ending;
characters and morphemes do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass


def lcs_length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Return the length of the longest common subsequence, in elements."""
    row = [0] * (len(b) + 1)
    for x in a:
        previous = row
        row = [0]
        for j, y in enumerate(b):
            row.append(previous[j] + 1 if x == y else max(previous[j + 1], row[j]))
    return row[-1]


def rouge_l(reference: Sequence[Hashable], candidate: Sequence[Hashable]) -> float:
    """Return the F1 of ROUGE-L (Lin 2004, section 3) on two sequences of units, in 0..1."""
    common = lcs_length(reference, candidate)
    return 2 * common / (len(reference) + len(candidate)) if common else 0.0


def rouge_n(reference: Sequence[Hashable], candidate: Sequence[Hashable], n: int) -> float:
    """Return the F1 of ROUGE-N (Lin 2004, section 2) on two sequences of units, in 0..1."""
    wanted, found = _ngrams(reference, n), _ngrams(candidate, n)
    common = (wanted & found).total()
    return 2 * common / (wanted.total() + found.total()) if common else 0.0


def characters(text: str) -> list[str]:
    """The characters of a text, spaces left out."""
    return [character for character in text if not character.isspace()]


def words(text: str) -> list[str]:
    """The words of a text, as split at white space."""
    return text.split()


@dataclass(frozen=True)
class Rouge:
    """F1 scores in 0..1."""

    rouge_1: float
    rouge_2: float
    rouge_l: float

    @classmethod
    def of(cls, reference: Sequence[Hashable], candidate: Sequence[Hashable]) -> Rouge:
        """Score one summary."""
        return cls(
            rouge_1=rouge_n(reference, candidate, 1),
            rouge_2=rouge_n(reference, candidate, 2),
            rouge_l=rouge_l(reference, candidate),
        )


@dataclass(frozen=True)
class RougeL:
    """Mean F1 of ROUGE-L over a set of summaries, in 0..1."""

    characters: float  # spaces left out
    words: float  # as split at white space


def rouge_l_means(references: Sequence[str], summaries: Sequence[str]) -> RougeL:
    """Score summaries against references, one for each.

    Raises:
        ValueError: There are not as many summaries as references.
    """
    pairs = list(zip(references, summaries, strict=True))
    return RougeL(
        characters=mean(rouge_l(r.replace(" ", ""), s.replace(" ", "")) for r, s in pairs),
        words=mean(rouge_l(r.split(), s.split()) for r, s in pairs),
    )


def mean(values: Iterable[float]) -> float:
    """The mean, to four digits."""
    collected = [float(value) for value in values]
    return round(sum(collected) / len(collected), 4)


def _ngrams(units: Sequence[Hashable], n: int) -> Counter[tuple[Hashable, ...]]:
    return Counter(tuple(units[i : i + n]) for i in range(len(units) - n + 1))
