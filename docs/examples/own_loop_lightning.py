"""SADP in PyTorch Lightning, as a callback, on scikit-learn's digits.

pip install lightning
python docs/examples/own_loop_lightning.py --epochs 10
"""

import argparse
from typing import Any

import lightning
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from sadp_bench import SADP, PrunedSampler, watch, with_index


class Pruning(lightning.Callback):
    """Shows the sampler each batch after its backward pass."""

    def __init__(self, sampler: PrunedSampler) -> None:
        self.sampler, self.visits = sampler, 0

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.watch = watch(module.network, self.sampler)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, number: int) -> None:
        self.sampler.observe(batch[2], outputs["logits"], batch[1])
        self.visits += len(batch[2])

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self.watch.remove()


class Classifier(lightning.LightningModule):
    def __init__(self, network: nn.Module, sampler: PrunedSampler, data: Any) -> None:
        super().__init__()
        self.network, self.sampler, self.data = network, sampler, data

    def train_dataloader(self) -> Any:
        """Asked for before each epoch. A list, as Lightning counts an epoch's batches early, and begins it twice."""
        self.sampler.set_epoch(self.trainer.current_epoch)
        return DataLoader(self.data, batch_sampler=list(self.sampler))

    def training_step(self, batch: Any, number: int) -> dict[str, Tensor]:
        image, label, index = batch
        logits = self.network(image)
        loss = cross_entropy(logits, label, reduction="none")
        return {"loss": (self.sampler.weight(index) * loss).mean(), "logits": logits.detach()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args().epochs
    lightning.seed_everything(0)
    digits = load_digits()
    image, label = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
    train_image, test_image, train_label, test_label = train_test_split(image, label, test_size=360, random_state=0)
    sampler = PrunedSampler(SADP(0.5), labels=train_label, epochs=epochs, batch_size=64)
    data = with_index(TensorDataset(train_image, train_label))
    network, pruning = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)), Pruning(sampler)
    how: Any = {"reload_dataloaders_every_n_epochs": 1, "use_distributed_sampler": False, "accelerator": "cpu"}
    quiet: Any = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=sampler.epochs, callbacks=[pruning], **how, **quiet)
    trainer.fit(Classifier(network, sampler, data))
    right = network.eval()(test_image).argmax(1) == test_label
    print(f"accuracy {right.float().mean():.3f}")
    print(f"saved {1 - pruning.visits / (len(train_label) * epochs):.3f} of the visits")


if __name__ == "__main__":
    main()
