"""The values of a template's keys: names, days, times, amounts and the lists of values.yaml."""

import random
import re
from functools import lru_cache
from itertools import product

from training.corpus.josa import with_josa
from training.corpus.scripts import read_yaml

DISTRACTOR = "other_"
NUM_TRAIN_NAMES = 280
MAX_DRAWS = 1000
GROUPS = {
    "name": ("name", "fullname"),
    "day": ("day", "weekday"),
    "time": ("time",),
    "place": ("place", "room", "city", "district", "station"),
    "amount": ("amount", "rent", "fee"),
}


class Value(str):
    """A drawn value; `f"{value:은}"` appends the particle in its right form."""

    __slots__ = ()

    def __format__(self, particle: str) -> str:
        """Return the value alone, or followed by a particle."""
        return with_josa(str(self), particle) if particle else str(self)


def kind_of(key: str) -> str:
    """Return the kind of a template key: `other_name2` and `name` are both a `name`."""
    return key.removeprefix(DISTRACTOR).rstrip("0123456789")


def group_of(key: str) -> str:
    """Return what a key is scored as: name, day, time, place, amount or item."""
    kind = kind_of(key)
    return next((group for group, kinds in GROUPS.items() if kind in kinds), "item")


def mentions(text: str, value: str) -> bool:
    """Tell whether a text holds a value as such: "오후 3시" is not in "오후 3시 30분"."""
    return re.search(rf"(?<!\w){re.escape(value)}(?! \d+분)", text) is not None


@lru_cache
def given_names(held_out: bool) -> tuple[str, ...]:
    """Return the given names used for training, or the list that is kept out of it."""
    lists = read_yaml("values.yaml")
    names = [a + b for a, b in product(lists["given_first"], lists["given_second"]) if a != b]
    names = [name for name in names if name not in set(lists["not_names"])]
    random.Random("names").shuffle(names)
    return tuple(names[NUM_TRAIN_NAMES:] if held_out else names[:NUM_TRAIN_NAMES])


@lru_cache
def listed(kind: str) -> tuple[str, ...]:
    """Return the values of a kind that is a plain list."""
    return tuple(read_yaml("values.yaml")[kind])


class Cast(dict[str, Value]):
    """The values of one dialogue by key, drawn when a template first asks for them.

    No value contains another, so that finding one in a text is unambiguous.
    """

    def __init__(self, rng: random.Random, held_out_names: bool) -> None:
        """Start without values; `rng` is advanced by every draw."""
        super().__init__()
        self.used: dict[str, Value] = {}
        self._rng = rng
        self._names = given_names(held_out_names)

    def __missing__(self, key: str) -> Value:
        """Draw the value of a key.

        Raises:
            RuntimeError: The kind has too few values for one dialogue.
        """
        for _ in range(MAX_DRAWS):
            value = Value(self._draw(kind_of(key)))
            if not any(value in other or other in value for other in self.used.values()):
                self.used[f"{key}#{len(self.used)}"] = self[key] = value
                return value
        raise RuntimeError(f"no value left for {key!r}: add values of its kind to values.yaml")

    def distractors(self) -> list[str]:
        """Return every distractor drawn so far."""
        return [value for key, value in self.used.items() if key.startswith(DISTRACTOR)]

    def forget_distractors(self) -> None:
        """Let the next template draw new distractors, different from all before."""
        for key in [key for key in self if key.startswith(DISTRACTOR)]:
            del self[key]

    def _draw(self, kind: str) -> str:
        rng = self._rng
        match kind:
            case "name":
                return rng.choice(self._names)
            case "fullname":
                return rng.choice(listed("surname")) + rng.choice(self._names)
            case "day":
                return _draw_day(rng)
            case "time":
                return _draw_time(rng)
            case "amount":
                return _draw_amount(rng)
            case "rent":
                return f"{rng.randint(25, 90)}만 원"
            case "fee":
                return f"{rng.randint(1, 9)}천{rng.choice([' ', ' 5백 '])}원"
            case _:
                return rng.choice(listed(kind))


def _draw_day(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return f"{rng.choice(['이번', '다음'])} 주 {rng.choice(listed('weekday'))}"
    return f"{rng.randint(1, 12)}월 {rng.randint(1, 28)}일"


def _draw_time(rng: random.Random) -> str:
    hour = rng.choice([f"오전 {rng.randint(9, 11)}시", f"오후 {rng.randint(1, 8)}시"])
    return hour + (f" {rng.choice([10, 15, 20, 30, 40, 45, 50])}분" if rng.random() < 0.5 else "")


def _draw_amount(rng: random.Random) -> str:
    thousands = f" {rng.randint(1, 9)}천" if rng.random() < 0.5 else ""
    return f"{rng.randint(1, 30)}만{thousands} 원"
