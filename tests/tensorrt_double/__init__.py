"""A `tensorrt` and a CUDA runtime that run on the CPU and refuse what the real ones do not have.

The names come from NVIDIA's own bindings (`bindings/*.json`), the arithmetic from ONNX Runtime.
Nothing that runs here says anything about speed, and nothing of it has run on a GPU.
"""
