import pytest

from client.rouge import lcs_length, rouge_l
from training.corpus.dialogue import Example
from training.evaluate_mini import score

EXAMPLE = Example(
    id="test-0000",
    dialogue="...",
    summary="민수와 지연은 오후 3시에 강남역에서 만나기로 했다.",
    situation="appointment/agreed",
    slots={"name": "민수", "name2": "지연", "time": "오후 3시", "place": "강남역"},
    distractors=["오후 5시"],
)


def test_longest_common_subsequence() -> None:
    assert lcs_length("가나다라", "가다라마") == 3
    assert lcs_length("", "가") == 0


def test_rouge_l_is_f1() -> None:
    assert rouge_l("가나다라", "가나") == pytest.approx(2 * 2 / 6)
    assert rouge_l("가", "나") == 0.0


def test_perfect_summary() -> None:
    scores = score([EXAMPLE], [EXAMPLE.summary])
    assert scores.rouge_l_characters == scores.rouge_l_words == scores.slot_recall == 1.0
    assert scores.exact_match == 1.0
    assert scores.leak_rate == 0.0


def test_wrong_time_lowers_recall_and_leaks() -> None:
    scores = score([EXAMPLE], [EXAMPLE.summary.replace("3시", "5시")])
    assert scores.slot_recall == 0.75
    assert scores.slot_recall_by_kind == {"name": 1.0, "place": 1.0, "time": 0.0}
    assert scores.leak_rate == 1.0
    assert scores.exact_match == 0.0


def test_counts_must_agree() -> None:
    with pytest.raises(ValueError, match="0 summaries for 1 examples"):
        score([EXAMPLE], [])
