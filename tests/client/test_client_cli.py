"""`kobart-summarize` as a process of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shlex
import signal
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from server.supervisor import TritonServer, free_ports
from tests.conftest import REPOSITORY, STRICT_PYTHON
from tests.kobart_documents.files import write_rows
from tests.patience import PATIENCE_S, before_patience_ends

COMMAND = [*STRICT_PYTHON, "-m", "client.cli"]
# Says when it is about to read standard input.
STARTED_CLI = """
import io, sys
from client import cli

class Input(io.BytesIO):
    def read(self, *_):
        print("reading", flush=True)
        return raw.read()

raw = sys.stdin.buffer
sys.stdin = io.TextIOWrapper(Input())
sys.exit(cli.main())
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


def run_cli(
    *args: str | Path, stdin: str | bytes = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, args)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
    )
    output, errors = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in errors
    return subprocess.CompletedProcess(done.args, done.returncode, output, errors)


def spawn(*command: str, stdin: int | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY
    )


@pytest.fixture
def run(triton: TritonServer) -> Run:
    return lambda *args, **options: run_cli("--url", triton.grpc_url, *args, **options)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.mark.triton
@pytest.mark.parametrize("flags", [(), ("--stream",), ("-",)])
def test_standard_input(run: Run, flags: tuple[str, ...]) -> None:
    done = run(*flags, stdin="echo 안녕 하세요\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "안녕 하세요\n", "")


@pytest.mark.triton
def test_files_are_named_and_in_order(run: Run, write: Callable[[str, str], Path]) -> None:
    slow, fast = write("느린.txt", "sleep 0.4 first\n"), write("b.txt", "\ufeffecho second\r\n")
    done = run(slow, fast, PYTHONIOENCODING="ascii")
    assert done.stdout == f"==> {slow} <==\nfirst\n\n==> {fast} <==\nsecond\n"
    assert done.stderr == ""  # no progress bar: this is no terminal


@pytest.mark.triton
def test_json_lines(run: Run, write: Callable[[str, str], Path]) -> None:
    paths = [write(f"{i}.txt", f"echo 문서 {i}") for i in range(3)]
    done = run("--json", "--concurrency", "2", *paths)
    assert "문서" in done.stdout
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {
            "file": str(path),
            "text": f"문서 {i}",
            "finish_reason": "stop",
            "num_input_tokens": 100,
            "num_output_tokens": 2,
            "truncated": False,
            "output_ids": [2, 1],
        }
        for i, path in enumerate(paths)
    ]


@pytest.mark.triton
def test_streamed_files(run: Run, write: Callable[[str, str], Path]) -> None:
    first, second = write("1.txt", "echo a b"), write("2.txt", "late c")
    done = run("--stream", first, second)
    assert done.stdout == f"==> {first} <==\na b\n\n==> {second} <==\nc\n"


@pytest.mark.triton
def test_generation_flags(run: Run) -> None:
    done = run("--num-beams=2", "--length-penalty=2", "--no-early-stopping", stdin="settings")
    seen = json.loads(done.stdout)
    seen.pop("timeout_us")
    assert seen == {"num_beams": 2, "length_penalty": 2.0, "early_stopping": False}


@pytest.mark.triton
def test_one_bad_document_does_not_stop_the_others(
    run: Run, write: Callable[[str, str], Path]
) -> None:
    bad, good = write("bad.txt", "fail INVALID_ARGUMENT too long"), write("good.txt", "echo a")
    done = run(bad, good)
    assert done.returncode == 1
    assert done.stdout == f"==> {good} <==\na\n"
    assert done.stderr == f"error: INVALID_ARGUMENT: {bad}: too long\n"


@pytest.mark.triton
def test_errors_have_a_code_and_no_traceback(run: Run) -> None:
    done = run("--timeout-s", "0.3", stdin="hang")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: DEADLINE_EXCEEDED: no summary within 0.3 s")
    done = run("--model", "nix", stdin="echo a")
    assert done.stderr.startswith("error: UNAVAILABLE: model 'nix' is not loaded")


@pytest.mark.triton
def test_ctrl_c_cancels(
    triton: TritonServer,
    write: Callable[[str, str], Path],
    count: Callable[[str], int],
    wait_for_count: Callable[[str, int], None],
) -> None:
    before = count("cancelled")
    command = [*COMMAND, "--url", triton.grpc_url, "--stream", str(write("1.txt", "hang"))]
    with spawn(*command) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"first"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, output, errors) == (130, b"\n", b"")
    wait_for_count("cancelled", before + 1)


@pytest.mark.triton
def test_summaries_come_in_order_and_ctrl_c_keeps_what_was_answered(
    triton: TritonServer,
    write: Callable[[str, str], Path],
    count: Callable[[str], int],
    wait_for_count: Callable[[str, int], None],
) -> None:
    """One of two workers hangs in the second document, the other reaches the last one."""
    before = count("hanging"), count("cancelled")
    texts = ["echo a", "hang", "echo b", "echo c", "hang", "echo d"]
    paths = [str(write(f"{i}.txt", text)) for i, text in enumerate(texts)]
    with spawn(*COMMAND, "--url", triton.grpc_url, "--concurrency", "2", *paths) as process:
        assert process.stdout is not None
        first = f"==> {paths[0]} <==\na\n".encode()
        assert process.stdout.read(len(first)) == first
        wait_for_count("hanging", before[0] + 2)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert output.decode() == f"\n==> {paths[2]} <==\nb\n\n==> {paths[3]} <==\nc\n"
    assert errors.decode() == "interrupted: 3 of 6 documents were summarised\n"
    wait_for_count("cancelled", before[1] + 2)


@pytest.mark.triton
def test_ctrl_c_says_how_many_streamed_documents_are_whole(
    triton: TritonServer, write: Callable[[str, str], Path]
) -> None:
    paths = [str(write(f"{i}.txt", text)) for i, text in enumerate(("echo a", "hang", "echo b"))]
    with spawn(*COMMAND, "--url", triton.grpc_url, "--stream", *paths) as process:
        assert process.stdout is not None
        begun = f"==> {paths[0]} <==\na\n\n==> {paths[1]} <==\nfirst".encode()
        assert process.stdout.read(len(begun)) == begun
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, output) == (130, b"\n")
    assert errors == b"interrupted: 1 of 3 documents were summarised\n"


def test_ctrl_c_while_standard_input_is_typed() -> None:
    url = f"127.0.0.1:{free_ports(1)[0]}"
    reader, writer = os.pipe()
    command = [*COMMAND[:-2], "-c", STARTED_CLI, "--url", url]
    with spawn(*command, stdin=reader) as process:
        os.close(reader)
        assert process.stdout is not None
        assert process.stdout.readline() == b"reading\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE_S)
    os.close(writer)
    assert (process.returncode, output, errors) == (130, b"", b"")


@pytest.mark.triton
def test_rows_of_a_table(run: Run, tmp_path: Path) -> None:
    """Every row is a document of its own, named by its number; blank ones are told once."""
    path = tmp_path / "대화.csv"
    path.write_bytes(
        '\ufeffid,dialogue\r\n1,"sleep 0.3 가\r\n나"\r\n2,\r\n3,echo 다\r\n'
        "4,fail INVALID_ARGUMENT 라\r\n5,echo 마".encode()
    )
    done = run(path)
    assert done.returncode == 1
    assert (
        done.stdout == f"==> {path}:1 <==\n가\n나\n\n==> {path}:3 <==\n다\n\n==> {path}:5 <==\n마\n"
    )
    assert done.stderr.splitlines() == [
        f"note: {path}: 1 of 5 rows have a blank dialogue and are left out",
        f"error: INVALID_ARGUMENT: {path}:4: 라",
    ]
    streamed = run("--stream", path)
    assert (streamed.returncode, streamed.stderr) == (1, done.stderr)
    assert f"==> {path}:5 <==\n마\n" in streamed.stdout


@pytest.mark.triton
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_column_of_any_format(run: Run, tmp_path: Path, suffix: str) -> None:
    rows = [{"n": str(i), "기사": f"echo 문서 {i}"} for i in range(600)]
    path = write_rows(tmp_path / f"기사.{suffix}", rows)
    done = run("--text-column", "기사", "--json", path)
    assert (done.returncode, done.stderr) == (0, "")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["file"], each["text"]) for each in found] == [
        (f"{path}:{i + 1}", f"문서 {i}") for i in range(600)
    ]


@pytest.mark.triton
def test_another_encoding(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "대화.csv"
    path.write_bytes("dialogue\r\necho 안녕\r\n".encode("cp949"))
    refused = run(path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"error: INVALID_ARGUMENT: {path} is not UTF-8 (byte 15) on line 2: it can be read with "
        "--encoding cp949\n"
    )
    done = run("--encoding", "cp949", path)
    assert (done.returncode, done.stdout) == (0, f"==> {path}:1 <==\n안녕\n")


@pytest.mark.triton
def test_files_that_cannot_be_read_do_not_stop_the_others(
    run: Run, write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    missing, broken = tmp_path / "missing.txt", write("broken.csv", 'text\n"a\n')
    first, last = write("1.txt", "echo a"), write("2.csv", "text\necho b\n")
    for flags in ((), ("--stream",)):
        done = run(*flags, first, missing, broken, last)
        assert done.returncode == 1
        assert done.stdout == f"==> {first} <==\na\n\n==> {last}:1 <==\nb\n"
        broken_line, missing_line = done.stderr.splitlines()
        assert f"{missing} cannot be read: No such file or directory" in missing_line
        assert f"{broken}, line 2: the record that begins here is malformed" in broken_line


@pytest.mark.triton
@pytest.mark.parametrize("flags", [(), ("--json",), ("--stream",)])
def test_a_truncated_document_is_told(
    run: Run, write: Callable[[str, str], Path], flags: tuple[str, ...]
) -> None:
    short, long = write("1.txt", "echo a"), write("2.txt", "long b")
    done = run(*flags, short, long)
    assert done.returncode == 0
    assert done.stderr == (
        f"note: {long} is longer than the build's limit of 100 tokens: the summary is of its first "
        "100 alone\n"
    )
    assert done.stdout.count("\n") == (2 if flags == ("--json",) else 5)
    alone = run(*flags, long)
    assert alone.stderr == done.stderr


@pytest.mark.triton
def test_a_reader_that_goes_away(triton: TritonServer, write: Callable[[str, str], Path]) -> None:
    paths = [write(f"{i}.txt", "echo " + "word " * 20_000) for i in range(3)]
    line = f"{shlex.join(COMMAND)} --url {triton.grpc_url} {' '.join(map(str, paths))} | head -c 10"
    done = subprocess.run(line, shell=True, capture_output=True, cwd=REPOSITORY)
    assert len(done.stdout) == 10
    assert done.stderr == b""


@pytest.mark.triton
def test_progress_bar_on_a_terminal(
    triton: TritonServer, write: Callable[[str, str], Path]
) -> None:
    paths = [str(write(f"{i}.txt", "echo a")) for i in range(3)]
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    try:
        subprocess.run(
            [*COMMAND, "--url", triton.grpc_url, *paths],
            stdout=subprocess.DEVNULL,
            stderr=terminal,
            cwd=REPOSITORY,
            check=True,
        )
        seen = b""
        while b"3/3" not in seen:  # a bar that never comes is ended by the test's timeout
            seen += os.read(reader, 65536)
    finally:
        os.close(reader)
        os.close(terminal)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing, korean = tmp_path / "missing.txt", tmp_path / "cp949.txt"
    korean.write_bytes("안녕".encode("cp949"))
    url = f"127.0.0.1:{free_ports(1)[0]}"
    remedy = "is not UTF-8 (byte 0) on line 1: it can be read with --encoding cp949"
    for path, reason in ((missing, "cannot be read: No such file"), (korean, remedy)):
        done = run_cli("--url", url, path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: INVALID_ARGUMENT: {path} {reason}")
    done = run_cli("--url", url, stdin=b"\xff")
    assert done.stderr.startswith("error: INVALID_ARGUMENT: - is not UTF-8 (byte 0)")


def test_a_server_that_is_not_there_is_one_error(write: Callable[[str, str], Path]) -> None:
    paths = [write(f"{i}.txt", "echo a") for i in range(20)]
    url = f"127.0.0.1:{free_ports(1)[0]}"
    with before_patience_ends():
        done = run_cli("--url", url, "--timeout-s", str(PATIENCE_S), *paths)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: UNAVAILABLE: no Triton gRPC server answers at {url}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num-beams", "four"), "argument --num-beams: invalid int value: 'four'"),
        (("--concurrency", "0"), "argument --concurrency: must be at least 1, got 0"),
        (("--timeout-s", "0"), "timeout_s must be above 0"),
        (("--url", "http://localhost:8001"), "url must be HOST:PORT"),
        (("--stream", "--json"), "not allowed with argument"),
        (("--beams", "4"), "unrecognized arguments: --beams"),
    ],
)
def test_usage_errors(flags: tuple[str, ...], message: str) -> None:
    done = run_cli(*flags)
    assert done.returncode == 2
    assert message in done.stderr


def test_help_teaches() -> None:
    done = run_cli("--help")
    assert done.returncode == 0
    assert "localhost:8001" in done.stdout
    assert "kobart-serve" in done.stdout
