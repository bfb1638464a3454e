"""Korean particles (josa), whose form depends on the sound that the word before them ends in."""

# particle as written in a template -> (after a consonant, after a vowel)
FORMS = {
    "은": ("은", "는"),
    "이": ("이", "가"),
    "을": ("을", "를"),
    "과": ("과", "와"),
    "으로": ("으로", "로"),
    "도": ("도", "도"),
    "이라고": ("이라고", "라고"),
    "이라는": ("이라는", "라는"),
    "이면": ("이면", "면"),
    "이에요": ("이에요", "예요"),
    "이었어요": ("이었어요", "였어요"),
    "이래요": ("이래요", "래요"),
}
FIRST_SYLLABLE, LAST_SYLLABLE, FINALS = 0xAC00, 0xD7A3, 28
RIEUL = 8  # index of the final consonant ㄹ, after which "으로" behaves as after a vowel


def final_consonant(word: str) -> int:
    """Return the index of the last syllable's final consonant, 0 if it ends in a vowel.

    Characters that are not Hangul syllables (closing quotes) are skipped.

    Raises:
        ValueError: The word holds no Hangul syllable.
    """
    for char in reversed(word):
        if FIRST_SYLLABLE <= ord(char) <= LAST_SYLLABLE:
            return (ord(char) - FIRST_SYLLABLE) % FINALS
    raise ValueError(f"{word!r} has no Hangul syllable to choose a particle by")


def with_josa(word: str, particle: str) -> str:
    """Return the word followed by the right form of a particle of `FORMS`."""
    final = final_consonant(word)
    after_consonant, after_vowel = FORMS[particle]
    closed = final != 0 and not (particle == "으로" and final == RIEUL)
    return word + (after_consonant if closed else after_vowel)
