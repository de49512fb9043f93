"""MNIST and Fashion-MNIST: 60,000 + 10,000 grey images of 28 x 28 pixels in 10 classes, as four IDX files.

MNIST: Y. LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 1998.
Fashion-MNIST: H. Xiao, K. Rasul, R. Vollgraf, arXiv 1708.07747.
"""

from collections.abc import Sequence
from pathlib import Path

from gpucnn.data.dataset import Dataset
from gpucnn.data.files.idx import read_idx
from gpucnn.data.files.sources import RemoteFile, Source
from gpucnn.errors import DataError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def list_files(folder: Path) -> list[Path]:
    """The files that exist, in the order of ``NAMES``, preferably gzipped, because gzip has a checksum."""
    return list(filter(None, (find_file(folder, name) for name in NAMES)))


def find_file(folder: Path, name: str) -> Path | None:
    """The file of this name in one of its spellings."""
    spellings = (f"{name}.gz", name, name.replace("-idx", ".idx"))  # the last is what some unpackers make of it
    return next((folder / one for one in spellings if (folder / one).exists()), None)


def read_part(name: str, classes: tuple[str, ...], image_file: Path, label_file: Path) -> Dataset:
    """A file of images and a file of their labels.

    Raises:
        DataError: a damaged file, images of another size than 28 x 28, more or fewer labels than images, a
            label above 9.
    """
    images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
    if images.shape[1:] != (28, 28):
        raise DataError(
            f"{image_file}: images of {images.shape[1]} x {images.shape[2]} pixels, {name} has 28 x 28: "
            f"put the files of {name} there"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{image_file} has {len(images):,} images, but {label_file.name} has {len(labels):,} labels: "
            f"take both from one download"
        )
    try:
        return Dataset(name, images[..., None], labels, classes)  # (N,28,28,1)
    except DataError as error:
        raise DataError(f"{label_file}: {error}") from None


def idx_source(
    name: str,
    about: str,
    classes: tuple[str, ...],
    *,
    layouts: tuple[str, ...],
    mirrors: tuple[str, ...],
    published: Sequence[tuple[int, str]],
    contents: Sequence[str] = ("",) * len(NAMES),
    images: str = "",
) -> Source:
    """The registry's row.

    Args:
        layouts: folders below a data directory; downloads go to the first.
        published: size and SHA-256 of each gzipped file, in the order of ``NAMES``.
        contents: SHA-256 of their unpacked contents, if known.
    """
    remote = tuple(
        RemoteFile(f"{layouts[0]}/{file}.gz", size, sha256, tuple(f"{m}{file}.gz" for m in mirrors), content)
        for file, (size, sha256), content in zip(NAMES, published, contents, strict=True)
    )

    def load(folder: Path) -> tuple[Dataset, Dataset]:
        train_images, train_labels, *test = list_files(folder)
        return read_part(name, classes, train_images, train_labels), read_part(name, classes, *test)

    def find(data_dir: Path) -> Path | None:
        folders = (data_dir / layout for layout in layouts)
        return next((folder for folder in folders if len(list_files(folder)) == len(NAMES)), None)

    def lacks(data_dir: Path) -> list[Path]:
        folders = (data_dir / layout for layout in layouts)
        some = next((folder for folder in folders if list_files(folder)), None)
        return [some / f"{file}.gz" for file in NAMES if not find_file(some, file)] if some else []

    return Source(about, load, find, lacks, list_files, remote, images=images)


MNIST = idx_source(
    "mnist",
    "60,000 + 10,000 handwritten digits, grey 28 x 28, 10 classes",
    tuple("0123456789"),
    layouts=("mnist", "MNIST/raw", "MNIST", ""),
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    published=(
        (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    contents=(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    images="3b1e8fc3db51fbee48f17356cdc393712f7abb7956e9d4116e1cd36b7c189068",
)

FASHION_MNIST = idx_source(
    "fashion_mnist",
    "60,000 + 10,000 pieces of clothing, grey 28 x 28, 10 classes",
    CLOTHES,
    layouts=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    published=(
        (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
)
