"""Run a build on the real Triton server: find it, start it, watch it, drain it.

Knows folders, processes and Triton's own HTTP API; nothing of summaries, tokens or engines.
"""
