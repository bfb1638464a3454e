"""A build appears whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders.staging import check_output, staged
from kobart_runtime.errors import BuildError


def finish(output: Path, content: str, *, force: bool = False) -> None:
    with staged(output, force=force) as folder:
        (folder / "manifest.json").write_text(content)


def fail(output: Path, error: BaseException) -> None:
    with staged(output, force=True) as folder:
        (folder / "manifest.json").write_text("half")
        raise error


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_output_appears_at_the_end_alone(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "build"
    finish(output, "new")
    assert (output / "manifest.json").read_text() == "new"
    assert names(output.parent) == ["build"]


@pytest.mark.parametrize("error", [BuildError("no"), KeyboardInterrupt()])
def test_an_error_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        fail(tmp_path / "build", error)
    assert names(tmp_path) == []


def test_an_existing_build_needs_force(tmp_path: Path) -> None:
    output = tmp_path / "build"
    finish(output, "old")
    with pytest.raises(BuildError, match="exists: give --force to replace it"):
        finish(output, "new")
    assert (output / "manifest.json").read_text() == "old"
    finish(output, "new", force=True)
    assert (output / "manifest.json").read_text() == "new"
    assert names(tmp_path) == ["build"]


def test_a_failed_replacement_keeps_the_old_build(tmp_path: Path) -> None:
    output = tmp_path / "build"
    finish(output, "old")
    with pytest.raises(BuildError):
        fail(output, BuildError("no"))
    assert (output / "manifest.json").read_text() == "old"


def test_what_is_no_build_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    for output in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(BuildError, match="exists and is not a build"):
            finish(output, "new", force=True)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_an_empty_folder_may_be_the_output(tmp_path: Path) -> None:
    finish_into = tmp_path / "empty"
    finish_into.mkdir()
    with staged(finish_into, force=False) as folder:
        (folder / "manifest.json").write_text("new")
    assert names(finish_into) == ["manifest.json"]


def test_another_build_that_finished_meanwhile_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "build"

    def overtaken() -> None:
        with staged(output, force=False):
            output.mkdir()
            (output / "manifest.json").write_text("theirs")

    with pytest.raises(BuildError, match="exists"):
        overtaken()
    assert (output / "manifest.json").read_text() == "theirs"
    assert names(tmp_path) == ["build"]


def test_leftovers_of_dead_builds_are_removed_and_others_kept(tmp_path: Path) -> None:
    alive = f".build.{os.getppid()}.tmp"
    kept = [alive, ".other.1.tmp", ".build.tmp", ".build.x.tmp"]
    for name in (f".build.{dead_pid()}.tmp", f".build.{os.getpid()}.tmp", *kept):
        (tmp_path / name).mkdir()
    finish(tmp_path / "build", "new")
    assert names(tmp_path) == sorted([*kept, "build"])


def test_a_build_killed_between_the_two_renames_is_restored(tmp_path: Path) -> None:
    output = tmp_path / "build"
    finish(output, "old")
    output.rename(tmp_path / f".build.{dead_pid()}.old")
    with pytest.raises(BuildError):
        fail(output, BuildError("no"))
    assert (output / "manifest.json").read_text() == "old"
    assert names(tmp_path) == ["build"]


def test_an_output_below_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BuildError, match=r"file is no folder that you may write to; choose"):
        check_output(tmp_path / "file" / "build", force=True)
