"""Hugging Face's Trainer: one callback, for a small BERT and a small OPT made from their configurations.

Each digit that scikit-learn ships is a sentence of 64 words, its pixels, of 17 shades. BERT tells the digit, OPT the
next pixel. Then: tensorboard --logdir runs
"""

from __future__ import annotations

import sys
import tempfile

import torch
from sklearn.datasets import load_digits
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

from deadunits_tb.transformers import DeadUnitsCallback

SHADES, PIXELS = 17, 64


def train(model: PreTrainedModel, data: list[dict[str, torch.Tensor]], log_dir: str, steps: int) -> None:
    """Train a model, watched."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=16, learning_rate=1e-3, report_to="none",
            save_strategy="no", logging_steps=20, use_cpu=True,
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=data, callbacks=[DeadUnitsCallback(log_dir)]).train()


def main(log_dir: str = "runs/huggingface", steps: int = 40) -> None:
    """Train both models."""
    torch.manual_seed(0)
    images, digits = load_digits(return_X_y=True)
    words = torch.tensor(images).long()
    sizes = {"vocab_size": SHADES, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    bert = BertForSequenceClassification(
        BertConfig(**sizes, intermediate_size=64, max_position_embeddings=PIXELS, num_labels=10)
    )
    pairs = zip(words, torch.tensor(digits), strict=True)
    train(bert, [{"input_ids": word, "labels": digit} for word, digit in pairs], f"{log_dir}/bert", steps)
    opt = OPTForCausalLM(
        OPTConfig(**sizes, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=PIXELS, pad_token_id=None)
    )
    train(opt, [{"input_ids": word, "labels": word} for word in words], f"{log_dir}/opt", steps)


if __name__ == "__main__":
    main(*sys.argv[1:2])
