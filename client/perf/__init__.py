"""Load on a served KoBART, what came back, and what it means; no engine and no PyTorch here."""
