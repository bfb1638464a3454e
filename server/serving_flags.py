"""The flags of kobart-serve that change a build's limits: they become variables of the server."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields

from kobart_runtime.errors import BuildError, ConfigError
from kobart_runtime.serving_options import ServingOptions, read_option, variable_of
from server.build_folder import BuildFolders

_NUM_MODELS = "num_models"  # known here: it has a variable and no flag
_RUNTIME_FILE = "kobart_runtime/serving_options.py"
_DESCRIPTION = """\
Change what the builds say, without another build, for every build of this server. Each flag has an
environment variable, as KOBART_MAX_QUEUE_SIZE, that any tritonserver running a build reads; a flag
wins over its variable. The log says at the load which values are in force.
"""


def add_serving_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each option of `kobart_runtime.serving_options`."""
    group = parser.add_argument_group("limits and threads", _DESCRIPTION)
    for option in fields(ServingOptions):
        if option.name == _NUM_MODELS:
            continue
        group.add_argument(
            f"--{option.name.replace('_', '-')}",
            action=_ServingFlag,
            metavar=option.metadata["metavar"],
            help=option.metadata["help"],
        )


def given_environment(options: argparse.Namespace) -> dict[str, str]:
    """The variables of the flags that were given."""
    return {
        variable_of(option.name): str(value)
        for option in fields(ServingOptions)
        if (value := getattr(options, option.name, None)) is not None
    }


def require_serving_options(builds: BuildFolders) -> None:
    """Refuse builds whose runtime would ignore the flags.

    Raises:
        BuildError: A build was made before there were such options.
    """
    for build in builds.builds:
        if not (build.path / build.front_model / "1" / _RUNTIME_FILE).is_file():
            raise BuildError(
                f"{build.path} was built before limits and threads could be changed for a server: "
                "build again, or leave these flags out"
            )


def server_environment(
    inherited: Mapping[str, str],
    given: Mapping[str, str],
    builds: BuildFolders,
    models: tuple[str, ...],
) -> dict[str, str]:
    """The environment of a server.

    Args:
        inherited: What it has without flags.
        given: See `given_environment`.
        builds: The server's.
        models: Those that it loads. The front models among them share the free memory, unless the
            environment says among how many it is shared.
    """
    num_models = sum(build.front_model in models for build in builds.builds)
    return {variable_of(_NUM_MODELS): str(max(1, num_models)), **inherited, **given}


class _ServingFlag(argparse.Action):
    """Takes a number that the option may have."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        try:
            value = read_option(self.dest, str(values), option_string or self.dest)
        except ConfigError as error:
            parser.error(str(error))
        setattr(namespace, self.dest, value)
