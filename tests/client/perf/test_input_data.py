from __future__ import annotations

from collections import Counter

import pytest

from client.perf.input_data import Lengths, of_lengths, perf_input
from kobart_runtime.errors import ConfigError
from kobart_runtime.settings import SETTING_NAMES, GenerationSettings

DOCUMENTS = ["가나다 라마", "바사아"]


def test_lengths_are_drawn_by_weight_and_seed() -> None:
    lengths = Lengths.parse("200:3,1500:1")
    drawn = lengths.draw(400, seed=1)
    assert drawn == lengths.draw(400, seed=1)
    assert 240 < Counter(drawn)[200] < 360
    assert set(Lengths.parse("400").draw(5, seed=0)) == {400}


@pytest.mark.parametrize("text", ["", "long", "0", "10:0", "10:-1", "10,,20"])
def test_other_lengths_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="lengths"):
        Lengths.parse(text)


def test_documents_have_the_length_and_the_text_of_real_ones() -> None:
    made = of_lengths(DOCUMENTS, [3, 12, 40])
    assert [len(text) for text in made] == [3, 12, 40]
    assert made[0] == "가나다"
    assert made[1] == "바사아\n가나다 라마\n바"
    with pytest.raises(ConfigError, match="no document"):
        of_lengths([" "], [3])


def test_every_input_is_given_so_that_none_is_noise() -> None:
    (entry,) = perf_input(DOCUMENTS[:1], GenerationSettings(num_beams=2), stream=True)["data"]
    assert set(entry) == {"text_input", "stream", *SETTING_NAMES}
    assert (entry["num_beams"], entry["stream"]) == ([2], [True])
