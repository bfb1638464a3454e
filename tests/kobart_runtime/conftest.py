"""Hypothesis without time limits, which a busy machine would break, and with the same cases."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
