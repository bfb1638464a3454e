"""The command line of tritonserver, and why each flag is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from server.admin_key import GUARDED_APIS, KEY_HEADER, AdminKey
from server.endpoints import Endpoints
from server.installation import Installation


def server_command(
    installation: Installation,
    *,
    repositories: Sequence[Path],
    models: Sequence[str],
    endpoints: Endpoints,
    exit_timeout_s: float,
    key: AdminKey,
    shared_memory_prefix: str,
) -> list[str]:
    """Compose the command.

    Args:
        installation: The server to start.
        repositories: The builds' folders, under plain names: Triton passes them to a shell.
        models: Names of the models to load.
        endpoints: Where to listen.
        exit_timeout_s: How long Triton itself waits for requests when it is told to stop.
        key: What the guarded APIs want in a header. Other users of this machine can read it in
            the list of processes: Triton takes it in no other way.
        shared_memory_prefix: Of the files in /dev/shm that python models use.
    """
    command = [
        str(installation.binary),
        *(f"--model-repository={repository}" for repository in repositories),
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        # The index then has the model's own reason, which an exiting server only logs.
        "--exit-on-error=false",
        # Builds are complete; completing their configs runs each model's process twice (1.2 s).
        "--disable-auto-complete-config",
        f"--http-address={endpoints.host}",
        f"--grpc-address={endpoints.host}",
        f"--metrics-address={endpoints.host}",
        *(f"{option}={port}" for option, port in endpoints.ports.items()),
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix}",
        f"--exit-timeout-secs={math.ceil(exit_timeout_s)}",
    ]
    if installation.backends:
        command.append(f"--backend-directory={installation.backends}")
    guarded = f"{','.join(GUARDED_APIS)}:{KEY_HEADER}={key.value}"
    command.append(f"--http-restricted-api={guarded}")
    command.append(f"--grpc-restricted-protocol={guarded}")
    return command
