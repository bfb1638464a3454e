import pytest

from training.corpus.josa import with_josa


@pytest.mark.parametrize(
    ("word", "particle", "expected"),
    [
        ("민수", "은", "민수는"),
        ("지연", "은", "지연은"),
        ("민수", "이", "민수가"),
        ("지연", "이", "지연이"),
        ("노트북", "을", "노트북을"),
        ("의자", "을", "의자를"),
        ("재희", "과", "재희와"),
        ("동빈", "과", "동빈과"),
        ("부산", "으로", "부산으로"),
        ("제주도", "으로", "제주도로"),
        ("서울", "으로", "서울로"),  # after ㄹ as after a vowel
        ("5월 12일", "으로", "5월 12일로"),
        ("오후 3시 30분", "으로", "오후 3시 30분으로"),
        ("「고래의 노래」", "을", "「고래의 노래」를"),  # the quotation mark has no sound
        ("김민수", "이에요", "김민수예요"),
        ("3만 원", "이라고", "3만 원이라고"),
    ],
)
def test_particle_follows_the_last_sound(word: str, particle: str, expected: str) -> None:
    assert with_josa(word, particle) == expected


def test_word_without_hangul_is_refused() -> None:
    with pytest.raises(ValueError, match="no Hangul syllable"):
        with_josa("ABC", "은")
