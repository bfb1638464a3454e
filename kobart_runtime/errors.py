"""Every error of this project, and the status code each one gives a caller.

KobartError
├── ConfigError              a setting of ours is wrong
│   └── DocumentError            a file of documents is not what it should be
├── CheckpointError          a checkpoint cannot be served as it is
├── BuildError               a build failed or is not what it says it is
├── EngineError              an engine refused its inputs or failed to run
├── SlotStateError           a slot was used out of turn (a defect of ours)
└── RequestError             one request cannot be answered
    ├── InvalidArgumentError     a field of the request is out of range
    │   └── InputTooLongError    the text is above the byte limit
    ├── OverloadedError          the queue is full: try again later
    ├── RequestCancelledError    the caller went away
    └── DeadlineExceededError    the request ran out of time
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class KobartError(Exception):
    """Base of all errors; `code` is the gRPC status name that a caller sees."""

    code = "INTERNAL"

    @property
    def status_message(self) -> str:
        """The message as it travels: the code, a colon, then value, limit and remedy."""
        return f"{self.code}: {self}"


class ConfigError(KobartError):
    """A setting is unknown, missing or out of range."""


class DocumentError(ConfigError):
    """A file of documents cannot be read; names the file, the line and what to do."""

    code = "INVALID_ARGUMENT"


class CheckpointError(KobartError):
    """The checkpoint is not a BART encoder-decoder, or asks for what is not supported."""


class BuildError(KobartError):
    """A build failed, is incomplete, or differs from its manifest."""


class EngineError(KobartError):
    """An engine could not be loaded or run."""


class SlotStateError(KobartError):
    """A slot was read, written or freed out of turn."""


class RequestError(KobartError):
    """One request cannot be answered; its neighbours are not concerned."""


class InvalidArgumentError(RequestError):
    """A field of the request is missing or out of range."""

    code = "INVALID_ARGUMENT"


class InputTooLongError(InvalidArgumentError):
    """The text has more bytes than the build accepts."""


class OverloadedError(RequestError):
    """No further request is taken: the queue is full, or the model is being unloaded."""

    code = "UNAVAILABLE"


class RequestCancelledError(RequestError):
    """The caller cancelled the request."""

    code = "CANCELLED"


class DeadlineExceededError(RequestError):
    """The request did not finish in its time."""

    code = "DEADLINE_EXCEEDED"


@contextmanager
def engine_errors(failure: str) -> Iterator[None]:
    """Whatever is raised as one `EngineError`; engine libraries' exceptions share no base class."""
    try:
        yield
    except Exception as error:
        raise EngineError(f"{failure}: {error}") from error
