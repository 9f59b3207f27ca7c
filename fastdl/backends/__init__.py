"""The backends: one table of kernels, written five times.

``naive`` is the formula in plain loops, ``reference`` the formula in NumPy,
``compiled`` the C++ kernels, ``jit`` the Numba kernels, ``cuda`` those for
an NVIDIA GPU. `table.Backend` says
what each must offer; `registry` says which one serves a call.
"""
