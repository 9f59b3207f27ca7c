"""The backends: one table of kernels, written four times.

``naive`` is the formula in plain loops, ``reference`` the formula in NumPy,
``compiled`` the C++ kernels, ``jit`` the Numba kernels. `table.Backend` says
what each must offer; `registry` says which one serves a call.
"""
