"""The data sets: name -> class. Listing the names imports nothing else."""

DATASETS = {
    "digits": "sadp_bench.datasets.digits:Digits",
    "cifar10": "sadp_bench.datasets.cifar:CIFAR10",
    "cifar100": "sadp_bench.datasets.cifar:CIFAR100",
    "fashion-mnist": "sadp_bench.datasets.mnist:FashionMNIST",
    "mnist": "sadp_bench.datasets.mnist:MNIST",
    "imagefolder": "sadp_bench.datasets.imagefolder:ImageFolder",
    "nmnist": "sadp_bench.datasets.nmnist:NMNIST",
    "npz": "sadp_bench.datasets.npz:NPZ",
}
