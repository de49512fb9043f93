"""A trained model at work: evaluation, predictions, test-time augmentation, image files, activations."""
