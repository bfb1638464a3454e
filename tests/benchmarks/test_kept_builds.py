from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import kept_builds
from benchmarks.kept_builds import has_this_runtime, kept_build
from kobart_runtime.errors import BuildError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    made: list[list[str]] = []
    monkeypatch.setattr(kept_builds, "build_all", made.append)  # None: it went well
    return made


@pytest.fixture
def copy(mini_build: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mini_build, tmp_path / "build"))


def test_a_build_of_this_runtime_is_kept(copy: Path, calls: list[list[str]]) -> None:
    assert kept_build(copy, "--precision", "fp32") == copy
    assert not calls


def test_one_of_another_runtime_is_made_anew(
    copy: Path, calls: list[list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    (copy / "kobart/1/kobart_runtime/errors.py").write_text("# older\n")
    assert not has_this_runtime(copy)
    kept_build(copy, "--precision", "fp32")
    assert calls == [["--precision", "fp32", "--output", str(copy), "--force"]]
    assert "carries another kobart_runtime" in caplog.text


def test_a_file_too_many_is_another_runtime(copy: Path) -> None:
    (copy / "kobart/1/kobart_runtime/removed_since.py").touch()
    assert not has_this_runtime(copy)


def test_what_cannot_be_built_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="could not be built"):
        kept_build(tmp_path / "none", "--checkpoint", str(tmp_path / "no-checkpoint"))
