"""SADP in a plain SpikingJelly loop, on scikit-learn's digits. The lines that are not SpikingJelly's own are marked (+).

python docs/examples/own_loop_spikingjelly.py --epochs 10
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from sadp_bench import SADP, PrunedSampler, watch, weighted_batch_norm, weighted_statistics, with_index

STEPS = 4


def block(inputs: int, outputs: int) -> list[nn.Module]:
    convolution = layer.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    fire = neuron.LIFNode(surrogate_function=surrogate.ATan(), detach_reset=True)
    return [convolution, layer.BatchNorm2d(outputs), fire]


def forward(network: nn.Module, image: Tensor) -> Tensor:
    """[B, 1, 8, 8] -> logits at every time step, [T, B, 10]."""
    functional.reset_net(network)
    logits: Tensor = network(image.unsqueeze(0).repeat(STEPS, 1, 1, 1, 1))
    return logits


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)
    digits = load_digits()
    image, label = torch.tensor(digits.images).float().unsqueeze(1) / 16, torch.tensor(digits.target)
    train_image, test_image, train_label, test_label = train_test_split(image, label, test_size=360, random_state=0)

    readout = [layer.MaxPool2d(2), layer.Flatten(), layer.Linear(64 * 4 * 4, 10)]
    network = weighted_batch_norm(nn.Sequential(*block(1, 32), *block(32, 64), *readout))  # (+)
    functional.set_step_mode(network, "m")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    pruner = SADP(prune_ratio=0.5)  # (+)
    sampler = PrunedSampler(pruner, labels=train_label, epochs=options.epochs, batch_size=64)  # (+)
    data = with_index(TensorDataset(train_image, train_label))  # (+)
    loader: DataLoader[Any] = DataLoader(data, batch_sampler=sampler)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=sampler.epochs)  # epochs, not batches
    visits = 0
    with watch(network, sampler):  # (+)
        for epoch in range(sampler.epochs):
            sampler.set_epoch(epoch)  # (+)
            network.train()
            for x, y, index in loader:
                weight = sampler.weight(index)  # (+)
                with weighted_statistics(network, weight):  # (+) batch norm by the same weights
                    logits = forward(network, x)
                loss = cross_entropy(logits.mean(0), y, reduction="none")
                optimizer.zero_grad()
                (weight * loss).mean().backward()  # (+) the weights
                sampler.observe(index, logits, y)  # (+)
                optimizer.step()
                visits += len(index)
            schedule.step()
    network.eval()
    with torch.no_grad():
        right = forward(network, test_image).mean(0).argmax(1) == test_label
    print(f"accuracy {right.float().mean():.3f}")
    print(f"saved {1 - visits / (len(train_label) * options.epochs):.3f} of the visits")


if __name__ == "__main__":
    main()
