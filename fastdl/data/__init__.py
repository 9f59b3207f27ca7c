"""Data sets and the batches that training takes from them."""

from .batches import batches
from .digits import Digits, Samples, load_digits
from .split import stratified_split

__all__ = ["Digits", "Samples", "batches", "load_digits", "stratified_split"]
