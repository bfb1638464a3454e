"""The generation runtime that the Triton front model runs: text in, summary out.

Imports numpy, tokenizers and one engine library (onnxruntime or tensorrt); never torch or
transformers, and nothing of builders, calibration, client or training. Importing the package
itself imports none of its modules, so a client may take `errors` and `bindings` alone.
"""
