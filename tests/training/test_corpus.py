from itertools import islice

import pytest

from training.corpus.dialogue import CorpusConfig, Example, Split, generate
from training.corpus.scripts import outcomes
from training.corpus.values import given_names, group_of, kind_of, mentions

NUM_EXAMPLES = 1500


@pytest.fixture(scope="module")
def train_examples() -> list[Example]:
    return list(islice(generate(CorpusConfig()), NUM_EXAMPLES))


def combinations(config: CorpusConfig) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    examples = islice(generate(config), NUM_EXAMPLES)
    return {(e.situation.partition("/")[0], frozenset(e.slots.items())) for e in examples}


def test_same_seed_gives_same_examples(train_examples: list[Example]) -> None:
    assert list(islice(generate(CorpusConfig()), 50)) == train_examples[:50]
    assert list(islice(generate(CorpusConfig(), start=30), 20)) == train_examples[30:50]
    assert next(generate(CorpusConfig(seed="another"))) != train_examples[0]


def test_negative_small_talk_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        CorpusConfig(mean_small_talk=-1)


def test_at_least_fifteen_situations_and_one_held_out() -> None:
    trained = {outcome.situation for outcome in outcomes(held_out=False)}
    held_out = {outcome.situation for outcome in outcomes(held_out=True)}
    assert len(trained) >= 15
    assert held_out == {"hotel"}
    assert not trained & held_out


def test_splits_share_no_slot_combination() -> None:
    splits: list[Split] = ["train", "dev", "test"]
    seen = [combinations(CorpusConfig(split=split)) for split in splits]
    assert sum(map(len, seen)) == len(set.union(*seen))


def test_slots_are_said_and_kept(train_examples: list[Example]) -> None:
    for example in train_examples:
        for value in example.slots.values():
            assert mentions(example.dialogue, value), (example.id, value)
            assert mentions(example.summary, value), (example.id, value)


def test_distractors_are_said_and_left_out(train_examples: list[Example]) -> None:
    for example in train_examples:
        for value in example.distractors:
            assert mentions(example.dialogue, value), (example.id, value)
            assert not mentions(example.summary, value), (example.id, value)


def test_most_dialogues_have_distractors(train_examples: list[Example]) -> None:
    with_distractors = sum(bool(example.distractors) for example in train_examples)
    assert with_distractors > 0.9 * len(train_examples)


def test_no_template_is_left_unfilled(train_examples: list[Example]) -> None:
    assert not any("{" in e.dialogue + e.summary for e in train_examples)


def test_summary_is_one_or_two_sentences(train_examples: list[Example]) -> None:
    for example in train_examples:
        assert example.summary.endswith("다.")
        assert example.summary.count("다. ") <= 1


def test_every_summary_key_occurs_in_its_script() -> None:
    for outcome in [*outcomes(held_out=False), *outcomes(held_out=True)]:
        required = " ".join(
            phrasing
            for exchange in outcome.script
            if not exchange.optional
            for line in exchange.lines
            for phrasing in line.phrasings
        )
        for key in [part.split("}")[0].split(":")[0] for part in outcome.summary.split("{")[1:]]:
            assert f"{{{key}}}" in required or f"{{{key}:" in required, (outcome.name, key)


def test_held_out_names_stay_out_of_training(train_examples: list[Example]) -> None:
    held_out = given_names(held_out=True)
    assert not set(held_out) & set(given_names(held_out=False))
    for example in train_examples:
        for key, value in example.slots.items():
            if group_of(key) == "name":
                assert value[-2:] not in held_out


def test_held_out_names_alone_are_used_where_asked() -> None:
    config = CorpusConfig(split="test", held_out_names=True)
    for example in islice(generate(config), 100):
        names = [value for key, value in example.slots.items() if group_of(key) == "name"]
        assert all(name[-2:] in given_names(held_out=True) for name in names)


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("내일 오후 3시에", "오후 3시", True),
        ("내일 오후 3시 30분에", "오후 3시", False),
        ("11월 2일에", "1월 2일", False),
        ("김민수는", "민수", False),
        ("13만 원을", "3만 원", False),
    ],
)
def test_mentions_looks_for_whole_values(text: str, value: str, expected: bool) -> None:
    assert mentions(text, value) is expected


def test_keys_name_kind_and_group() -> None:
    assert (kind_of("other_name2"), group_of("other_name2")) == ("name", "name")
    assert (kind_of("fullname"), group_of("fullname")) == ("fullname", "name")
    assert group_of("rent") == "amount"
    assert group_of("product") == "item"
