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
    "pack": "sadp_bench.datasets.packed:PackedImages",
    "dvs-gesture": "sadp_bench.datasets.dvs_gesture:DVSGesture",
    "cifar10-dvs": "sadp_bench.datasets.cifar10_dvs:CIFAR10DVS",
    "n-caltech101": "sadp_bench.datasets.n_caltech101:NCaltech101",
    "shd": "sadp_bench.datasets.spoken:SHD",
    "ssc": "sadp_bench.datasets.spoken:SSC",
    "braille": "sadp_bench.datasets.braille:Braille",
}
