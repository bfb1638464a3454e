"""A dialogue in, its summary out: start Triton on a build, ask it once, stop it.

python examples/demo.py build/kobart-fp32
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from client import KobartClient
from server.supervisor import TritonServer, free_ports

SAMPLES = Path(__file__).resolve().parents[1] / "assets" / "kobart-mini" / "samples"


def main(build: Path) -> None:
    """Print a sample and its summary."""
    dialogue = min(SAMPLES.glob("*.txt")).read_text(encoding="utf-8")
    http_port, grpc_port, metrics_port = free_ports(3)
    server = TritonServer(
        build,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        log=io.StringIO(),
    )
    with server, KobartClient(server.grpc_url) as client:
        summary = client.summarize(dialogue)
    print(f"\n{dialogue.strip()}\n\n=> {summary.text}\n")
    print(
        f"({summary.num_input_tokens} tokens in, {summary.num_output_tokens} out, "
        f"from Triton on {build}; serve it yourself: .venv/bin/kobart-serve {build})"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
