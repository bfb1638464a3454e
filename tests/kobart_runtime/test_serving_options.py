"""What a server may change about a build: from the environment, within what its engines can do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from kobart_runtime.errors import ConfigError
from kobart_runtime.host_cpus import HostCpus
from kobart_runtime.model_config import ModelConfig, TokenIds
from kobart_runtime.serving_options import ServingOptions, read_option
from kobart_runtime.settings import Limits
from tests.fakes import ScriptedModel, ScriptedRunner, scripted_config

IDS = TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2, forced_eos=1)
FREE = HostCpus(num_cores=4, num_allowed_cores=4, quota=math.inf)
TIGHT = HostCpus(num_cores=64, num_allowed_cores=8, quota=2.5)
MEBIBYTE = 1 << 20


@pytest.fixture
def config() -> ModelConfig:
    """A build with limits of its own."""
    return scripted_config(
        ScriptedRunner(ScriptedModel(9)), IDS, max_batch_size=16, max_request_seconds=60.0
    )


def test_the_environment_is_read_and_the_rest_left_as_built(config: ModelConfig) -> None:
    options = ServingOptions.from_environment(
        {
            "KOBART_MAX_QUEUE_SIZE": "12",
            "KOBART_MAX_REQUEST_SECONDS": "7.5",
            "KOBART_MAX_CACHE_MIB": "",  # as a compose file leaves what is not set
            "KOBART_THREADS": "3",
            "KOBART_NUM_MODELS": "2",
            "KOBART_ADMIN_KEY": "not ours",
            "PATH": "/bin",
        }
    )
    assert options == ServingOptions(
        max_queue_size=12, max_request_seconds=7.5, threads=3, num_models=2
    )
    assert options.limits_for(config) == replace(
        config.limits, max_queue_size=12, max_request_seconds=7.5
    )
    assert ServingOptions.from_environment({}) == ServingOptions()
    assert ServingOptions().limits_for(config) == config.limits


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("max_queue_size", "0", "a whole number above 0, got '0'"),
        ("max_queue_size", "-3", "a whole number above 0, got '-3'"),
        ("max_batch_size", "2.5", "a whole number above 0, got '2.5'"),
        ("max_cache_mib", "1G", "a whole number above 0, got '1G'"),
        ("max_request_seconds", "soon", "a number above 0, got 'soon'"),
        ("max_request_seconds", "nan", "a number above 0, got 'nan'"),
        ("max_request_seconds", "inf", "a number above 0, got 'inf'"),
        ("threads", "1025", "a whole number above 0 and at most 1024, got '1025'"),
        ("num_models", "two", "a whole number above 0, got 'two'"),
    ],
)
def test_a_value_that_is_none_is_refused_by_name(name: str, text: str, wanted: str) -> None:
    variable = f"KOBART_{name.upper()}"
    with pytest.raises(ConfigError) as caught:
        ServingOptions.from_environment({variable: text})
    assert str(caught.value) == f"{variable} must be {wanted}"


def test_values_at_the_edge_are_taken() -> None:
    assert read_option("threads", "1024", "--threads") == 1024
    assert read_option("max_request_seconds", "0.001", "--max-request-seconds") == 0.001


@pytest.mark.parametrize("variable", ["KOBART_MAX_BEAMS", "KOBART_MAX_QUEUE"])
def test_a_limit_that_cannot_be_changed_or_is_misspelt_is_refused(variable: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable} cannot be set for a server") as caught:
        ServingOptions.from_environment({variable: "4"})
    assert "KOBART_MAX_QUEUE_SIZE, KOBART_MAX_BATCH_SIZE" in str(caught.value)


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript", "tensorrt"])
def test_plans_take_no_larger_batch_than_they_were_built_for(
    config: ModelConfig, runtime: str
) -> None:
    config = replace(config, runtime=runtime)
    for size in (1, 16):
        assert ServingOptions(max_batch_size=size).limits_for(config).max_batch_size == size
    if runtime != "tensorrt":
        assert ServingOptions(max_batch_size=64).limits_for(config).max_batch_size == 64
        return
    with pytest.raises(ConfigError) as caught:
        ServingOptions(max_batch_size=64).limits_for(config)
    assert str(caught.value) == (
        "KOBART_MAX_BATCH_SIZE is 64, the TensorRT plans of this build take up to 16 requests: "
        "lower it, or build with --max-batch-size 64"
    )


def test_threads_are_those_asked_for_else_what_the_container_allows() -> None:
    assert ServingOptions().num_threads(FREE) == 0
    assert ServingOptions().num_threads(TIGHT) == 2
    assert ServingOptions(threads=6).num_threads(TIGHT) == 6


@pytest.mark.parametrize(
    ("options", "built", "cpus", "told"),
    [
        (
            ServingOptions(),
            {},
            FREE,
            "max_batch_size 16, max_queue_size 256, max_request_seconds 60, max_input_bytes "
            "524288, max_cache_mib 300 (half of the free memory), threads 4 (one per physical "
            "core)",
        ),
        (
            ServingOptions(max_queue_size=9, max_batch_size=16, num_models=2),
            {},
            TIGHT,
            "max_batch_size 16, max_queue_size 9 (build: 256), max_request_seconds 60, "
            "max_input_bytes 524288, max_cache_mib 300 (half of the free memory, shared by 2 "
            "models), threads 2 (8 of 64 cores allowed, a quota of 2.5 CPUs)",
        ),
        (
            ServingOptions(max_cache_mib=300, threads=6, max_request_seconds=0.5),
            {"max_cache_mib": 100},
            replace(TIGHT, quota=math.inf),
            "max_batch_size 16, max_queue_size 256, max_request_seconds 0.5 (build: 60), "
            "max_input_bytes 524288, max_cache_mib 300 (build: 100), threads 6 (as asked for)",
        ),
        (
            ServingOptions(max_input_bytes=1048576),
            {"max_cache_mib": 300},
            replace(TIGHT, quota=math.inf),
            "max_batch_size 16, max_queue_size 256, max_request_seconds 60, max_input_bytes "
            "1048576 (build: 524288), max_cache_mib 300 (as built), threads 8 (8 of 64 cores "
            "allowed)",
        ),
    ],
)
def test_the_line_of_the_log(
    config: ModelConfig,
    options: ServingOptions,
    built: dict[str, int],
    cpus: HostCpus,
    told: str,
) -> None:
    config = replace(config, limits=Limits(**{**vars(config.limits), **built}))
    assert options.describe(config, cpus, 300 * MEBIBYTE) == told


def test_plans_have_no_cpu_threads(config: ModelConfig) -> None:
    told = ServingOptions().describe(replace(config, runtime="tensorrt"), FREE, MEBIBYTE)
    assert told.endswith("max_cache_mib 1 (half of the free memory)")
