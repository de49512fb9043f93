"""Handwritten digits that ship with scikit-learn: 1,797 real images of 8 x 8 pixels, no network needed.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998; scikit-learn has
its test part, with pixels 0..16: the dark dots in a 4 x 4 block of the scan.
"""

import numpy as np

from gpucnn.data.dataset import Dataset
from gpucnn.random import permutation, stream_id

DARKEST = 16
TEST_EVERY = 5  # every fifth image of a class is a test image
SEED = 0  # of the split, the same in every run, so that results are comparable


def load_digits() -> tuple[Dataset, Dataset]:
    """1,437 training and 360 test images, uint8 (N,8,8,1) scaled to 0..255.

    The split is stratified: shuffled once, sorted by class, and every fifth image is a test image.  Each class is
    split 4 to 1, to within one image.
    """
    from sklearn.datasets import load_digits as read_digits

    found = read_digits()
    images = np.rint(found.images * (255 / DARKEST)).astype(np.uint8)[..., None]  # (N,8,8,1)
    labels = found.target.astype(np.uint8)
    shuffled = permutation(len(labels), seed=SEED, stream=stream_id("digits split"))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return Dataset("digits", images, labels, tuple("0123456789")).split_off(by_class[::TEST_EVERY])
