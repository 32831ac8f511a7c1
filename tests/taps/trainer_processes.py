"""One of two processes in which a trainer trains: ``trainer_processes.py lightning|transformers RANK SIZE FOLDER``."""

from __future__ import annotations

import os
import pathlib
import socket
import sys
import warnings
from typing import Any

import torch
import torch.nn.functional as F

torch.set_num_threads(1)


def lightning(folder: pathlib.Path, size: int) -> None:
    """Eight batches of 8 examples in all, in their order."""
    import lightning.pytorch as pl

    from deadunits_tb.lightning import DeadUnitsCallback

    class Network(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    pl.seed_everything(0)
    data = torch.utils.data.TensorDataset(torch.randn(64, 6), torch.randint(0, 3, (64,)))
    rank = int(os.environ.get("RANK", "0"))
    sampler = torch.utils.data.DistributedSampler(data, size, rank, shuffle=False)  # Lightning's own would shuffle
    trainer = pl.Trainer(
        use_distributed_sampler=False,
        max_epochs=1, accelerator="cpu", devices=size, strategy="ddp" if size > 1 else "auto", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[DeadUnitsCallback(folder / "log", every=1)],
    )  # fmt: skip
    trainer.fit(Network(), torch.utils.data.DataLoader(data, batch_size=8 // size, sampler=sampler))


def transformers(folder: pathlib.Path, size: int) -> None:
    """Eight batches of 8 examples in all."""
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    from deadunits_tb.transformers import DeadUnitsCallback

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    dropouts = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForSequenceClassification(BertConfig(vocab_size=50, num_labels=2, **sizes, **dropouts))
    words = torch.randint(0, 50, (64, 8))
    data = [{"input_ids": word, "labels": (word[0] > 25).long()} for word in words]
    # Otherwise the Trainer multiplies the loss by the number of processes, for models that divide by what it counts.
    arguments = TrainingArguments(
        average_tokens_across_devices=False, output_dir=str(folder / "trainer"),
        num_train_epochs=1, per_device_train_batch_size=8 // size, report_to="none",
        save_strategy="no", use_cpu=True, disable_tqdm=True, ddp_backend="gloo" if size > 1 else None,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=data, callbacks=[DeadUnitsCallback(folder / "log", every=1)]).train()


def main(trainer: str, rank: int, size: int, folder: pathlib.Path) -> None:
    """Train as one of them."""
    if size > 1:
        port = folder / "port"
        if rank == 0:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                (folder / "port.new").write_text(str(free.getsockname()[1]))
            (folder / "port.new").rename(port)
        while not port.exists():
            pass
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port.read_text(), "RANK": str(rank), "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "NODE_RANK": "0", "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "test",
        }  # fmt: skip
    {"lightning": lightning, "transformers": transformers}[trainer](folder, size)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), pathlib.Path(sys.argv[4]))
