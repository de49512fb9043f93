"""MNIST (LeCun, Cortes, Burges) and Fashion-MNIST (arXiv 1708.07747): 60,000 + 10,000 grey images, 28x28."""

from pathlib import Path

from gpucnn.data.dataset import Dataset
from gpucnn.data.download import Remote, fetch
from gpucnn.data.files import find
from gpucnn.data.idx import read_idx
from gpucnn.errors import DataError

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

MNIST_FOLDERS = ("mnist", "MNIST/raw", "MNIST", "")
FASHION_FOLDERS = ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "FashionMNIST")

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FASHION_MIRRORS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)

MNIST_REMOTES = (
    Remote(
        "train-images-idx3-ubyte.gz",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        MNIST_MIRRORS,
    ),
    Remote(
        "train-labels-idx1-ubyte.gz",
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        MNIST_MIRRORS,
    ),
    Remote(
        "t10k-images-idx3-ubyte.gz",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        MNIST_MIRRORS,
    ),
    Remote(
        "t10k-labels-idx1-ubyte.gz",
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        MNIST_MIRRORS,
    ),
)
FASHION_REMOTES = (
    Remote(
        "train-images-idx3-ubyte.gz",
        26_421_880,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        FASHION_MIRRORS,
    ),
    Remote(
        "train-labels-idx1-ubyte.gz",
        29_515,
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        FASHION_MIRRORS,
    ),
    Remote(
        "t10k-images-idx3-ubyte.gz",
        4_422_102,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        FASHION_MIRRORS,
    ),
    Remote(
        "t10k-labels-idx1-ubyte.gz",
        5_148,
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        FASHION_MIRRORS,
    ),
)


def _load(
    name: str,
    classes: tuple[str, ...],
    folders: tuple[str, ...],
    remotes: tuple[Remote, ...],
    data_dir: str | Path | None,
    download: bool,
    progress: bool,
) -> tuple[Dataset, Dataset]:
    """Train and test set from files in one of these folders, or from the mirrors."""
    by_name = {remote.name: remote for remote in remotes}
    sets = []
    for images_name, labels_name in FILES.values():
        paths = []
        for stem in (images_name, labels_name):
            # torchvision's own layout names files with a dot in older versions
            names = (stem, f"{stem}.gz", stem.replace("-idx", ".idx"))
            path = find(names, folders, data_dir)
            paths.append(path or fetch(by_name[f"{stem}.gz"], name, data_dir, download, progress))
        images, labels = read_idx(paths[0], 3), read_idx(paths[1], 1)
        if images.shape[1:] != (28, 28):
            raise DataError(f"{paths[0]} holds images of {images.shape[1:]}, expected 28 x 28")
        sets.append(Dataset(name, images[..., None], labels, classes))
    return sets[0], sets[1]


def mnist(data_dir: str | Path | None, download: bool, progress: bool) -> tuple[Dataset, Dataset]:
    """Handwritten digits."""
    return _load("mnist", DIGITS, MNIST_FOLDERS, MNIST_REMOTES, data_dir, download, progress)


def fashion_mnist(data_dir: str | Path | None, download: bool, progress: bool) -> tuple[Dataset, Dataset]:
    """Pieces of clothing, in MNIST's format."""
    return _load("fashion_mnist", CLOTHES, FASHION_FOLDERS, FASHION_REMOTES, data_dir, download, progress)
