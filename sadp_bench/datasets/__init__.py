"""The data sets: name -> class. The table imports none of the classes."""

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
    "torchvision": "sadp_bench.datasets.adapted:TorchvisionSet",
    "hf": "sadp_bench.datasets.adapted:HuggingFaceSet",
    "dvs-gesture": "sadp_bench.datasets.dvs_gesture:DVSGesture",
    "cifar10-dvs": "sadp_bench.datasets.cifar10_dvs:CIFAR10DVS",
    "n-caltech101": "sadp_bench.datasets.n_caltech101:NCaltech101",
    "shd": "sadp_bench.datasets.spoken:SHD",
    "ssc": "sadp_bench.datasets.spoken:SSC",
    "braille": "sadp_bench.datasets.braille:Braille",
}

# Names "ADAPTER:NAME" stand for the data set ADAPTER with the setting name=NAME.
ADAPTERS = ("torchvision", "hf")


def expanded(name: str) -> tuple[str, dict[str, str]]:
    """Returns a data set's registered name and the settings in it: "hf:ylecun/mnist" is `hf` with name=ylecun/mnist."""
    adapter, _, own = name.partition(":")
    return (adapter, {"name": own}) if own and adapter in ADAPTERS else (name, {})
