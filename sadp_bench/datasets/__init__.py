"""The data sets: their names and the classes behind them.

Only this table lives here, so that listing the names imports nothing heavy.
"""

DATASETS = {
    "digits": "sadp_bench.datasets.digits:Digits",
    "cifar10": "sadp_bench.datasets.cifar:CIFAR10",
    "cifar100": "sadp_bench.datasets.cifar:CIFAR100",
    "fashion-mnist": "sadp_bench.datasets.mnist:FashionMNIST",
    "mnist": "sadp_bench.datasets.mnist:MNIST",
    "nmnist": "sadp_bench.datasets.nmnist:NMNIST",
}
