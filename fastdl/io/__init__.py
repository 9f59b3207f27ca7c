"""Files: a network's arrays in safetensors."""

from .atomic import write_atomically
from .state import load_state, save_state

__all__ = ["load_state", "save_state", "write_atomically"]
