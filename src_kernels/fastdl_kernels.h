// What passes between the extension module and the kernels: plain structs and a
// table of function pointers, one table for each instruction set.
//
// Every array is C-contiguous, aligned and checked. `dtype` says what the void
// pointers hold. Each kernel uses at most `threads` threads. Those that return
// an int need memory of their own, and return 0, or 1 if there is none.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>

namespace fastdl {

enum Dtype { kFloat32 = 0, kFloat64 = 1 };
enum Activation { kIdentity = 0, kRelu = 1, kSigmoid = 2, kTanh = 3 };
// How a convolution is computed; kAuto: by what is fastest.
enum Algorithm { kAuto = 0, kDirect = 1, kDepthwise = 2, kWinograd = 3 };

// fastdl.geometry.ConvGeometry, field for field.
struct ConvGeometry {
  int64_t batch, channels, height, width, filters, kernel_h, kernel_w, stride_h, stride_w, pad_top,
      pad_left, dilation_h, dilation_w, groups, out_h, out_w;
};

// fastdl.geometry.PoolGeometry, field for field.
struct PoolGeometry {
  int64_t batch, channels, height, width, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w,
      dilation_h, dilation_w, out_h, out_w;
};

// The sizes of an adaptive pool: `planes` planes of height x width to out_h x out_w.
struct AdaptiveGeometry {
  int64_t planes, height, width, out_h, out_w;
};

// (N, C, S): batch normalisation sees an image's pixels as one axis.
struct NormGeometry {
  int64_t batch, channels, size;
};

// fastdl.backends.table.Rule, in that order.
enum Rule { kSgd = 0, kMomentum = 1, kNesterov = 2, kAdaGrad = 3, kRmsProp = 4, kAdam = 5 };

// fastdl.backends.table.OptimizerStep.
struct OptimizerStep {
  Rule rule;
  double lr, beta1, beta2, eps, grad_scale;
  int64_t step;
};

// One array of `size` parameters: its gradient, the state that the rule keeps (null if none), and what
// keeps the parameters small.
struct Parameter {
  void* values;
  const void* grad;
  void* first;
  void* second;
  int64_t size;
  double l1, l2, decay;
  int64_t start;  // the kernel's own
};

// A fully connected layer: (batch, inputs) to (batch, outputs).
struct LinearGeometry {
  int64_t batch, inputs, outputs;
};

// The kernels of fastdl/backends/table.py, which says what each computes.
struct Table {
  const char* name;

  // algorithm.cpp: what a call takes if it wants `algorithm`, or -1 if that does not serve, with
  // weights that are packed beforehand or not; the bytes of the weights as an algorithm reads them,
  // 0 if it takes them as they are; the making of those; and the memory that a call works in, on
  // all threads.
  int (*conv2d_algorithm)(Dtype, const ConvGeometry*, int algorithm, bool packed, int threads);
  int64_t (*conv2d_packed_bytes)(Dtype, const ConvGeometry*, int algorithm);
  void (*conv2d_pack)(Dtype, const void* weight, const ConvGeometry*, int algorithm, void* packed,
                      int threads);
  int64_t (*conv2d_workspace_bytes)(Dtype, const ConvGeometry*, int algorithm, bool packed,
                                    int threads);

  // conv.cpp, conv_backward.cpp; packed and bias may be null, the algorithm must serve
  int (*conv2d)(Dtype, const void* x, const void* weight, const void* packed, const void* bias,
                const ConvGeometry*, Activation, int algorithm, void* out, int threads);
  int (*conv2d_grad_input)(Dtype, const void* grad, const void* weight, const ConvGeometry*,
                           int algorithm, void* out, int threads);
  int (*conv2d_grad_weight)(Dtype, const void* grad, const void* x, const ConvGeometry*,
                            int algorithm, void* out, int threads);
  void (*conv2d_grad_bias)(Dtype, const void* grad, const NormGeometry*, void* out, int threads);

  // columns.cpp
  void (*im2col)(Dtype, const void* x, const ConvGeometry*, void* out, int threads);
  void (*col2im)(Dtype, const void* col, const ConvGeometry*, void* out, int threads);

  // pool.cpp; indices may be null, divisor 0 stands for "the window's size"
  void (*max_pool2d)(Dtype, const void* x, const PoolGeometry*, void* out, int64_t* indices,
                     int threads);
  bool (*max_pool2d_backward)(Dtype, const void* grad, const int64_t* indices,
                              const AdaptiveGeometry*, void* out, int threads);
  void (*avg_pool2d)(Dtype, const void* x, const PoolGeometry*, bool count_include_pad,
                     int64_t divisor, void* out, int threads);
  void (*avg_pool2d_backward)(Dtype, const void* grad, const PoolGeometry*, bool count_include_pad,
                              int64_t divisor, void* out, int threads);
  void (*adaptive_avg_pool2d)(Dtype, const void* x, const AdaptiveGeometry*, void* out,
                              int threads);
  void (*adaptive_avg_pool2d_backward)(Dtype, const void* grad, const AdaptiveGeometry*, void* out,
                                       int threads);

  // norm.cpp; weight and bias may be null, and y where no relu followed
  void (*batch_norm_train)(Dtype, const void* x, const void* weight, const void* bias, double eps,
                           const NormGeometry*, Activation, void* out, void* mean, void* var,
                           int threads);
  int (*normalize)(Dtype, const void* x, const void* mean, const void* var, const void* weight,
                   const void* bias, double eps, const NormGeometry*, Activation, void* out,
                   int threads);
  void (*batch_norm_backward)(Dtype, const void* grad, const void* x, const void* mean,
                              const void* inv_std, const void* weight, bool training,
                              const void* y, const NormGeometry*, void* grad_x,
                              void* grad_weight, void* grad_bias, int threads);

  // linear.cpp; bias may be null
  void (*linear)(Dtype, const void* x, const void* weight, const void* bias,
                 const LinearGeometry*, void* out, int threads);
  void (*linear_grad_input)(Dtype, const void* grad, const void* weight, const LinearGeometry*,
                            void* out, int threads);
  void (*linear_grad_weight)(Dtype, const void* grad, const void* x, const LinearGeometry*,
                             void* out, int threads);

  // activation.cpp; `size` elements
  void (*activate)(Dtype, Activation, const void* x, int64_t size, void* out, int threads);
  void (*add)(Dtype, const void* x, const void* y, Activation, int64_t size, void* out, int threads);
  void (*activate_backward)(Dtype, Activation, const void* grad, const void* saved, int64_t size,
                            void* out, int threads);
  void (*dropout)(Dtype, const void* x, const uint8_t* mask, double scale, int64_t size, void* out,
                  int threads);

  // softmax.cpp; `rows` rows of `columns`
  void (*softmax)(Dtype, const void* x, int64_t rows, int64_t columns, bool log, void* out,
                  int threads);
  void (*softmax_backward)(Dtype, const void* grad, const void* y, int64_t rows, int64_t columns,
                           bool log, void* out, int threads);

  // optimizer.cpp; `count` arrays of one dtype
  void (*optimizer_step)(Dtype, const OptimizerStep*, Parameter*, int64_t count, int threads);
  double (*sum_of_squares)(Dtype, const void* x, int64_t size, int threads);

  // limits.cpp: `operations` multiplications and additions on each thread, a few more where they are
  // no multiple of the unrolled loop;
  // one reading of `size` bytes (whole 64 KiB blocks); one writing past the caches, of `from` or,
  // where that is null, of ones (`to` aligned to 64 bytes)
  double (*multiply_add)(Dtype, int64_t operations, int threads);
  double (*read_bytes)(const void* data, int64_t size, int threads);
  void (*write_bytes)(const void* from, void* to, int64_t size, int threads);

  // channels_last_*.cpp: as their namesakes above, of images that are (N, H, W, C) in memory
  int (*channels_last_conv2d)(Dtype, const void* x, const void* weight, const void* packed,
                              const void* bias, const ConvGeometry*, Activation, int algorithm,
                              void* out, int threads);
  int (*channels_last_conv2d_grad_input)(Dtype, const void* grad, const void* weight,
                                         const ConvGeometry*, int algorithm, void* out,
                                         int threads);
  int (*channels_last_conv2d_grad_weight)(Dtype, const void* grad, const void* x,
                                          const ConvGeometry*, int algorithm, void* out,
                                          int threads);
  int (*channels_last_conv2d_grad_bias)(Dtype, const void* grad, const NormGeometry*, void* out,
                                        int threads);
  void (*channels_last_max_pool2d)(Dtype, const void* x, const PoolGeometry*, void* out,
                                   int64_t* indices, int threads);
  bool (*channels_last_max_pool2d_backward)(Dtype, const void* grad, const int64_t* indices,
                                            int64_t channels, const AdaptiveGeometry*, void* out,
                                            int threads);
  void (*channels_last_avg_pool2d)(Dtype, const void* x, const PoolGeometry*,
                                   bool count_include_pad, int64_t divisor, void* out,
                                   int threads);
  void (*channels_last_avg_pool2d_backward)(Dtype, const void* grad, const PoolGeometry*,
                                            bool count_include_pad, int64_t divisor, void* out,
                                            int threads);
  void (*channels_last_adaptive_avg_pool2d)(Dtype, const void* x, int64_t channels,
                                            const AdaptiveGeometry*, void* out, int threads);
  void (*channels_last_adaptive_avg_pool2d_backward)(Dtype, const void* grad, int64_t channels,
                                                     const AdaptiveGeometry*, void* out,
                                                     int threads);
  int (*channels_last_batch_norm_train)(Dtype, const void* x, const void* weight, const void* bias,
                                        double eps, const NormGeometry*, Activation, void* out,
                                        void* mean, void* var, int threads);
  int (*channels_last_normalize)(Dtype, const void* x, const void* mean, const void* var,
                                 const void* weight, const void* bias, double eps,
                                 const NormGeometry*, Activation, void* out, int threads);
  int (*channels_last_batch_norm_backward)(Dtype, const void* grad, const void* x,
                                           const void* mean, const void* inv_std,
                                           const void* weight, bool training, const void* y,
                                           const NormGeometry*, void* grad_x, void* grad_weight,
                                           void* grad_bias, int threads);
};

// dispatch.cpp: the instruction sets that were built, from the lowest up, and which of them this
// processor and operating system can run.
int table_count();
const Table* table_at(int index);
bool table_runs_here(int index);

// processors.cpp: the thread that starts a parallel loop, and its processor, for the helpers to leave.
// Linux may put a thread that wakes on the processor of the one that woke it, though another idles:
// after a time of high load it does not look for an idle one. The two then take turns until the load
// is balanced, some 4 ms later, which is longer than most kernels take.
class Caller {
 public:
  explicit Caller(int threads);
  // Called by each of `threads`: a helper moves to another processor, if it is on the caller's.
  // Threads that the user has bound to processors stay.
  void make_room() const;

 private:
  int threads_, processor_;
  pthread_t thread_;
};

// memory.cpp: memory of the calling thread, at least `bytes` long and aligned to 64 bytes, kept
// for the next call and freed when the thread ends. A thread has one of each: the next call takes
// it back. The shared one is for what the calling thread makes and all threads of a call read.
void* workspace(int64_t bytes);
void* shared_workspace(int64_t bytes);
// Bytes of the largest cache, asked of the system once.
int64_t last_level_cache();
// Makes the module safe to fork.
void install_fork_handler();

// output_memory.cpp: memory of results, at least `bytes` long and aligned to 64 bytes, kept for the
// next result once it is given back. Any thread may call these.
struct OutputMemory {
  int64_t limit_bytes, kept_bytes, used_bytes, made, reused;
};
void* take_output(size_t bytes);
void give_back_output(void* memory);
void* resize_output(void* memory, size_t bytes);
OutputMemory output_memory();
void limit_output_memory(int64_t bytes);
void empty_output_memory();
void install_output_fork_handler();

}  // namespace fastdl
