"""The tables of settings in both READMEs, and the front model's inputs, are those of the code."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from builders.config import OPTIONS
from kobart_runtime.errors import InvalidArgumentError
from kobart_runtime.settings import SETTING_NAMES, GenerationSettings, Limits
from tests.conftest import REPOSITORY

READMES = ("README.md", "README.ko.md")
DATATYPES = {bool: "TYPE_BOOL", int: "TYPE_INT32", float: "TYPE_FP32"}
DEFAULTS = GenerationSettings()
PROBES: dict[type, tuple[float, ...]] = {
    bool: (True, False),
    int: (-(10**6), -1, 0, 1, 2, 8, 9, 128, 256, 257, 10**6),
    float: (-math.inf, -100.0, -1.0, -0.5, 0.0, 1e-6, 0.5, 1.0, 2.0, 100.0, math.inf, math.nan),
}
# How a README writes a range -> what it means.
RANGES: dict[str, Callable[[float], bool]] = {
    r"at least 0( \(0 = off\))?|0 이상( \(0이면 끔\))?": lambda value: value >= 0,
    r"finite, above 0|0보다 큰 유한한 수": lambda value: math.isfinite(value) and value > 0,
    r"any finite number, 0 and negative included|모든 유한한 수 \(0과 음수 포함\)": math.isfinite,
    r"true, false": lambda value: value in (True, False),
}
LIMITED = re.compile(r"(\d+)(?: to |~)(\d+) \(`--([a-z-]+)`\)")


def rows(readme: str) -> dict[str, tuple[str, str]]:
    """Setting -> its default and its range, as the page has them."""
    text = (REPOSITORY / readme).read_text(encoding="utf-8")
    found = re.findall(r"^\| `([a-z_]+)` \| (\S+) \| (.+?) \|$", text, re.MULTILINE)
    return {name: (default, values) for name, default, values in found}


def as_written(value: float) -> str:
    return str(value).lower()


def is_accepted(name: str, value: float) -> bool:
    try:
        replace(DEFAULTS, **{name: value}).check(Limits())  # type: ignore[arg-type]
    except InvalidArgumentError:
        return False
    return True


@pytest.mark.parametrize("readme", READMES)
def test_a_readme_names_every_setting_with_its_default(readme: str) -> None:
    defaults = {name: default for name, (default, _) in rows(readme).items()}
    expected = {name: as_written(getattr(DEFAULTS, name)) for name in SETTING_NAMES}
    assert defaults == {**expected, "stream": "false"}


@pytest.mark.parametrize("readme", READMES)
@pytest.mark.parametrize("name", SETTING_NAMES)
def test_a_readmes_range_is_what_is_accepted(readme: str, name: str) -> None:
    written, probes = rows(readme)[name][1], PROBES[type(getattr(DEFAULTS, name))]
    if limited := LIMITED.fullmatch(written):
        low, high, option = int(limited[1]), int(limited[2]), limited[3].replace("-", "_")
        assert option in OPTIONS
        assert high == getattr(Limits(), option)
        expected = {value: low <= value <= high for value in probes}
    else:
        (is_meant,) = [means for text, means in RANGES.items() if re.fullmatch(text, written)]
        expected = {value: is_meant(value) for value in probes}
    assert {value: is_accepted(name, value) for value in probes} == expected


def test_the_front_model_takes_every_setting_in_its_type() -> None:
    text = (REPOSITORY / "model_repository" / "kobart" / "config.pbtxt").read_text(encoding="utf-8")
    inputs = re.findall(r"name: \"(\w+)\", data_type: (\w+), dims: \[ 1 \], optional: true", text)
    expected = {name: DATATYPES[type(getattr(DEFAULTS, name))] for name in SETTING_NAMES}
    assert dict(inputs) == {"stream": "TYPE_BOOL", **expected}
