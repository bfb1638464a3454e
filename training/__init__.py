"""The synthetic corpus, the tokenizer and the training of `assets/kobart-mini`."""
