"""SADP in a plain snnTorch loop, on scikit-learn's digits. The lines that are not snnTorch's own are marked (+).

pip install snntorch
python docs/examples/own_loop_snntorch.py --epochs 10
"""

from __future__ import annotations

import argparse
from typing import Any

import snntorch
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from sadp_bench import SADP, PrunedSampler, watch, with_index

STEPS = 8


class Network(nn.Module):
    """[B, 64] -> the output neurons' membranes at every time step, [T, B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(64, 256), nn.Linear(256, 10)
        self.fire_hidden, self.fire_out = snntorch.Leaky(beta=0.9), snntorch.Leaky(beta=0.9)

    def forward(self, image: Tensor) -> Tensor:
        hidden_membrane, out_membrane = self.fire_hidden.init_leaky(), self.fire_out.init_leaky()
        membranes = []
        for _ in range(STEPS):
            spikes, hidden_membrane = self.fire_hidden(self.hidden(image), hidden_membrane)
            _, out_membrane = self.fire_out(self.out(spikes), out_membrane)
            membranes.append(out_membrane)
        return torch.stack(membranes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)
    digits = load_digits()
    image, label = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
    train_image, test_image, train_label, test_label = train_test_split(image, label, test_size=360, random_state=0)

    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    pruner = SADP(prune_ratio=0.5)  # (+)
    sampler = PrunedSampler(pruner, labels=train_label, epochs=options.epochs, batch_size=64)  # (+)
    data = with_index(TensorDataset(train_image, train_label))  # (+)
    loader: DataLoader[Any] = DataLoader(data, batch_sampler=sampler)
    visits = 0
    with watch(network, sampler, loss="step"):  # (+)
        for epoch in range(sampler.epochs):
            sampler.set_epoch(epoch)  # (+)
            network.train()
            for x, y, index in loader:
                logits = network(x)
                loss = sum(cross_entropy(step, y, reduction="none") for step in logits) / STEPS
                optimizer.zero_grad()
                (sampler.weight(index) * loss).mean().backward()  # (+) the weights
                sampler.observe(index, logits, y)  # (+)
                optimizer.step()
                visits += len(index)
    network.eval()
    with torch.no_grad():
        right = network(test_image).mean(0).argmax(1) == test_label
    print(f"accuracy {right.float().mean():.3f}")
    print(f"saved {1 - visits / (len(train_label) * options.epochs):.3f} of the visits")


if __name__ == "__main__":
    main()
