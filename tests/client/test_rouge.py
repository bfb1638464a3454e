from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.morphemes import morpheme_splitter
from client.rouge import Rouge, characters, lcs_length, rouge_l, rouge_l_means, rouge_n, words

SHORT = st.text("가나다", max_size=7)


def subsequences(text: str) -> set[str]:
    return {
        "".join(text[i] for i in chosen)
        for size in range(len(text) + 1)
        for chosen in combinations(range(len(text)), size)
    }


@given(SHORT, SHORT)
def test_lcs_is_the_longest_common_subsequence(a: str, b: str) -> None:
    assert lcs_length(a, b) == max(map(len, subsequences(a) & subsequences(b)))


def test_rouge_n_clips_repeated_units() -> None:
    assert rouge_n("가가나", "가가가", 1) == pytest.approx(2 * 2 / 6)
    assert rouge_n("가나다", "나다라", 2) == pytest.approx(2 * 1 / 4)
    assert rouge_n("가", "가", 2) == 0


@given(SHORT, SHORT)
def test_scores_lie_between_0_and_1_and_are_symmetric(a: str, b: str) -> None:
    scores = Rouge.of(a, b)
    assert scores == Rouge.of(b, a)
    assert all(0 <= score <= 1 for score in vars(scores).values())
    if len(a) > 1:
        assert Rouge.of(a, a) == Rouge(1, 1, 1)


def test_units() -> None:
    assert characters("가 나\n다") == ["가", "나", "다"]
    assert words(" 가나 다 ") == ["가나", "다"]
    means = rouge_l_means(["가나 다"], ["가나다"])
    assert (means.characters, means.words) == (1.0, 0.0)


def test_morphemes_see_through_particles() -> None:
    pytest.importorskip("kiwipiepy", reason="pip install 'kobart-triton[morphemes]'")
    split = morpheme_splitter()
    one, other = "나은이가 학교에 갔다", "나은은 학교로 갔다"
    assert "학교/NNG" in split(one)
    assert rouge_l(split(one), split(other)) > rouge_l(words(one), words(other))
