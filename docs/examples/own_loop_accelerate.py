"""SADP in a loop of Hugging Face's accelerate, on scikit-learn's digits. The lines that are not accelerate's are marked (+).

pip install accelerate
accelerate launch --cpu --num_processes 2 docs/examples/own_loop_accelerate.py --epochs 10
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from accelerate import Accelerator
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
    # On GPUs: Accelerator(kwargs_handlers=[InitProcessGroupKwargs(backend="cpu:gloo,cuda:nccl")]).
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    digits = load_digits()
    image, label = torch.tensor(digits.images).float() / 16, torch.tensor(digits.target)
    train_image, test_image, train_label, test_label = train_test_split(image, label, test_size=360, random_state=0)

    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    sampler = PrunedSampler(  # (+)
        SADP(prune_ratio=0.5), labels=train_label, epochs=options.epochs, batch_size=64, device=accelerator.device
    )
    loader: Any = DataLoader(with_index(TensorDataset(train_image, train_label)), batch_sampler=sampler)  # (+)
    model, optimizer = accelerator.prepare(network, optimizer)  # Not the loader: the sampler divides it by itself.
    visits = torch.zeros((), device=accelerator.device)
    with watch(model, sampler):  # (+)
        for epoch in range(sampler.epochs):
            sampler.set_epoch(epoch)  # (+)
            model.train()
            for batch in loader:
                x, y, index = (tensor.to(accelerator.device) for tensor in batch)
                logits = model(x)
                loss = cross_entropy(logits, y, reduction="none")
                optimizer.zero_grad()
                accelerator.backward((sampler.weight(index) * loss).mean())  # (+) the weights
                sampler.observe(index, logits, y)  # (+)
                optimizer.step()
                visits += len(index)
    visits = accelerator.reduce(visits)
    network.eval()
    with torch.no_grad():
        right = network(test_image.to(accelerator.device)).argmax(1) == test_label.to(accelerator.device)
    accelerator.print(f"accuracy {right.float().mean():.3f}")
    accelerator.print(f"saved {1 - float(visits) / (len(train_label) * options.epochs):.3f} of the visits")
    accelerator.end_training()


if __name__ == "__main__":
    main()
