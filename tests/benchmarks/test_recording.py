"""What is measured is kept, however a run ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.recording import Content, record
from client.report.document import COMPLETE, PARTIAL, Text, read_report
from kobart_runtime.errors import KobartError
from tests.client.report.example import TABLE


class Scripted:
    """A benchmark that measures one table, or none, and then ends as it is told."""

    command = "kobart-bench scripted"
    title = Text("Scripted", "각본")
    subject = {"build": "none"}  # noqa: RUF012
    settings = {"repeats": "1"}  # noqa: RUF012

    def __init__(self, end: BaseException | None = None, *, has_content: bool = True) -> None:
        self._end = end
        self._has_content = has_content

    def measure(self) -> None:
        if self._end is not None:
            raise self._end

    def content(self) -> Content | None:
        return Content(tables=(TABLE,)) if self._has_content else None


@pytest.mark.parametrize(
    ("end", "code", "status", "reason"),
    [
        (None, 0, COMPLETE, ""),
        (KobartError("the server died"), 1, PARTIAL, "the server died"),
        (KeyboardInterrupt(), 130, PARTIAL, "interrupted"),
    ],
)
def test_the_report_says_how_the_run_ended(
    end: BaseException | None, code: int, status: str, reason: str, tmp_path: Path
) -> None:
    assert record(lambda: Scripted(end), tmp_path / "out") == code
    report = read_report(tmp_path / "out" / "report.json")
    assert (report.status, report.reason) == (status, reason)
    assert report.tables == (TABLE,)


@pytest.mark.parametrize("is_quick", [True, False])
def test_a_quick_run_is_told_from_a_whole_one(
    is_quick: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record(Scripted, tmp_path / "out", is_quick=is_quick) == 0
    assert read_report(tmp_path / "out" / "report.json").is_quick == is_quick
    assert ("--quick" in capsys.readouterr().out) == is_quick


@pytest.mark.parametrize("end", [None, KobartError("no server")])
def test_nothing_measured_is_an_error_without_a_report(
    end: KobartError | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record(lambda: Scripted(end, has_content=False), tmp_path / "out") == 1
    assert capsys.readouterr().err == f"error: {end or 'nothing was measured'}\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_an_unwritable_output_is_found_before_the_benchmark_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")

    def never() -> Scripted:
        raise AssertionError("the benchmark was made")

    assert record(never, tmp_path / "file" / "out") == 1
    assert "cannot be written" in capsys.readouterr().err
