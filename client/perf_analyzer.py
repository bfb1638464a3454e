"""A perf_analyzer that runs, without root.

The binary comes with the `tritonclient` wheel (or stands on PATH) and links two libraries that
few machines have: libcudart.so.12, which a wheel brings, and libb64.so.0d, which nvidia-pytriton
carries under a name that the linker does not look for.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from kobart_runtime.errors import ConfigError, KobartError

_BINARY = "perf_analyzer"
_CUDART = "libcudart.so.12"
_B64 = "libb64.so.0d"
_PLACEHOLDER = ("perf-analyzer", "0.1.0")  # on PyPI; holds no program
_IN_SDK_CONTAINER = Path("/workspace/install/bin") / _BINARY  # of older Triton SDK images
_SHARED_MEMORY = Path("/dev/shm")
_PROBE_TIMEOUT_S = 30.0
_POLL_S = 0.25
_BLAME = re.compile(r"error|fail|invalid|unrecognized", re.IGNORECASE)
_REMEDY = "pip install 'tritonclient[all]==2.51.0' nvidia-cuda-runtime-cu12 'kobart-triton[serve]'"


class PerfAnalyzerError(KobartError):
    """perf_analyzer refused its arguments, failed, or took too long."""


@dataclass(frozen=True, kw_only=True)
class PerfAnalyzer:
    """A perf_analyzer that has been seen to run."""

    path: Path
    env: Mapping[str, str]  # of its process
    version: str

    def command(self, args: Sequence[str]) -> list[str]:
        """The command line for some arguments; needs `env` to run."""
        return [str(self.path), *args]

    def run(
        self,
        args: Sequence[str],
        timeout_s: float,
        check: Callable[[], None] = lambda: None,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end and capture the output.

        Args:
            args: Its arguments.
            timeout_s: How long it may take.
            check: Called a few times a second; what it raises ends the run. perf_analyzer waits
                for ever for the answers of a server that died.

        With `--shared-memory` it runs alone: others of this user wait for its end.

        Raises:
            PerfAnalyzerError: It ended with an error, or not within `timeout_s`.
        """
        shares_memory = any(each.startswith("--shared-memory") for each in args)
        with _alone() if shares_memory else nullcontext():
            done = _run(self.command(args), self.env, timeout_s, check)
        if done.returncode != 0:
            raise PerfAnalyzerError(
                f"{_BINARY} ended with status {done.returncode}: {_last_words(done)}"
            )
        return done


def find_perf_analyzer() -> PerfAnalyzer:
    """The perf_analyzer on PATH, else that of the tritonclient wheel, else an SDK container's.

    Raises:
        ConfigError: There is none, or none runs; says why and what to install.
    """
    failures = []
    for path in _binaries():
        try:
            return _probe(path)
        except (PerfAnalyzerError, OSError) as error:
            failures.append(f"{path}: {error}")
    raise ConfigError(f"no {_BINARY} that runs ({_why(failures)}): {_REMEDY}")


def _probe(path: Path) -> PerfAnalyzer:
    """Ask a binary for its version, which also shows that its libraries are found."""
    env = {**os.environ, "LD_LIBRARY_PATH": _library_path()}
    unproven = PerfAnalyzer(path=path, env=env, version="")
    done = unproven.run(["--version"], _PROBE_TIMEOUT_S)
    found = re.search(r"Version (\S+)", done.stdout + done.stderr)
    if not found:
        raise PerfAnalyzerError(f"--version says {_last_words(done)!r}")
    return replace(unproven, version=found[1])


def _binaries() -> Iterator[Path]:
    which = shutil.which(_BINARY)
    on_path = Path(which).resolve() if which else None
    if on_path:
        yield on_path
    in_wheel = _file_of("tritonclient", _BINARY)
    if in_wheel and in_wheel != on_path:
        yield in_wheel
    if _IN_SDK_CONTAINER.is_file():
        yield _IN_SDK_CONTAINER


def _library_path() -> str:
    """A search path with the libraries that the system lacks."""
    folders = [os.environ.get("LD_LIBRARY_PATH", "")]
    cudart = _file_of("nvidia-cuda-runtime-cu12", _CUDART)
    if cudart and not _system_has(_CUDART):
        folders.append(str(cudart.parent))
    b64 = _file_of("nvidia-pytriton", "libb64-*.so.0d")
    if b64 and not _system_has(_B64):
        folders.append(str(_linked(b64, _B64)))
    return os.pathsep.join(filter(None, folders))


def _system_has(library: str) -> bool:
    """Whether a new process finds it: this one may have it from elsewhere, as from torch."""
    load = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    command = [sys.executable, "-IS", "-c", load, library]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _linked(library: Path, name: str) -> Path:
    """A folder of the cache with a link of that name to a library.

    The folder is named after the file, whose name holds a hash of its content.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "kobart-triton" / library.name
    link = folder / name
    if link.is_file() and link.samefile(library):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staged = folder / f"{name}.{os.getpid()}"
        staged.symlink_to(library)
        staged.replace(link)
    except OSError as error:
        raise ConfigError(
            f"{link} cannot be made ({error}): set XDG_CACHE_HOME to a writable folder"
        ) from error
    return folder


def _file_of(package: str, pattern: str) -> Path | None:
    """An installed package's file whose name matches, if both exist."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())).resolve() for file in files if fnmatch(file.name, pattern))
    return next((path for path in found if path.is_file()), None)


def _why(failures: list[str]) -> str:
    name, version = _PLACEHOLDER
    try:
        if importlib.metadata.version(name) == version:
            failures = [*failures, f"the package {name} {version} is an empty placeholder"]
    except importlib.metadata.PackageNotFoundError:
        pass
    return "; ".join(failures) or "none is on PATH or in the tritonclient package"


def _run(
    command: list[str], env: Mapping[str, str], timeout_s: float, check: Callable[[], None]
) -> subprocess.CompletedProcess[str]:
    deadline_s = time.monotonic() + timeout_s
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            while True:
                try:
                    output, errors = process.communicate(timeout=_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    check()
                    if time.monotonic() > deadline_s:
                        raise PerfAnalyzerError(
                            f"{_BINARY} did not end within {timeout_s:g} s"
                        ) from None
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


@contextmanager
def _alone() -> Iterator[None]:
    """perf_analyzer names its files in /dev/shm after tensors: two at once take each other's."""
    with (_SHARED_MEMORY / f"kobart-perf-analyzer-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets go of it, however this process ends
        yield


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """The line that says what went wrong; a refused argument is followed by pages of help."""
    lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
    return next((line for line in lines if _BLAME.search(line)), lines[-1])


def main() -> int:
    """`python -m client.perf_analyzer ARGS`: perf_analyzer itself, with the libraries it needs."""
    try:
        found = find_perf_analyzer()
    except KobartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return subprocess.call(found.command(sys.argv[1:]), env=dict(found.env))


if __name__ == "__main__":
    sys.exit(main())
