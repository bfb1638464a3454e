"""Adapters as peft saves them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import BartForConditionalGeneration


def train(base: Path, folder: Path, **options: Any) -> Path:
    """An adapter as peft saves it, with weights that change the model's answers."""
    model = BartForConditionalGeneration.from_pretrained(base)
    options = {"target_modules": ["q_proj", "v_proj"], **options}
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, config)
        torch.manual_seed(5)
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.5)
        wrapped.save_pretrained(str(folder))
    return folder
