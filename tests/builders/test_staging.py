"""A build appears whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from builders.staging import check_output, staged
from kobart_runtime.errors import BuildError
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE_S

# A build in another process, which runs until it is told to end; the second argument is its pid as
# it sees it, so that two containers with equal pids can be played.
BUILDER = """
import os, sys
from pathlib import Path
output, pid = Path(sys.argv[1]), int(sys.argv[2])
os.getpid = lambda: pid
from builders.staging import staged
with staged(output, force=True) as folder:
    (folder / "manifest.json").write_text("of another process")
    print(folder, flush=True)
    sys.stdin.readline()
"""


def finish(output: Path, content: str, *, force: bool = False) -> None:
    with staged(output, force=force) as folder:
        (folder / "manifest.json").write_text(content)


def fail(output: Path, error: BaseException) -> None:
    with staged(output, force=True) as folder:
        (folder / "manifest.json").write_text("half")
        raise error


@contextmanager
def building(output: Path, pid: int) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A build in another process, and the folder that it writes."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(output), str(pid)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


def end(process: subprocess.Popen[str]) -> int:
    process.communicate("\n", timeout=PATIENCE_S)
    return process.returncode


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=PATIENCE_S)


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


def test_two_builds_of_one_process_leave_each_other_alone(tmp_path: Path) -> None:
    output, both = tmp_path / "build", threading.Barrier(2, timeout=PATIENCE_S)
    errors: list[BaseException] = []

    def run(content: str) -> None:
        try:
            with staged(output, force=True) as folder:
                both.wait()  # each has begun, and cleared what it took for stale
                (folder / "manifest.json").write_text(content)
                both.wait()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(content,)) for content in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE_S)
    assert errors == []
    assert (output / "manifest.json").read_text() in ("one", "two")
    assert names(tmp_path) == ["build"]


def test_builds_within_one_another_leave_each_other_alone(tmp_path: Path) -> None:
    output = tmp_path / "build"
    with staged(output, force=True) as folder:
        (folder / "manifest.json").write_text("first")
        finish(output, "second")
        assert (folder / "manifest.json").read_text() == "first"
    assert (output / "manifest.json").read_text() == "first"
    assert names(tmp_path) == ["build"]


@pytest.mark.parametrize("pid", [1, os.getpid()], ids=["of init", "of this process"])
def test_a_running_build_of_another_container_is_left_alone(tmp_path: Path, pid: int) -> None:
    """In containers pids are few and begin at 1: a pid tells nothing about who is running."""
    output = tmp_path / "build"
    with building(output, pid) as (process, folder):
        finish(output, "mine")
        assert (folder / "manifest.json").read_text() == "of another process"
        assert end(process) == 0
    assert (output / "manifest.json").read_text() == "of another process"
    assert names(tmp_path) == ["build"]


def test_what_a_killed_build_left_is_removed_by_the_next_and_the_rest_is_kept(
    tmp_path: Path,
) -> None:
    output = tmp_path / "build"
    kept = [".other.0123abcd.tmp", ".build.tmp", ".build.x.lock", "build.0123abcd.lock"]
    for name in kept:
        (tmp_path / name).mkdir()
    with building(output, os.getppid()) as (process, folder):
        kill(process)
    assert folder.is_dir()
    finish(output, "new")
    assert names(tmp_path) == sorted([*kept, "build"])


def test_many_builds_at_once_leave_one_whole_build(tmp_path: Path) -> None:
    output = tmp_path / "build"
    with ExitStack() as stack:
        builds = [stack.enter_context(building(output, 7))[0] for _ in range(4)]
        kill(builds[0])
        assert [end(process) for process in builds[1:]] == [0, 0, 0]
    finish(output, "last", force=True)
    assert (output / "manifest.json").read_text() == "last"
    assert names(tmp_path) == ["build"]


def test_a_build_killed_between_the_two_renames_is_restored(tmp_path: Path) -> None:
    output = tmp_path / "build"
    with building(output, 1) as (process, folder):
        finish(output, "old")
        output.rename(folder.with_suffix(".old"))
        kill(process)
    with pytest.raises(BuildError):
        fail(output, BuildError("no"))
    assert (output / "manifest.json").read_text() == "old"
    assert names(tmp_path) == ["build"]


def test_a_full_disk_is_told_with_path_need_and_room(tmp_path: Path) -> None:
    output = tmp_path / "build"

    def fill() -> None:
        with staged(output, force=False, least_bytes=3 << 20), Path("/dev/full").open("w") as file:
            file.write("no room")

    with pytest.raises(
        BuildError,
        match=rf"{output} needs more than 3\.0 MiB and did not fit: the disk of {tmp_path} had "
        r"[\d,.]+ MiB free when it was begun; free some, or choose another --output",
    ):
        fill()
    assert names(tmp_path) == []


def test_what_cannot_fit_is_refused_before_the_work(tmp_path: Path) -> None:
    def begin() -> None:
        with staged(tmp_path / "build", force=False, least_bytes=1 << 60):
            pytest.fail("the work was begun")

    message = r"build needs at least 1,099,511,627,776\.0 MiB, the disk of .* MiB free: free some"
    with pytest.raises(BuildError, match=message):
        begin()
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_disk_that_may_not_be_written_to_is_named(tmp_path: Path, code: int) -> None:
    refused = tmp_path / "build" / "file"
    with pytest.raises(BuildError, match=rf"{refused} cannot be written: .*; choose another"):
        fail(tmp_path / "build", OSError(code, "", str(refused)))


def test_other_errors_of_files_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="/etc/input"):
        fail(tmp_path / "build", OSError(errno.EACCES, "Permission denied", "/etc/input"))


def test_an_output_below_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BuildError, match=r"file is no folder that you may write to; choose"):
        check_output(tmp_path / "file" / "build", force=True)
