# distutils: language = c++
# cython: boundscheck=False, wraparound=False, cdivision=True, embedsignature=False
"""The compiled backend: every function of fastdl.backends.table, from checked arrays to C++.

A function here takes the addresses out of its arrays, lets go of the GIL and calls the kernel of
the instruction set that was picked. What a kernel computes is written in the table.
"""

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t
from numpy cimport PyArray_DATA, PyArray_DIM, PyArray_NDIM, PyArray_SIZE, PyArray_TYPE, ndarray

from ..limits import requested as _requested

cnp.import_array()


cdef extern from "omp.h" nogil:
    int omp_get_max_threads()
    void omp_set_num_threads(int threads)


cdef extern from "fastdl_kernels.h" namespace "fastdl" nogil:
    ctypedef enum Dtype:
        kFloat32
        kFloat64
    ctypedef enum Activation:
        kIdentity
        kRelu
        kSigmoid
        kTanh
    ctypedef enum Algorithm:
        kAuto
        kDirect
        kDepthwise
        kWinograd
    cppclass ConvGeometry:
        int64_t batch, channels, height, width, filters, kernel_h, kernel_w, stride_h, stride_w
        int64_t pad_top, pad_left, dilation_h, dilation_w, groups, out_h, out_w
    cppclass PoolGeometry:
        int64_t batch, channels, height, width, kernel_h, kernel_w, stride_h, stride_w
        int64_t pad_h, pad_w, dilation_h, dilation_w, out_h, out_w
    cppclass AdaptiveGeometry:
        int64_t planes, height, width, out_h, out_w
    cppclass NormGeometry:
        int64_t batch, channels, size
    cppclass Table:
        const char* name
        int conv2d_algorithm(Dtype, const ConvGeometry*, int, int)
        int64_t conv2d_packed_bytes(Dtype, const ConvGeometry*, int)
        void conv2d_pack(Dtype, const void*, const ConvGeometry*, int, void*, int)
        int conv2d(Dtype, const void*, const void*, const void*, const void*, const ConvGeometry*,
                   Activation, int, void*, int)
        int conv2d_grad_input(Dtype, const void*, const void*, const ConvGeometry*, int, void*,
                              int)
        int conv2d_grad_weight(Dtype, const void*, const void*, const ConvGeometry*, int, void*,
                               int)
        void conv2d_grad_bias(Dtype, const void*, const NormGeometry*, void*, int)
        void im2col(Dtype, const void*, const ConvGeometry*, void*, int)
        void col2im(Dtype, const void*, const ConvGeometry*, void*, int)
        void max_pool2d(Dtype, const void*, const PoolGeometry*, void*, int64_t*, int)
        void max_pool2d_backward(Dtype, const void*, const int64_t*, int64_t, int64_t, int64_t,
                                 void*, int)
        void avg_pool2d(Dtype, const void*, const PoolGeometry*, bint, int64_t, void*, int)
        void avg_pool2d_backward(Dtype, const void*, const PoolGeometry*, bint, int64_t, void*,
                                 int)
        void adaptive_avg_pool2d(Dtype, const void*, const AdaptiveGeometry*, void*, int)
        void adaptive_avg_pool2d_backward(Dtype, const void*, const AdaptiveGeometry*, void*, int)
        void batch_norm_train(Dtype, const void*, const void*, const void*, double,
                              const NormGeometry*, Activation, void*, void*, void*, int)
        void normalize(Dtype, const void*, const void*, const void*, const void*,
                       const NormGeometry*, Activation, void*, int)
        void batch_norm_backward(Dtype, const void*, const void*, const void*, const void*,
                                 const void*, bint, const NormGeometry*, void*, void*, void*, int)
        void activate(Dtype, Activation, const void*, int64_t, void*, int)
        void activate_backward(Dtype, Activation, const void*, const void*, int64_t, void*, int)
        void dropout(Dtype, const void*, const uint8_t*, double, int64_t, void*, int)
        void softmax(Dtype, const void*, int64_t, int64_t, bint, void*, int)
        void softmax_backward(Dtype, const void*, const void*, int64_t, int64_t, bint, void*, int)
        double multiply_add(Dtype, int64_t, int)
        double read_bytes(const void*, int64_t, int)
    int table_count()
    const Table* table_at(int)
    bint table_runs_here(int)
    void install_fork_handler()


cdef const Table* table = NULL
install_fork_handler()


# --- instruction sets and threads --------------------------------------------


def isa_names():
    """Names of the instruction sets that this machine runs, from the lowest up."""
    return tuple(table_at(i).name.decode() for i in range(table_count()) if table_runs_here(i))


def select_table(name):
    """Serve every later call by the kernels of this instruction set, one of `isa_names`."""
    global table
    for i in range(table_count()):
        if table_at(i).name.decode() == name and table_runs_here(i):
            table = table_at(i)
            return
    raise ValueError(f"no kernels for {name!r} run here")


def selected_name():
    """Name of the instruction set that serves."""
    return table.name.decode()


def max_threads():
    """What OpenMP allows a loop started by this thread."""
    return omp_get_max_threads()


def set_max_threads(int threads):
    """Tell OpenMP what to allow the loops started by this thread."""
    omp_set_num_threads(threads)


def multiply_add(bint double_precision, int64_t operations, int threads):
    """Do `operations` multiplications and additions on each of `threads` threads."""
    cdef double result
    with nogil:
        result = table.multiply_add(kFloat64 if double_precision else kFloat32, operations, threads)
    return result


def read_bytes(ndarray data, int threads):
    """Read all of `data` once, on `threads` threads."""
    cdef void* address = PyArray_DATA(data)
    cdef int64_t size = data.nbytes
    cdef double result
    with nogil:
        result = table.read_bytes(address, size, threads)
    return result


cdef int threads() except -1:
    wanted = _requested()
    cdef int limit = omp_get_max_threads()
    return limit if wanted is None or wanted > limit else wanted


# --- from Python to C++ --------------------------------------------------------


cdef inline Dtype dtype_of(ndarray a) noexcept nogil:
    return kFloat64 if PyArray_TYPE(a) == cnp.NPY_FLOAT64 else kFloat32


cdef inline void* address_of(object a) except? NULL:
    """Where an array's elements are; NULL for None."""
    return NULL if a is None else PyArray_DATA(<ndarray> a)


cdef Activation activation_of(object name) except *:
    if name is None:
        return kIdentity
    if name == "relu":
        return kRelu
    return kSigmoid if name == "sigmoid" else kTanh


cdef ConvGeometry conv_geometry(object g) except *:
    cdef ConvGeometry c
    c.batch, c.channels, c.height, c.width = g.batch, g.channels, g.height, g.width
    c.filters, c.kernel_h, c.kernel_w = g.filters, g.kernel_h, g.kernel_w
    c.stride_h, c.stride_w = g.stride_h, g.stride_w
    c.pad_top, c.pad_left = g.pad_top, g.pad_left
    c.dilation_h, c.dilation_w = g.dilation_h, g.dilation_w
    c.groups, c.out_h, c.out_w = g.groups, g.out_h, g.out_w
    return c


cdef PoolGeometry pool_geometry(object g) except *:
    cdef PoolGeometry c
    c.batch, c.channels, c.height, c.width = g.batch, g.channels, g.height, g.width
    c.kernel_h, c.kernel_w = g.kernel_h, g.kernel_w
    c.stride_h, c.stride_w = g.stride_h, g.stride_w
    c.pad_h, c.pad_w = g.pad_h, g.pad_w
    c.dilation_h, c.dilation_w = g.dilation_h, g.dilation_w
    c.out_h, c.out_w = g.out_h, g.out_w
    return c


cdef AdaptiveGeometry adaptive_geometry(ndarray large, ndarray small) noexcept:
    cdef AdaptiveGeometry c
    c.planes = PyArray_DIM(large, 0) * PyArray_DIM(large, 1)
    c.height, c.width = PyArray_DIM(large, 2), PyArray_DIM(large, 3)
    c.out_h, c.out_w = PyArray_DIM(small, 2), PyArray_DIM(small, 3)
    return c


cdef NormGeometry norm_geometry(ndarray x) noexcept:
    """(N, C, ...) as (N, C, S)."""
    cdef NormGeometry c
    cdef int axis
    c.batch, c.channels, c.size = PyArray_DIM(x, 0), PyArray_DIM(x, 1), 1
    for axis in range(2, PyArray_NDIM(x)):
        c.size *= PyArray_DIM(x, axis)
    return c


cdef int need_memory(int failed) except -1:
    if failed:
        raise MemoryError("no memory left for the workspace of a convolution")
    return 0


# --- convolution ----------------------------------------------------------------


def conv2d(ndarray x, ndarray weight, bias, geometry, activation, ndarray out):
    cdef ConvGeometry g = conv_geometry(geometry)
    cdef Activation a = activation_of(activation)
    cdef void* b = address_of(bias)
    cdef int n = threads(), failed
    with nogil:
        failed = table.conv2d(dtype_of(x), PyArray_DATA(x), PyArray_DATA(weight), NULL, b, &g, a,
                              kAuto, PyArray_DATA(out), n)
    need_memory(failed)


def conv2d_grad_input(ndarray grad, ndarray weight, geometry, ndarray out):
    cdef ConvGeometry g = conv_geometry(geometry)
    cdef int n = threads(), failed
    with nogil:
        failed = table.conv2d_grad_input(dtype_of(grad), PyArray_DATA(grad), PyArray_DATA(weight),
                                         &g, kAuto, PyArray_DATA(out), n)
    need_memory(failed)


def conv2d_grad_weight(ndarray grad, ndarray x, geometry, ndarray out):
    cdef ConvGeometry g = conv_geometry(geometry)
    cdef int n = threads(), failed
    with nogil:
        failed = table.conv2d_grad_weight(dtype_of(grad), PyArray_DATA(grad), PyArray_DATA(x), &g,
                                          kAuto, PyArray_DATA(out), n)
    need_memory(failed)


def conv2d_grad_bias(ndarray grad, ndarray out):
    cdef NormGeometry g = norm_geometry(grad)
    cdef int n = threads()
    with nogil:
        table.conv2d_grad_bias(dtype_of(grad), PyArray_DATA(grad), &g, PyArray_DATA(out), n)


def im2col(ndarray x, geometry, ndarray out):
    cdef ConvGeometry g = conv_geometry(geometry)
    cdef int n = threads()
    with nogil:
        table.im2col(dtype_of(x), PyArray_DATA(x), &g, PyArray_DATA(out), n)


def col2im(ndarray col, geometry, ndarray out):
    cdef ConvGeometry g = conv_geometry(geometry)
    cdef int n = threads()
    with nogil:
        table.col2im(dtype_of(col), PyArray_DATA(col), &g, PyArray_DATA(out), n)


# --- pooling --------------------------------------------------------------------


def max_pool2d(ndarray x, geometry, ndarray out, indices):
    cdef PoolGeometry g = pool_geometry(geometry)
    cdef void* i = address_of(indices)
    cdef int n = threads()
    with nogil:
        table.max_pool2d(dtype_of(x), PyArray_DATA(x), &g, PyArray_DATA(out), <int64_t*> i, n)


def max_pool2d_backward(ndarray grad, ndarray indices, ndarray out):
    cdef AdaptiveGeometry g = adaptive_geometry(out, grad)
    cdef int n = threads()
    with nogil:
        table.max_pool2d_backward(dtype_of(grad), PyArray_DATA(grad),
                                  <const int64_t*> PyArray_DATA(indices), g.planes,
                                  g.out_h * g.out_w, g.height * g.width, PyArray_DATA(out), n)


def avg_pool2d(ndarray x, geometry, bint count_include_pad, divisor, ndarray out):
    cdef PoolGeometry g = pool_geometry(geometry)
    cdef int64_t d = divisor or 0
    cdef int n = threads()
    with nogil:
        table.avg_pool2d(dtype_of(x), PyArray_DATA(x), &g, count_include_pad, d,
                         PyArray_DATA(out), n)


def avg_pool2d_backward(ndarray grad, geometry, bint count_include_pad, divisor, ndarray out):
    cdef PoolGeometry g = pool_geometry(geometry)
    cdef int64_t d = divisor or 0
    cdef int n = threads()
    with nogil:
        table.avg_pool2d_backward(dtype_of(grad), PyArray_DATA(grad), &g, count_include_pad, d,
                                  PyArray_DATA(out), n)


def adaptive_avg_pool2d(ndarray x, ndarray out):
    cdef AdaptiveGeometry g = adaptive_geometry(x, out)
    cdef int n = threads()
    with nogil:
        table.adaptive_avg_pool2d(dtype_of(x), PyArray_DATA(x), &g, PyArray_DATA(out), n)


def adaptive_avg_pool2d_backward(ndarray grad, ndarray out):
    cdef AdaptiveGeometry g = adaptive_geometry(out, grad)
    cdef int n = threads()
    with nogil:
        table.adaptive_avg_pool2d_backward(dtype_of(grad), PyArray_DATA(grad), &g,
                                           PyArray_DATA(out), n)


# --- normalisation --------------------------------------------------------------


def batch_norm_train(ndarray x, weight, bias, double eps, activation, ndarray out, ndarray mean,
                     ndarray var):
    cdef NormGeometry g = norm_geometry(x)
    cdef Activation a = activation_of(activation)
    cdef void* w = address_of(weight)
    cdef void* b = address_of(bias)
    cdef int n = threads()
    with nogil:
        table.batch_norm_train(dtype_of(x), PyArray_DATA(x), w, b, eps, &g, a, PyArray_DATA(out),
                               PyArray_DATA(mean), PyArray_DATA(var), n)


def normalize(ndarray x, ndarray mean, ndarray scale, ndarray shift, activation, ndarray out):
    cdef NormGeometry g = norm_geometry(x)
    cdef Activation a = activation_of(activation)
    cdef int n = threads()
    with nogil:
        table.normalize(dtype_of(x), PyArray_DATA(x), PyArray_DATA(mean), PyArray_DATA(scale),
                        PyArray_DATA(shift), &g, a, PyArray_DATA(out), n)


def batch_norm_backward(ndarray grad, ndarray x, ndarray mean, ndarray inv_std, weight,
                        bint training, ndarray grad_x, ndarray grad_weight, ndarray grad_bias):
    cdef NormGeometry g = norm_geometry(x)
    cdef void* w = address_of(weight)
    cdef int n = threads()
    with nogil:
        table.batch_norm_backward(dtype_of(x), PyArray_DATA(grad), PyArray_DATA(x),
                                  PyArray_DATA(mean), PyArray_DATA(inv_std), w, training, &g,
                                  PyArray_DATA(grad_x), PyArray_DATA(grad_weight),
                                  PyArray_DATA(grad_bias), n)


# --- activations ----------------------------------------------------------------


cdef int activate(Activation kind, ndarray x, ndarray out) except -1:
    cdef int n = threads()
    with nogil:
        table.activate(dtype_of(x), kind, PyArray_DATA(x), PyArray_SIZE(x), PyArray_DATA(out), n)
    return 0


cdef int activate_backward(Activation kind, ndarray grad, ndarray saved, ndarray out) except -1:
    cdef int n = threads()
    with nogil:
        table.activate_backward(dtype_of(grad), kind, PyArray_DATA(grad), PyArray_DATA(saved),
                                PyArray_SIZE(grad), PyArray_DATA(out), n)
    return 0


def relu(ndarray x, ndarray out):
    activate(kRelu, x, out)


def relu_backward(ndarray grad, ndarray x, ndarray out):
    activate_backward(kRelu, grad, x, out)


def sigmoid(ndarray x, ndarray out):
    activate(kSigmoid, x, out)


def sigmoid_backward(ndarray grad, ndarray y, ndarray out):
    activate_backward(kSigmoid, grad, y, out)


def tanh(ndarray x, ndarray out):
    activate(kTanh, x, out)


def tanh_backward(ndarray grad, ndarray y, ndarray out):
    activate_backward(kTanh, grad, y, out)


cdef int row_softmax(ndarray x, bint log, ndarray out) except -1:
    cdef int n = threads()
    with nogil:
        table.softmax(dtype_of(x), PyArray_DATA(x), PyArray_DIM(x, 0), PyArray_DIM(x, 1), log,
                      PyArray_DATA(out), n)
    return 0


cdef int row_softmax_backward(ndarray grad, ndarray y, bint log, ndarray out) except -1:
    cdef int n = threads()
    with nogil:
        table.softmax_backward(dtype_of(grad), PyArray_DATA(grad), PyArray_DATA(y),
                               PyArray_DIM(grad, 0), PyArray_DIM(grad, 1), log,
                               PyArray_DATA(out), n)
    return 0


def softmax(ndarray x, ndarray out):
    row_softmax(x, False, out)


def softmax_backward(ndarray grad, ndarray y, ndarray out):
    row_softmax_backward(grad, y, False, out)


def log_softmax(ndarray x, ndarray out):
    row_softmax(x, True, out)


def log_softmax_backward(ndarray grad, ndarray y, ndarray out):
    row_softmax_backward(grad, y, True, out)


def dropout(ndarray x, ndarray mask, double scale, ndarray out):
    cdef int n = threads()
    with nogil:
        table.dropout(dtype_of(x), PyArray_DATA(x), <const uint8_t*> PyArray_DATA(mask), scale,
                      PyArray_SIZE(x), PyArray_DATA(out), n)
