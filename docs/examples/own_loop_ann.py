"""SADP in a plain PyTorch loop for an ordinary network, on scikit-learn's digits. The lines that prune are marked (+).

python docs/examples/own_loop_ann.py --epochs 10
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from sadp_bench import SADP, PrunedSampler, watch, with_index


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)
    digits = load_digits()
    image, label = torch.tensor(digits.images).float().unsqueeze(1) / 16, torch.tensor(digits.target)
    train_image, test_image, train_label, test_label = train_test_split(image, label, test_size=360, random_state=0)

    convolutions = [
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    network = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64 * 4 * 4, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    pruner = SADP(prune_ratio=0.5)  # (+)
    sampler = PrunedSampler(pruner, labels=train_label, epochs=options.epochs, batch_size=64)  # (+)
    data = with_index(TensorDataset(train_image, train_label))  # (+)
    loader: DataLoader[Any] = DataLoader(data, batch_sampler=sampler)
    visits = 0
    with watch(network, sampler):  # (+)
        for epoch in range(sampler.epochs):
            sampler.set_epoch(epoch)  # (+)
            network.train()
            for x, y, index in loader:
                logits = network(x)
                loss = cross_entropy(logits, y, reduction="none")
                optimizer.zero_grad()
                (sampler.weight(index) * loss).mean().backward()  # (+) the weights
                sampler.observe(index, logits, y)  # (+)
                optimizer.step()
                visits += len(index)
    network.eval()
    with torch.no_grad():
        right = network(test_image).argmax(1) == test_label
    print(f"accuracy {right.float().mean():.3f}")
    print(f"saved {1 - visits / (len(train_label) * options.epochs):.3f} of the visits")


if __name__ == "__main__":
    main()
