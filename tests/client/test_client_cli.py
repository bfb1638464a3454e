"""`kobart-summarize` as a process of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.supervisor import TritonServer, free_ports

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "client.cli"]
Run = Callable[..., subprocess.CompletedProcess[str]]


def run_cli(
    *args: str | Path, stdin: str | bytes = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, args)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=30,
    )
    output, errors = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in errors
    return subprocess.CompletedProcess(done.args, done.returncode, output, errors)


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
    with subprocess.Popen(
        [*COMMAND, "--url", triton.grpc_url, "--stream", str(write("1.txt", "hang"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"first"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, output, errors) == (130, b"\n", b"")
    wait_for_count("cancelled", before + 1)


@pytest.mark.triton
def test_a_reader_that_goes_away(triton: TritonServer, write: Callable[[str, str], Path]) -> None:
    paths = [write(f"{i}.txt", "echo " + "word " * 20_000) for i in range(3)]
    line = f"{' '.join(COMMAND)} --url {triton.grpc_url} {' '.join(map(str, paths))} | head -c 10"
    done = subprocess.run(line, shell=True, capture_output=True, cwd=ROOT, timeout=30)
    assert len(done.stdout) == 10
    assert done.stderr == b""


@pytest.mark.triton
@pytest.mark.timeout(30)
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
            cwd=ROOT,
            timeout=30,
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
    for path, reason in ((missing, "cannot be read: No such file"), (korean, "is not UTF-8")):
        done = run_cli("--url", url, path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: INVALID_ARGUMENT: {path} {reason}")
    done = run_cli("--url", url, stdin=b"\xff")
    assert done.stderr.startswith("error: INVALID_ARGUMENT: - is not UTF-8 (byte 0)")


def test_a_server_that_is_not_there_is_one_error(write: Callable[[str, str], Path]) -> None:
    paths = [write(f"{i}.txt", "echo a") for i in range(20)]
    url = f"127.0.0.1:{free_ports(1)[0]}"
    started = time.monotonic()
    done = run_cli("--url", url, *paths)
    assert time.monotonic() - started < 5
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
