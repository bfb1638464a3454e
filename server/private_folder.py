"""A folder of this server alone, with a plain name for each build and the random admin key.

Triton hands the repository's path to `bash -c` unquoted: blanks and brackets break it, and shell
syntax in a folder's name would be run. It is given links with plain names instead.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kobart_runtime.errors import ConfigError

PREFIX = "kobart-serve-"
_PLAIN = re.compile(r"[A-Za-z0-9._/-]+")
_PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # where the user's own has no plain name


class PrivateFolder:
    """Made with mode 0700; `remove` it, or let the guardian."""

    def __init__(self) -> None:
        """Make the folder.

        Raises:
            ConfigError: No folder for temporary files can be written.
        """
        own = tempfile.gettempdir()
        error: OSError | None = None
        for place in [own, *_PLACES] if _PLAIN.fullmatch(own) else _PLACES:
            try:
                self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
                return
            except OSError as reason:
                error = reason
        raise ConfigError(
            f"no folder for temporary files can be written ({error}): set TMPDIR to one that can, "
            "whose name has only letters, digits and . _ -"
        )

    @property
    def key_file(self) -> Path:
        """Where a random admin key is kept."""
        return self.path / "admin-key"

    def link(self, builds: Sequence[Path]) -> list[Path]:
        """A link to each build, with a plain name, in their order."""
        links = [self.path / f"build{index}" for index in range(len(builds))]
        for link, build in zip(links, builds, strict=True):
            link.symlink_to(build)
        return links

    def remove(self) -> None:
        """Remove the folder and its links; the builds stay."""
        shutil.rmtree(self.path, ignore_errors=True)
