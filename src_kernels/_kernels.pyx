# distutils: language = c++
# cython: boundscheck=False, wraparound=False, cdivision=True, embedsignature=False
"""The compiled backend: every function of fastdl.backends.table, from checked arrays to C++.

A function here takes the addresses out of its arrays, lets go of the GIL and calls the kernel of
the instruction set that was picked. What a kernel computes is written in the table.
"""

cimport numpy as cnp
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.pycapsule cimport PyCapsule_New
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8
from cython cimport floating
from libc.math cimport sqrt
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t, uintptr_t
from libc.stdlib cimport free, getenv, malloc
from libc.string cimport memcmp, memcpy, memset
from numpy cimport (
    PyArray_DATA,
    PyArray_DIM,
    PyArray_DIMS,
    PyArray_ISBEHAVED_RO,
    PyArray_ISCARRAY_RO,
    PyArray_ISWRITEABLE,
    PyArray_ITEMSIZE,
    PyArray_NBYTES,
    PyArray_NDIM,
    PyArray_SimpleNew,
    PyArray_SIZE,
    PyArray_STRIDE,
    PyArray_TYPE,
    PyDataMem_Handler,
    PyDataMem_SetHandler,
    dtype,
    ndarray,
    npy_intp,
)

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
    ctypedef enum Rule:
        kSgd
    cppclass OptimizerStep:
        Rule rule
        double lr, beta1, beta2, eps, grad_scale
        int64_t step
    cppclass Parameter:
        void* values
        const void* grad
        void* first
        void* second
        int64_t size
        double l1, l2, decay
    cppclass LinearGeometry:
        int64_t batch, inputs, outputs
    cppclass Table:
        const char* name
        int conv2d_algorithm(Dtype, const ConvGeometry*, int, bint, int)
        int64_t conv2d_packed_bytes(Dtype, const ConvGeometry*, int)
        void conv2d_pack(Dtype, const void*, const ConvGeometry*, int, void*, int)
        int64_t conv2d_workspace_bytes(Dtype, const ConvGeometry*, int, bint, int)
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
        bint max_pool2d_backward(Dtype, const void*, const int64_t*, const AdaptiveGeometry*,
                                 void*, int)
        void avg_pool2d(Dtype, const void*, const PoolGeometry*, bint, int64_t, void*, int)
        void avg_pool2d_backward(Dtype, const void*, const PoolGeometry*, bint, int64_t, void*,
                                 int)
        void adaptive_avg_pool2d(Dtype, const void*, const AdaptiveGeometry*, void*, int)
        void adaptive_avg_pool2d_backward(Dtype, const void*, const AdaptiveGeometry*, void*, int)
        void batch_norm_train(Dtype, const void*, const void*, const void*, double,
                              const NormGeometry*, Activation, void*, void*, void*, int)
        int normalize(Dtype, const void*, const void*, const void*, const void*, const void*,
                      double, const NormGeometry*, Activation, void*, int)
        void batch_norm_backward(Dtype, const void*, const void*, const void*, const void*,
                                 const void*, bint, const void*, const NormGeometry*, void*, void*,
                                 void*, int)
        void linear(Dtype, const void*, const void*, const void*, const LinearGeometry*, void*, int)
        void linear_grad_input(Dtype, const void*, const void*, const LinearGeometry*, void*, int)
        void linear_grad_weight(Dtype, const void*, const void*, const LinearGeometry*, void*, int)
        void activate(Dtype, Activation, const void*, int64_t, void*, int)
        void add(Dtype, const void*, const void*, Activation, int64_t, void*, int)
        void activate_backward(Dtype, Activation, const void*, const void*, int64_t, void*, int)
        void dropout(Dtype, const void*, const uint8_t*, double, int64_t, void*, int)
        void softmax(Dtype, const void*, int64_t, int64_t, bint, void*, int)
        void softmax_backward(Dtype, const void*, const void*, int64_t, int64_t, bint, void*, int)
        void optimizer_step(Dtype, const OptimizerStep*, Parameter*, int64_t, int)
        double sum_of_squares(Dtype, const void*, int64_t, int)
        double multiply_add(Dtype, int64_t, int)
        double read_bytes(const void*, int64_t, int)
        void write_bytes(const void*, void*, int64_t, int)
        int channels_last_conv2d(Dtype, const void*, const void*, const void*, const void*,
                                 const ConvGeometry*, Activation, int, void*, int)
        int channels_last_conv2d_grad_input(Dtype, const void*, const void*, const ConvGeometry*,
                                            int, void*, int)
        int channels_last_conv2d_grad_weight(Dtype, const void*, const void*, const ConvGeometry*,
                                             int, void*, int)
        int channels_last_conv2d_grad_bias(Dtype, const void*, const NormGeometry*, void*, int)
        void channels_last_max_pool2d(Dtype, const void*, const PoolGeometry*, void*, int64_t*, int)
        bint channels_last_max_pool2d_backward(Dtype, const void*, const int64_t*, int64_t,
                                               const AdaptiveGeometry*, void*, int)
        void channels_last_avg_pool2d(Dtype, const void*, const PoolGeometry*, bint, int64_t, void*,
                                      int)
        void channels_last_avg_pool2d_backward(Dtype, const void*, const PoolGeometry*, bint,
                                               int64_t, void*, int)
        void channels_last_adaptive_avg_pool2d(Dtype, const void*, int64_t, const AdaptiveGeometry*,
                                               void*, int)
        void channels_last_adaptive_avg_pool2d_backward(Dtype, const void*, int64_t,
                                                        const AdaptiveGeometry*, void*, int)
        int channels_last_batch_norm_train(Dtype, const void*, const void*, const void*, double,
                                           const NormGeometry*, Activation, void*, void*, void*,
                                           int)
        int channels_last_normalize(Dtype, const void*, const void*, const void*, const void*,
                                    const void*, double, const NormGeometry*, Activation, void*,
                                    int)
        int channels_last_batch_norm_backward(Dtype, const void*, const void*, const void*,
                                              const void*, const void*, bint, const void*,
                                              const NormGeometry*, void*, void*, void*, int)
    int table_count()
    const Table* table_at(int)
    bint table_runs_here(int)
    void install_fork_handler()
    cppclass OutputMemory:
        int64_t limit_bytes, kept_bytes, used_bytes, made, reused
    void* take_output(size_t)
    void give_back_output(void*)
    void* resize_output(void*, size_t)
    OutputMemory output_memory()
    void limit_output_memory(int64_t)
    void empty_output_memory()
    void install_output_fork_handler()


cdef const Table* table = NULL
# What set_num_threads asked for; 0 if nothing.
cdef int requested_threads = 0
install_fork_handler()
install_output_fork_handler()


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
    """Use at most so many threads; OpenMP is told for the loops started by this thread."""
    global requested_threads
    requested_threads = threads
    omp_set_num_threads(threads)


def environment(str name):
    """As os.environ.get, which takes ten times as long."""
    cdef const char* value = getenv(PyUnicode_AsUTF8(name))
    return None if value == NULL else (<bytes> value).decode(errors="surrogateescape")


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


def write_bytes(ndarray source, ndarray target, int threads):
    """Write all of `target` once, past the caches: ones, or `source` where it is not None.

    `target` begins at a multiple of 64 bytes, and `source` is as large.
    """
    cdef void* start = NULL if source is None else PyArray_DATA(source)
    cdef void* address = PyArray_DATA(target)
    cdef int64_t size = target.nbytes
    with nogil:
        table.write_bytes(start, address, size, threads)


cdef inline int threads() noexcept nogil:
    cdef int limit = omp_get_max_threads()
    return requested_threads if 0 < requested_threads < limit else limit


# --- from Python to C++ --------------------------------------------------------


cdef inline Dtype dtype_of(ndarray a) noexcept nogil:
    return kFloat64 if PyArray_TYPE(a) == cnp.NPY_FLOAT64 else kFloat32


cdef inline Dtype dtype_of_kind(dtype kind) noexcept:
    return kFloat64 if kind.type_num == cnp.NPY_FLOAT64 else kFloat32


cdef inline void* address_of(object a) except? NULL:
    """Where an array's elements are; NULL for None."""
    return NULL if a is None else PyArray_DATA(<ndarray> a)


ACTIVATIONS = ("relu", "sigmoid", "tanh")
ALGORITHMS = ("direct", "depthwise", "winograd")


cdef int number_of(object name, tuple names) except -2:
    """Its number in C++, where 0 stands for None; -1 if there is no such name."""
    if name is None:
        return 0
    if type(name) is str and name in names:
        return names.index(name) + 1
    return -1


cdef inline Activation activation_of(object name) except *:
    return <Activation> number_of(name, ACTIVATIONS)


cdef inline int algorithm_of(object name) except -2:
    return number_of(name, ALGORITHMS)


cdef int take_fields(object geometry, int64_t* fields) except -1:
    """The fields of a geometry, a named tuple, which its C++ struct has in the same order."""
    cdef Py_ssize_t i
    for i in range(PyTuple_GET_SIZE(geometry)):
        fields[i] = <object> PyTuple_GET_ITEM(geometry, i)
    return 0


cdef ConvGeometry conv_geometry(geometry) except *:
    cdef ConvGeometry g
    take_fields(geometry, <int64_t*> &g)
    return g


cdef PoolGeometry pool_geometry(geometry) except *:
    cdef PoolGeometry g
    take_fields(geometry, <int64_t*> &g)
    return g


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


cdef inline bint is_channels_last(ndarray x) noexcept:
    """Whether images that came through the checks lie pixel by pixel."""
    return not PyArray_ISCARRAY_RO(x)


cdef int need_memory(int failed) except -1:
    if failed:
        raise MemoryError("no memory left for the workspace of a kernel")
    return 0


# --- memory of results ----------------------------------------------------------


cdef void* allocate(void* context, size_t size) noexcept nogil:
    return take_output(size)


cdef void* allocate_zeros(void* context, size_t count, size_t size) noexcept nogil:
    cdef void* memory = take_output(count * size)
    return memset(memory, 0, count * size) if memory else NULL


cdef void* reallocate(void* context, void* memory, size_t size) noexcept nogil:
    return resize_output(memory, size)


cdef void release(void* context, void* memory, size_t size) noexcept nogil:
    give_back_output(memory)


# How NumPy allocates while it is told to: the array owns its memory like any other.
cdef PyDataMem_Handler output_handler
memcpy(output_handler.name, b"fastdl", 7)
output_handler.version = 1
output_handler.allocator.malloc = allocate
output_handler.allocator.calloc = allocate_zeros
output_handler.allocator.realloc = reallocate
output_handler.allocator.free = release
cdef object from_output_memory = PyCapsule_New(&output_handler, "mem_handler", NULL)

cdef enum:
    # Bytes; below them NumPy's own memory is as fast.
    SMALLEST_BLOCK = 262144
    # No array has more (NPY_MAXDIMS).
    MAX_DIMENSIONS = 64


cdef ndarray new_array(int dimensions, npy_intp* shape, int type_number, double bytes):
    """An uninitialised array."""
    if bytes < SMALLEST_BLOCK:
        return PyArray_SimpleNew(dimensions, shape, type_number)
    usual = PyDataMem_SetHandler(from_output_memory)
    try:
        return PyArray_SimpleNew(dimensions, shape, type_number)
    finally:
        PyDataMem_SetHandler(usual)


def empty(tuple shape, dtype kind):
    """As numpy.empty; large arrays come from the memory of results."""
    cdef npy_intp sizes[MAX_DIMENSIONS]
    cdef double bytes = kind.itemsize
    cdef int axis
    for axis in range(len(shape)):
        sizes[axis] = shape[axis]
        bytes *= <double> sizes[axis]
    return new_array(<int> len(shape), sizes, kind.type_num, bytes)


def memory_state():
    """Bytes: the limit, those kept, those in arrays; blocks made and reused."""
    cdef OutputMemory memory = output_memory()
    return (memory.limit_bytes, memory.kept_bytes, memory.used_bytes, memory.made, memory.reused)


def limit_memory(int64_t bytes):
    """Keep at most so many bytes."""
    limit_output_memory(bytes)


def empty_memory():
    """Give what is kept back to the system."""
    empty_output_memory()


# --- convolution ----------------------------------------------------------------


cdef enum:
    # Multiplications and additions that take longer than to start a thread.
    WORK_OF_A_THREAD = 500000
    # How many of them take as long as to read or write an element.
    WORK_OF_AN_ELEMENT = 4


cdef int threads_for(const ConvGeometry* g) noexcept nogil:
    cdef double work = <double> g.batch * g.filters * g.out_h * g.out_w
    work *= <double> g.channels / g.groups * g.kernel_h * g.kernel_w
    work += <double> WORK_OF_AN_ELEMENT * g.batch * (
        g.channels * g.height * g.width + g.filters * g.out_h * g.out_w)
    cdef double most = 1 + work / WORK_OF_A_THREAD
    cdef int n = threads()
    return n if n < most else <int> most


cdef int convolve(const Table* kernels, Dtype kind, ndarray x, ndarray weight, object packed,
                  object bias, const ConvGeometry* g, Activation activation, int algorithm,
                  ndarray out) except -1:
    cdef void* p = address_of(packed)
    cdef void* b = address_of(bias)
    cdef int n = threads_for(g), failed
    cdef bint pixels = is_channels_last(x)
    with nogil:
        if pixels:
            failed = kernels.channels_last_conv2d(kind, PyArray_DATA(x), PyArray_DATA(weight), p, b,
                                                  g, activation, algorithm, PyArray_DATA(out), n)
        else:
            failed = kernels.conv2d(kind, PyArray_DATA(x), PyArray_DATA(weight), p, b, g,
                                    activation, algorithm, PyArray_DATA(out), n)
    return need_memory(failed)


def conv2d_algorithms(geometry, dtype kind, bint prepared=False):
    cdef ConvGeometry g = conv_geometry(geometry)
    cdef Dtype d = dtype_of_kind(kind)
    cdef int n = threads_for(&g)
    cdef int chosen = table.conv2d_algorithm(d, &g, kAuto, prepared, n)
    serving = [chosen]
    for i in range(1, len(ALGORITHMS) + 1):
        if i != chosen and table.conv2d_algorithm(d, &g, i, prepared, n) == i:
            serving.append(i)
    return tuple([ALGORITHMS[i - 1] for i in serving])


def conv2d_bytes(geometry, dtype kind, algorithm, bint prepared=False):
    cdef ConvGeometry g = conv_geometry(geometry)
    cdef Dtype d = dtype_of_kind(kind)
    cdef int a = algorithm_of(algorithm)
    cdef int64_t packed = table.conv2d_packed_bytes(d, &g, a)
    prepared = prepared and packed > 0
    return table.conv2d_workspace_bytes(d, &g, a, prepared, threads_for(&g)), packed


def conv2d(ndarray x, ndarray weight, bias, geometry, activation, ndarray out,
           algorithm=None):
    cdef ConvGeometry g = conv_geometry(geometry)
    convolve(table, dtype_of(x), x, weight, None, bias, &g, activation_of(activation),
             algorithm_of(algorithm), out)


def conv2d_grad_input(ndarray grad, ndarray weight, geometry, ndarray out, algorithm=None):
    cdef ConvGeometry g = conv_geometry(geometry)
    cdef int n = threads_for(&g), a = algorithm_of(algorithm), failed
    cdef bint pixels = is_channels_last(grad) or is_channels_last(out)
    with nogil:
        if pixels:
            failed = table.channels_last_conv2d_grad_input(
                dtype_of(grad), PyArray_DATA(grad), PyArray_DATA(weight), &g, a, PyArray_DATA(out),
                n)
        else:
            failed = table.conv2d_grad_input(
                dtype_of(grad), PyArray_DATA(grad), PyArray_DATA(weight), &g, a, PyArray_DATA(out),
                n)
    need_memory(failed)


def conv2d_grad_weight(ndarray grad, ndarray x, geometry, ndarray out, algorithm=None):
    cdef ConvGeometry g = conv_geometry(geometry)
    cdef int n = threads_for(&g), a = algorithm_of(algorithm), failed
    cdef bint pixels = is_channels_last(grad) or is_channels_last(x)
    with nogil:
        if pixels:
            failed = table.channels_last_conv2d_grad_weight(
                dtype_of(grad), PyArray_DATA(grad), PyArray_DATA(x), &g, a, PyArray_DATA(out), n)
        else:
            failed = table.conv2d_grad_weight(
                dtype_of(grad), PyArray_DATA(grad), PyArray_DATA(x), &g, a, PyArray_DATA(out), n)
    need_memory(failed)


# An ordinary call is one that needs no word from the checks: plain arrays, laid out as the kernels
# read them, of a geometry that passed before. It is recognised and computed here; None sends every
# other call to the checks, which know what is wrong with it or what it takes.


cdef bint is_ordinary(object value, int type_number, int dimensions, const int64_t* shape):
    if type(value) is not ndarray:
        return False
    cdef ndarray array = value
    if (PyArray_TYPE(array) != type_number or PyArray_NDIM(array) != dimensions
            or not PyArray_ISCARRAY_RO(array)):
        return False
    cdef int axis
    for axis in range(dimensions):
        if PyArray_DIM(array, axis) != shape[axis]:
            return False
    return True


cdef bint lies_pixel_by_pixel(ndarray array) noexcept:
    """Whether an array (N, C, H, W) without gaps is (N, H, W, C) in memory, and aligned."""
    cdef npy_intp expected = PyArray_ITEMSIZE(array)
    cdef int axis
    if PyArray_NDIM(array) != 4 or not PyArray_ISBEHAVED_RO(array):
        return False
    for axis in (1, 3, 2, 0):
        if PyArray_DIM(array, axis) != 1 and PyArray_STRIDE(array, axis) != expected:
            return False
        expected *= PyArray_DIM(array, axis)
    return True


cdef bint is_ordinary_image(object value, int type_number, const int64_t* shape, bint pixels):
    """As `is_ordinary`, in C order or channels-last."""
    if not pixels:
        return is_ordinary(value, type_number, 4, shape)
    if type(value) is not ndarray or PyArray_TYPE(<ndarray> value) != type_number:
        return False
    cdef ndarray array = value
    if not lies_pixel_by_pixel(array):
        return False
    cdef int axis
    for axis in range(4):
        if PyArray_DIM(array, axis) != shape[axis]:
            return False
    return True


cdef ndarray new_image(int64_t* shape, int type_number, double bytes, bint pixels):
    """An uninitialised array of four dimensions, in C order or channels-last."""
    if not pixels:
        return new_array(4, <npy_intp*> shape, type_number, bytes)
    cdef npy_intp[4] memory = [shape[0], shape[2], shape[3], shape[1]]
    return new_array(4, memory, type_number, bytes).transpose(0, 3, 1, 2)


def is_plain(object value, tuple shape, dtype kind):
    """Whether `value` is a C-contiguous, aligned array (no subclass) of this shape and dtype."""
    if type(value) is not ndarray or kind is None:
        return False
    cdef ndarray array = value
    cdef int dimensions = PyArray_NDIM(array)
    if (PyArray_TYPE(array) != kind.type_num or dimensions != PyTuple_GET_SIZE(shape)
            or not PyArray_ISCARRAY_RO(array)):
        return False
    cdef int axis
    for axis in range(dimensions):
        if PyArray_DIM(array, axis) != <npy_intp> shape[axis]:
            return False
    return True


cdef bint are_apart(ndarray first, ndarray second):
    """Whether two contiguous arrays share no memory."""
    cdef uintptr_t a = <uintptr_t> PyArray_DATA(first), b = <uintptr_t> PyArray_DATA(second)
    return a + <uintptr_t> PyArray_NBYTES(first) <= b or b + <uintptr_t> PyArray_NBYTES(second) <= a


cdef bint is_float_array(object value):
    """Whether `value` is a plain array of a served dtype, laid out as the kernels read it."""
    if type(value) is not ndarray:
        return False
    cdef int type_number = PyArray_TYPE(<ndarray> value)
    return ((type_number == cnp.NPY_FLOAT32 or type_number == cnp.NPY_FLOAT64)
            and PyArray_ISCARRAY_RO(<ndarray> value))


cdef object ordinary_out(object out, ndarray x, bint in_place):
    """`out`, or a new array, if it takes a result like x; else None. In place it may be x."""
    cdef int dimensions = PyArray_NDIM(x)
    if out is None:
        return new_array(dimensions, PyArray_DIMS(x), PyArray_TYPE(x), <double> PyArray_NBYTES(x))
    if not (is_ordinary(out, PyArray_TYPE(x), dimensions, <const int64_t*> PyArray_DIMS(x))
            and PyArray_ISWRITEABLE(<ndarray> out)):
        return None
    if in_place and PyArray_DATA(<ndarray> out) == PyArray_DATA(x):
        return out
    return out if are_apart(out, x) else None


cdef object ordinary(const Table* kernels, object x, ndarray weight, object packed, object bias,
                     const ConvGeometry* g, Activation activation, int algorithm, object out):
    """The convolution, `weight` being ordinary; None if something else is not."""
    cdef int type_number = PyArray_TYPE(weight)
    cdef int64_t[4] x_shape = [g.batch, g.channels, g.height, g.width]
    cdef int64_t[4] out_shape = [g.batch, g.filters, g.out_h, g.out_w]
    cdef bint pixels = type(x) is ndarray and is_channels_last(x)
    if not is_ordinary_image(x, type_number, x_shape, pixels):
        return None
    if bias is not None and not is_ordinary(bias, type_number, 1, &g.filters):
        return None
    cdef double bytes = PyArray_ITEMSIZE(weight)
    if out is None:
        bytes *= <double> g.batch * g.filters * g.out_h * g.out_w
        out = new_image(out_shape, type_number, bytes, pixels)
    elif not (is_ordinary_image(out, type_number, out_shape, pixels)
              and PyArray_ISWRITEABLE(<ndarray> out)
              and are_apart(out, x) and are_apart(out, weight)
              and (bias is None or are_apart(out, bias))):
        return None
    convolve(kernels, dtype_of(weight), x, weight, packed, bias, g, activation, algorithm, out)
    return out


cdef enum:
    # What tells one call from another: the shapes, the type, and the arguments as integers.
    KEY = 20
    # One for each remainder of the key's hash: a new geometry takes the place of an old one.
    SEEN = 512

cdef struct Seen:
    int64_t key[KEY]
    ConvGeometry geometry

cdef Seen seen[SEEN]


cdef bint take_integer(object value, int64_t* to) except -1:
    if not PyLong_CheckExact(value):
        return False
    cdef int overflow = 0
    to[0] = PyLong_AsLongLongAndOverflow(value, &overflow)
    return overflow == 0


cdef bint take_pair(object value, int64_t* to) except -1:
    """One integer twice, or two; False if `value` is something else."""
    if PyTuple_CheckExact(value):
        return (len(<tuple> value) == 2 and take_integer((<tuple> value)[0], to)
                and take_integer((<tuple> value)[1], to + 1))
    if not take_integer(value, to):
        return False
    to[1] = to[0]
    return True


cdef bint take_padding(object value, int64_t* to) except -1:
    """Its four sides; words stand for themselves, below every number that is allowed."""
    if PyTuple_CheckExact(value) and len(<tuple> value) == 2:
        return take_pair((<tuple> value)[0], to) and take_pair((<tuple> value)[1], to + 2)
    if type(value) is str and (value == "same" or value == "valid"):
        to[0] = to[1] = to[2] = to[3] = -1 if value == "same" else -2
        return True
    if not take_integer(value, to):
        return False
    to[1] = to[2] = to[3] = to[0]
    return True


cdef Seen* place_of(object x, object weight, object stride, object padding, object dilation,
                    object groups, object activation, object algorithm,
                    int64_t* key) except? NULL:
    """Where a call with these arguments is kept, and its key; NULL if it is not ordinary."""
    if type(x) is not ndarray or type(weight) is not ndarray:
        return NULL
    cdef ndarray images = x, filters = weight
    cdef int type_number = PyArray_TYPE(filters), axis
    if type_number != cnp.NPY_FLOAT32 and type_number != cnp.NPY_FLOAT64:
        return NULL
    if (PyArray_NDIM(images) != 4 or PyArray_NDIM(filters) != 4
            or not PyArray_ISCARRAY_RO(filters)):
        return NULL
    for axis in range(4):
        key[axis] = PyArray_DIM(images, axis)
        key[4 + axis] = PyArray_DIM(filters, axis)
    key[17] = type_number
    key[18] = number_of(activation, ACTIVATIONS)
    key[19] = number_of(algorithm, ALGORITHMS)
    if key[18] < 0 or key[19] < 0 or not (
            take_pair(stride, key + 8) and take_pair(dilation, key + 10)
            and take_padding(padding, key + 12) and take_integer(groups, key + 16)):
        return NULL
    cdef uint64_t hash = 0
    cdef int i
    for i in range(KEY):
        hash = (hash ^ <uint64_t> key[i]) * <uint64_t> 0x9E3779B97F4A7C15
    return &seen[(hash >> 32) % SEEN]


def ordinary_conv2d(x, weight, bias, stride, padding, dilation, groups, activation, algorithm,
                    out):
    """conv2d with these arguments if it is an ordinary call, else None."""
    cdef int64_t key[KEY]
    cdef Seen* place = place_of(x, weight, stride, padding, dilation, groups, activation,
                                algorithm, key)
    if place == NULL or memcmp(key, place.key, sizeof(key)) != 0:
        return None
    return ordinary(table, x, weight, None, bias, &place.geometry, <Activation> key[18],
                    <int> key[19], out)


def remember_conv2d(x, weight, stride, padding, dilation, groups, activation, algorithm,
                    geometry):
    """Take calls with these arguments, which passed every check, for ordinary ones."""
    cdef int64_t key[KEY]
    cdef Seen* place = place_of(x, weight, stride, padding, dilation, groups, activation,
                                algorithm, key)
    if place != NULL:
        place.geometry = conv_geometry(geometry)
        memcpy(place.key, key, sizeof(key))


cdef bint same_bytes(object first, object second):
    """Whether both are None, or arrays (of one size, the first contiguous) of the same bytes."""
    if first is None or second is None:
        return first is second
    return PyArray_ISCARRAY_RO(<ndarray?> second) and memcmp(
        PyArray_DATA(<ndarray> first), PyArray_DATA(<ndarray> second),
        PyArray_NBYTES(<ndarray> first)) == 0


cdef class PreparedConv2d:
    """A convolution of one geometry with its weights, packed for the algorithm.

    Serves by the instruction set that was selected when it was made: others pack otherwise.
    """

    cdef const Table* kernels
    cdef ConvGeometry g
    cdef Activation activation
    cdef int algorithm
    cdef ndarray weight
    cdef object bias, packed

    def __init__(self, ndarray weight, bias, geometry, activation, algorithm):
        self.kernels = table
        self.g = conv_geometry(geometry)
        self.activation = activation_of(activation)
        self.algorithm = algorithm_of(algorithm)
        self.weight, self.bias = weight, bias
        cdef Dtype d = dtype_of(weight)
        cdef npy_intp bytes = self.kernels.conv2d_packed_bytes(d, &self.g, self.algorithm)
        if bytes == 0:
            return
        self.packed = new_array(1, &bytes, cnp.NPY_UINT8, <double> bytes)
        cdef void* to = address_of(self.packed)
        cdef int n = threads()
        with nogil:
            self.kernels.conv2d_pack(d, PyArray_DATA(weight), &self.g, self.algorithm, to, n)

    @property
    def isa(self):
        """Name of its instruction set."""
        return self.kernels.name.decode()

    def holds(self, weight, bias):
        """Whether its arrays have the same bytes as these."""
        return same_bytes(self.weight, weight) and same_bytes(self.bias, bias)

    def ordinary_call(self, x, out):
        """The result for an ordinary x and out (or None), else None."""
        return ordinary(self.kernels, x, self.weight, self.packed, self.bias, &self.g,
                        self.activation, self.algorithm, out)

    def run(self, ndarray x, ndarray out):
        """Compute it, x and out being checked."""
        convolve(self.kernels, dtype_of(x), x, self.weight, self.packed, self.bias, &self.g,
                 self.activation, self.algorithm, out)


def conv2d_grad_bias(ndarray grad, ndarray out):
    cdef NormGeometry g = norm_geometry(grad)
    cdef int n = threads(), failed = 0
    cdef bint pixels = is_channels_last(grad)
    with nogil:
        if pixels:
            failed = table.channels_last_conv2d_grad_bias(dtype_of(grad), PyArray_DATA(grad), &g,
                                                          PyArray_DATA(out), n)
        else:
            table.conv2d_grad_bias(dtype_of(grad), PyArray_DATA(grad), &g, PyArray_DATA(out), n)
    need_memory(failed)


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
    cdef bint pixels = is_channels_last(x)
    with nogil:
        if pixels:
            table.channels_last_max_pool2d(dtype_of(x), PyArray_DATA(x), &g, PyArray_DATA(out),
                                           <int64_t*> i, n)
        else:
            table.max_pool2d(dtype_of(x), PyArray_DATA(x), &g, PyArray_DATA(out), <int64_t*> i, n)


def max_pool2d_backward(ndarray grad, ndarray indices, ndarray out):
    cdef AdaptiveGeometry g = adaptive_geometry(out, grad)
    cdef int n = threads()
    cdef bint in_range, pixels = is_channels_last(grad)
    with nogil:
        if pixels:
            in_range = table.channels_last_max_pool2d_backward(
                dtype_of(grad), PyArray_DATA(grad), <const int64_t*> PyArray_DATA(indices),
                PyArray_DIM(grad, 1), &g, PyArray_DATA(out), n)
        else:
            in_range = table.max_pool2d_backward(
                dtype_of(grad), PyArray_DATA(grad), <const int64_t*> PyArray_DATA(indices), &g,
                PyArray_DATA(out), n)
    return in_range


def avg_pool2d(ndarray x, geometry, bint count_include_pad, divisor, ndarray out):
    cdef PoolGeometry g = pool_geometry(geometry)
    cdef int64_t d = divisor or 0
    cdef int n = threads()
    cdef bint pixels = is_channels_last(x)
    with nogil:
        if pixels:
            table.channels_last_avg_pool2d(dtype_of(x), PyArray_DATA(x), &g, count_include_pad, d,
                                           PyArray_DATA(out), n)
        else:
            table.avg_pool2d(dtype_of(x), PyArray_DATA(x), &g, count_include_pad, d,
                             PyArray_DATA(out), n)


def avg_pool2d_backward(ndarray grad, geometry, bint count_include_pad, divisor, ndarray out):
    cdef PoolGeometry g = pool_geometry(geometry)
    cdef int64_t d = divisor or 0
    cdef int n = threads()
    cdef bint pixels = is_channels_last(grad)
    with nogil:
        if pixels:
            table.channels_last_avg_pool2d_backward(dtype_of(grad), PyArray_DATA(grad), &g,
                                                    count_include_pad, d, PyArray_DATA(out), n)
        else:
            table.avg_pool2d_backward(dtype_of(grad), PyArray_DATA(grad), &g, count_include_pad, d,
                                      PyArray_DATA(out), n)


def adaptive_avg_pool2d(ndarray x, ndarray out):
    cdef AdaptiveGeometry g = adaptive_geometry(x, out)
    cdef int n = threads()
    cdef bint pixels = is_channels_last(x)
    with nogil:
        if pixels:
            table.channels_last_adaptive_avg_pool2d(dtype_of(x), PyArray_DATA(x), PyArray_DIM(x, 1),
                                                    &g, PyArray_DATA(out), n)
        else:
            table.adaptive_avg_pool2d(dtype_of(x), PyArray_DATA(x), &g, PyArray_DATA(out), n)


def adaptive_avg_pool2d_backward(ndarray grad, ndarray out):
    cdef AdaptiveGeometry g = adaptive_geometry(out, grad)
    cdef int n = threads()
    cdef bint pixels = is_channels_last(grad)
    with nogil:
        if pixels:
            table.channels_last_adaptive_avg_pool2d_backward(
                dtype_of(grad), PyArray_DATA(grad), PyArray_DIM(grad, 1), &g, PyArray_DATA(out), n)
        else:
            table.adaptive_avg_pool2d_backward(dtype_of(grad), PyArray_DATA(grad), &g,
                                               PyArray_DATA(out), n)


# --- normalisation --------------------------------------------------------------


def batch_norm_train(ndarray x, weight, bias, double eps, activation, ndarray out, ndarray mean,
                     ndarray var):
    cdef NormGeometry g = norm_geometry(x)
    cdef Activation a = activation_of(activation)
    cdef void* w = address_of(weight)
    cdef void* b = address_of(bias)
    cdef int n = threads(), failed = 0
    cdef bint pixels = is_channels_last(x)
    with nogil:
        if pixels:
            failed = table.channels_last_batch_norm_train(
                dtype_of(x), PyArray_DATA(x), w, b, eps, &g, a, PyArray_DATA(out),
                PyArray_DATA(mean), PyArray_DATA(var), n)
        else:
            table.batch_norm_train(dtype_of(x), PyArray_DATA(x), w, b, eps, &g, a,
                                   PyArray_DATA(out), PyArray_DATA(mean), PyArray_DATA(var), n)
    need_memory(failed)


cdef void move(const floating* batch, double scale, double momentum, npy_intp size,
               char* running, npy_intp stride) noexcept:
    cdef floating* value
    cdef npy_intp c
    for c in range(size):
        value = <floating*> (running + c * stride)
        value[0] = <floating> ((1 - momentum) * value[0] + momentum * (batch[c] * scale))


cdef int move_running(running, ndarray batch, double scale, double momentum) except -1:
    """``running``, which may have any stride, towards a batch's, if it is kept."""
    if running is None:
        return 0
    cdef npy_intp size = PyArray_SIZE(batch), stride = PyArray_STRIDE(<ndarray> running, 0)
    cdef char* place = <char*> PyArray_DATA(<ndarray> running)
    if dtype_of(batch) == kFloat32:
        move(<float*> PyArray_DATA(batch), scale, momentum, size, place, stride)
    else:
        move(<double*> PyArray_DATA(batch), scale, momentum, size, place, stride)
    return 0


cdef void invert(const floating* var, double eps, npy_intp size, floating* inv_std) noexcept:
    cdef npy_intp c
    for c in range(size):
        inv_std[c] = <floating> (1 / sqrt(var[c] + eps))


def batch_norm_track(ndarray mean, ndarray var, int64_t count, double momentum, double eps,
                     running_mean, running_var, ndarray inv_std):
    if dtype_of(var) == kFloat32:
        invert(<float*> PyArray_DATA(var), eps, PyArray_SIZE(var), <float*> PyArray_DATA(inv_std))
    else:
        invert(<double*> PyArray_DATA(var), eps, PyArray_SIZE(var),
               <double*> PyArray_DATA(inv_std))
    move_running(running_mean, mean, 1, momentum)
    move_running(running_var, var, count / <double> (count - 1), momentum)


def normalize(ndarray x, ndarray mean, ndarray var, weight, bias, double eps, activation,
              ndarray out):
    cdef NormGeometry g = norm_geometry(x)
    cdef Activation a = activation_of(activation)
    cdef void* w = address_of(weight)
    cdef void* b = address_of(bias)
    cdef int n = threads(), failed
    cdef bint pixels = is_channels_last(x)
    with nogil:
        if pixels:
            failed = table.channels_last_normalize(
                dtype_of(x), PyArray_DATA(x), PyArray_DATA(mean), PyArray_DATA(var), w, b, eps, &g,
                a, PyArray_DATA(out), n)
        else:
            failed = table.normalize(dtype_of(x), PyArray_DATA(x), PyArray_DATA(mean),
                                     PyArray_DATA(var), w, b, eps, &g, a, PyArray_DATA(out), n)
    need_memory(failed)


def ordinary_normalize(x, mean, var, weight, bias, momentum, eps, activation, out):
    """batch_norm in evaluation with these arguments if it is an ordinary call, else None."""
    if not is_float_array(x) or PyArray_NDIM(<ndarray> x) < 2 or PyArray_SIZE(<ndarray> x) == 0:
        return None
    if type(momentum) is not float or type(eps) is not float:
        return None
    if not (0 <= <double> momentum <= 1 and <double> eps >= 0):
        return None
    if number_of(activation, ACTIVATIONS) < 0:
        return None
    cdef int64_t channels = PyArray_DIM(<ndarray> x, 1)
    cdef bint apart = True
    for number, values in enumerate((mean, var, weight, bias)):
        if values is None and number > 1:
            continue
        if not is_ordinary(values, PyArray_TYPE(<ndarray> x), 1, &channels):
            return None
        apart = apart and (out is None or (type(out) is ndarray and are_apart(out, values)))
    result = ordinary_out(out, x, False) if apart else None
    if result is not None:
        normalize(x, mean, var, weight, bias, eps, activation, result)
    return result


def batch_norm_backward(ndarray grad, ndarray x, ndarray mean, ndarray inv_std, weight,
                        bint training, y, ndarray grad_x, ndarray grad_weight, ndarray grad_bias):
    cdef NormGeometry g = norm_geometry(x)
    cdef void* w = address_of(weight)
    cdef void* activated = address_of(y)
    cdef int n = threads(), failed = 0
    cdef bint pixels = is_channels_last(grad)
    with nogil:
        if pixels:
            failed = table.channels_last_batch_norm_backward(
                dtype_of(x), PyArray_DATA(grad), PyArray_DATA(x), PyArray_DATA(mean),
                PyArray_DATA(inv_std), w, training, activated, &g, PyArray_DATA(grad_x),
                PyArray_DATA(grad_weight), PyArray_DATA(grad_bias), n)
        else:
            table.batch_norm_backward(
                dtype_of(x), PyArray_DATA(grad), PyArray_DATA(x), PyArray_DATA(mean),
                PyArray_DATA(inv_std), w, training, activated, &g, PyArray_DATA(grad_x),
                PyArray_DATA(grad_weight), PyArray_DATA(grad_bias), n)
    need_memory(failed)


# --- linear ---------------------------------------------------------------------


cdef LinearGeometry linear_geometry(ndarray x, ndarray out) noexcept:
    cdef LinearGeometry g
    g.batch, g.inputs, g.outputs = PyArray_DIM(x, 0), PyArray_DIM(x, 1), PyArray_DIM(out, 1)
    return g


def linear(ndarray x, ndarray weight, bias, ndarray out):
    cdef LinearGeometry g = linear_geometry(x, out)
    cdef void* b = address_of(bias)
    cdef int n = threads()
    with nogil:
        table.linear(dtype_of(x), PyArray_DATA(x), PyArray_DATA(weight), b, &g, PyArray_DATA(out),
                     n)


def linear_grad_input(ndarray grad, ndarray weight, ndarray out):
    cdef LinearGeometry g = linear_geometry(out, grad)
    cdef int n = threads()
    with nogil:
        table.linear_grad_input(dtype_of(grad), PyArray_DATA(grad), PyArray_DATA(weight), &g,
                                PyArray_DATA(out), n)


def linear_grad_weight(ndarray grad, ndarray x, ndarray out):
    cdef LinearGeometry g = linear_geometry(x, grad)
    cdef int n = threads()
    with nogil:
        table.linear_grad_weight(dtype_of(grad), PyArray_DATA(grad), PyArray_DATA(x), &g,
                                 PyArray_DATA(out), n)


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


def add(ndarray x, ndarray y, activation, ndarray out):
    cdef Activation a = activation_of(activation)
    cdef int n = threads()
    with nogil:
        table.add(dtype_of(x), PyArray_DATA(x), PyArray_DATA(y), a, PyArray_SIZE(x),
                  PyArray_DATA(out), n)


def ordinary_activation(activation, x, out):
    """An activation, by its name, of x if it is an ordinary call, else None."""
    if not is_float_array(x):
        return None
    result = ordinary_out(out, x, True)
    if result is not None:
        activate(activation_of(activation), x, result)
    return result


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


def ordinary_softmax(x, dim, bint log, out):
    """softmax or log_softmax with these arguments if it is an ordinary call, else None."""
    if type(dim) is not int or dim != -1 or not is_float_array(x):
        return None
    if PyArray_NDIM(<ndarray> x) != 2 or PyArray_SIZE(<ndarray> x) == 0:
        return None
    result = ordinary_out(out, x, False)
    if result is not None:
        row_softmax(x, log, result)
    return result


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


# --- optimisers -----------------------------------------------------------------


RULES = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam")


def optimizer_step(step, list params, list grads, list first, list second, ndarray penalties):
    cdef int rule = RULES.index(step.rule)
    cdef OptimizerStep s
    s.rule = <Rule> rule
    s.lr, s.beta1, s.beta2 = step.lr, step.beta1, step.beta2
    s.eps, s.grad_scale, s.step = step.eps, step.grad_scale, step.step
    cdef int64_t count = len(params), i
    if count == 0:
        return
    cdef Parameter* arrays = <Parameter*> malloc(count * sizeof(Parameter))
    if arrays == NULL:
        raise MemoryError("no memory left for the addresses of an optimiser's arrays")
    cdef Dtype d = dtype_of(params[0])
    cdef const double* numbers = <const double*> PyArray_DATA(penalties)
    cdef int n = threads()
    try:
        for i in range(count):
            arrays[i].values = PyArray_DATA(<ndarray?> params[i])
            arrays[i].grad = PyArray_DATA(<ndarray?> grads[i])
            arrays[i].first = PyArray_DATA(<ndarray?> first[i]) if first else NULL
            arrays[i].second = PyArray_DATA(<ndarray?> second[i]) if second else NULL
            arrays[i].size = PyArray_SIZE(<ndarray?> params[i])
            arrays[i].l1, arrays[i].l2 = numbers[3 * i], numbers[3 * i + 1]
            arrays[i].decay = numbers[3 * i + 2]
        with nogil:
            table.optimizer_step(d, &s, arrays, count, n)
    finally:
        free(arrays)


def sum_of_squares(ndarray x):
    cdef int n = threads()
    cdef double total
    with nogil:
        total = table.sum_of_squares(dtype_of(x), PyArray_DATA(x), PyArray_SIZE(x), n)
    return total
