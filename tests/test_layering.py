"""Who may import whom, read from the source, and the runtime without a builder's packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = (
    "benchmarks",
    "builders",
    "calibration",
    "client",
    "kobart_documents",
    "kobart_runtime",
    "server",
    "training",
)
SOURCES = (*PACKAGES, "model_repository", "examples")

# Package -> packages of ours that it must not import.
FORBIDDEN = {
    "kobart_runtime": {*PACKAGES} - {"kobart_runtime"},
    "kobart_documents": {*PACKAGES} - {"kobart_documents", "kobart_runtime"},
    "builders": {"benchmarks", "client"},
    "calibration": {"benchmarks", "client"},
    "client": {"benchmarks", "builders", "calibration", "server", "training"},
    "server": {*PACKAGES} - {"kobart_runtime", "server"},
    "model_repository": {*PACKAGES} - {"kobart_runtime"},
}
# Modules of the runtime that a client or a server supervisor may use.
LIGHT_MODULES = {
    "bindings",
    "control_groups",
    "errors",
    "host_cpus",
    "model_config",
    "newlines",
    "required_packages",
    "serving_options",
    "settings",
}
# The one file of the runtime that may hold a library that few builds need.
HOLDERS = {
    "torch": {"kobart_runtime/torchscript_runner.py"},
    "openvino": {"kobart_runtime/openvino_encoder.py"},
}


def python_files(folder: str) -> list[Path]:
    return sorted((REPOSITORY / folder).rglob("*.py"))


def imported_modules(path: Path) -> Iterator[str]:
    """Full names of all that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(path)}


def runtime_modules(path: Path) -> set[str]:
    """Modules of kobart_runtime that a file imports."""
    names = [name.split(".") for name in imported_modules(path)]
    return {name[1] for name in names if name[0] == "kobart_runtime" and len(name) > 1}


def importers(folder: str, package: str) -> set[str]:
    """Files below a folder that import a package, relative to the repository."""
    return {
        path.relative_to(REPOSITORY).as_posix()
        for path in python_files(folder)
        if package in imported_packages(path)
    }


def test_the_walk_sees_imports() -> None:
    """A walk that found nothing would prove anything."""
    assert "numpy" in imported_packages(REPOSITORY / "kobart_runtime" / "beam_search.py")
    assert importers("builders", "transformers")
    assert importers("model_repository", "kobart_runtime")


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_layers(folder: str) -> None:
    for package in FORBIDDEN[folder]:
        assert importers(folder, package) == set(), f"{folder} must not import {package}"


@pytest.mark.parametrize("package", [*HOLDERS, "transformers", "onnx", "tritonclient"])
def test_the_runtime_needs_no_package_of_the_builder(package: str) -> None:
    assert importers("kobart_runtime", package) == HOLDERS.get(package, set())


def test_light_modules_need_the_standard_library_alone() -> None:
    for module in LIGHT_MODULES:
        path = REPOSITORY / "kobart_runtime" / f"{module}.py"
        assert imported_packages(path) <= {*sys.stdlib_module_names, "kobart_runtime"}
        assert runtime_modules(path) <= LIGHT_MODULES


def test_documents_need_the_standard_library_alone_and_pyarrow_for_parquet() -> None:
    for path in python_files("kobart_documents"):
        own = {*sys.stdlib_module_names, "kobart_documents", "kobart_runtime"}
        assert imported_packages(path) - own <= {"pyarrow"}, path
    assert importers("kobart_documents", "pyarrow") == {"kobart_documents/parquet.py"}


@pytest.mark.parametrize("folder", ["client", "kobart_documents", "server"])
def test_client_and_server_take_light_modules_alone(folder: str) -> None:
    for path in python_files(folder):
        assert runtime_modules(path) <= LIGHT_MODULES, path


@pytest.mark.parametrize("folder", ["client", "server"])
@pytest.mark.parametrize("package", ["torch", "transformers", "onnx", "onnxruntime", "tensorrt"])
def test_client_and_server_need_no_engine(folder: str, package: str) -> None:
    assert importers(folder, package) == set()


def test_tensorrt_is_imported_by_one_file_on_each_side() -> None:
    found = {folder: importers(folder, "tensorrt") for folder in SOURCES}
    for folder in ("kobart_runtime", "builders"):
        assert len(found.pop(folder)) <= 1
    assert not any(found.values()), found


def test_tritons_python_backend_is_imported_by_models_alone() -> None:
    files = set().union(*(importers(folder, "triton_python_backend_utils") for folder in SOURCES))
    assert files
    assert {Path(file).name for file in files} == {"model.py"}


def test_memory_is_measured_in_one_way() -> None:
    """`resource.getrusage` counts what a process's parent had: `host_memory.own_peak_bytes`."""
    assert not set().union(*(importers(folder, "resource") for folder in SOURCES))


def test_every_package_is_looked_at() -> None:
    """A new package must be named here before it can be forgotten."""
    found = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")}
    assert found <= set(PACKAGES)


def test_the_runtime_imports_without_the_builders_packages() -> None:
    """In a process of its own, as on a server that has only the few wheels."""
    modules = [f"kobart_runtime.{path.stem}" for path in python_files("kobart_runtime")]
    engines = {"kobart_runtime.tensorrt_runner", "kobart_runtime.torchscript_runner"}
    program = f"""
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"torch", "transformers", "onnx", "tritonclient", "builders"}}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocker())
for name in {sorted({*modules} - engines - {"kobart_runtime.__init__"})!r}:
    importlib.import_module(name)
print(sys.modules["kobart_runtime.service"].SummarizationService.__name__)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "SummarizationService"
