"""How good the summaries of a build are; no engine and no PyTorch here."""
