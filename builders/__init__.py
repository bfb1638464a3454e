"""Checkpoint -> Triton model repository; `python builders/build_all.py` is the door."""
