"""One step of training, number by number: every tensor by name, the terms it is made of, and a page to click them."""

from gpucnn.explain.recording import Recording, record

__all__ = ["Recording", "record"]
