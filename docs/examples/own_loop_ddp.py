"""SADP in a DDP loop, on scikit-learn's digits: every process has the same selection and its own slice of each batch.

torchrun --nproc-per-node 2 docs/examples/own_loop_ddp.py --epochs 10
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from sadp_bench import SADP, PrunedSampler, watch, with_index


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    distributed.init_process_group("gloo")
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
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    # The batch size is that of all processes together. No DistributedSampler: the sampler reads its rank.
    sampler = PrunedSampler(SADP(prune_ratio=0.5), labels=train_label, epochs=options.epochs, batch_size=64)
    data = with_index(TensorDataset(train_image, train_label))
    loader: DataLoader[Any] = DataLoader(data, batch_sampler=sampler, num_workers=1, persistent_workers=True)
    visits = torch.zeros(())
    with watch(model, sampler):
        for epoch in range(sampler.epochs):
            sampler.set_epoch(epoch)
            model.train()
            for x, y, index in loader:
                logits = model(x)
                loss = cross_entropy(logits, y, reduction="none")
                optimizer.zero_grad()
                (sampler.weight(index) * loss).mean().backward()
                sampler.observe(index, logits, y)
                optimizer.step()
                visits += len(index)
            state = sampler.state_dict()  # in every process, as it brings their scores together; save it in one
    distributed.all_reduce(visits)
    network.eval()
    with torch.no_grad():
        right = network(test_image).argmax(1) == test_label
    if distributed.get_rank() == 0:
        print(f"accuracy {right.float().mean():.3f} after epoch {state['epoch'] + 1}")
        print(f"saved {1 - float(visits) / (len(train_label) * options.epochs):.3f} of the visits")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
