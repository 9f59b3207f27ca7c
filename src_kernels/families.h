// The entries of every kernel family for one instruction set: what table.cpp lists.
// fastdl_kernels.h says what the arguments are, fastdl/backends/table.py what is computed.
#pragma once

#include "isa.h"

namespace fastdl::FASTDL_ISA {

// algorithm.cpp
int conv2d_algorithm(Dtype, const ConvGeometry*, int algorithm, bool packed, int threads);
int64_t conv2d_packed_bytes(Dtype, const ConvGeometry*, int algorithm);
void conv2d_pack(Dtype, const void* weight, const ConvGeometry*, int algorithm, void* packed,
                 int threads);
int64_t conv2d_workspace_bytes(Dtype, const ConvGeometry*, int algorithm, bool packed,
                               int threads);

// conv.cpp, conv_backward.cpp
int conv2d(Dtype, const void* x, const void* weight, const void* packed, const void* bias,
           const ConvGeometry*, Activation, int algorithm, void* out, int threads);
int conv2d_grad_input(Dtype, const void* grad, const void* weight, const ConvGeometry*,
                      int algorithm, void* out, int threads);
int conv2d_grad_weight(Dtype, const void* grad, const void* x, const ConvGeometry*, int algorithm,
                       void* out, int threads);

// channels_last_conv.cpp
int channels_last_conv2d(Dtype, const void* x, const void* weight, const void* packed,
                         const void* bias, const ConvGeometry*, Activation, int algorithm,
                         void* out, int threads);

// channels_last_backward.cpp
int channels_last_conv2d_grad_input(Dtype, const void* grad, const void* weight,
                                    const ConvGeometry*, int algorithm, void* out, int threads);
int channels_last_conv2d_grad_weight(Dtype, const void* grad, const void* x, const ConvGeometry*,
                                     int algorithm, void* out, int threads);

// channels_last_pool.cpp
void channels_last_max_pool2d(Dtype, const void* x, const PoolGeometry*, void* out,
                              int64_t* indices, int threads);
bool channels_last_max_pool2d_backward(Dtype, const void* grad, const int64_t* indices,
                                       int64_t channels, const AdaptiveGeometry*, void* out,
                                       int threads);
void channels_last_avg_pool2d(Dtype, const void* x, const PoolGeometry*, bool count_include_pad,
                              int64_t divisor, void* out, int threads);
void channels_last_avg_pool2d_backward(Dtype, const void* grad, const PoolGeometry*,
                                       bool count_include_pad, int64_t divisor, void* out,
                                       int threads);
void channels_last_adaptive_avg_pool2d(Dtype, const void* x, int64_t channels,
                                       const AdaptiveGeometry*, void* out, int threads);
void channels_last_adaptive_avg_pool2d_backward(Dtype, const void* grad, int64_t channels,
                                                const AdaptiveGeometry*, void* out, int threads);

// channels_last_norm.cpp
int channels_last_conv2d_grad_bias(Dtype, const void* grad, const NormGeometry*, void* out,
                                   int threads);
int channels_last_batch_norm_train(Dtype, const void* x, const void* weight, const void* bias,
                                   double eps, const NormGeometry*, Activation, void* out,
                                   void* mean, void* var, int threads);
int channels_last_normalize(Dtype, const void* x, const void* mean, const void* var,
                            const void* weight, const void* bias, double eps,
                            const NormGeometry*, Activation, void* out, int threads);
int channels_last_batch_norm_backward(Dtype, const void* grad, const void* x, const void* mean,
                                      const void* inv_std, const void* weight, bool training,
                                      const void* y, const NormGeometry*, void* grad_x,
                                      void* grad_weight, void* grad_bias, int threads);

// columns.cpp
void im2col(Dtype, const void* x, const ConvGeometry*, void* out, int threads);
void col2im(Dtype, const void* col, const ConvGeometry*, void* out, int threads);

// pool.cpp
void max_pool2d(Dtype, const void* x, const PoolGeometry*, void* out, int64_t* indices,
                int threads);
bool max_pool2d_backward(Dtype, const void* grad, const int64_t* indices,
                         const AdaptiveGeometry*, void* out, int threads);
void avg_pool2d(Dtype, const void* x, const PoolGeometry*, bool count_include_pad, int64_t divisor,
                void* out, int threads);
void avg_pool2d_backward(Dtype, const void* grad, const PoolGeometry*, bool count_include_pad,
                         int64_t divisor, void* out, int threads);
void adaptive_avg_pool2d(Dtype, const void* x, const AdaptiveGeometry*, void* out, int threads);
void adaptive_avg_pool2d_backward(Dtype, const void* grad, const AdaptiveGeometry*, void* out,
                                  int threads);

// norm.cpp
void conv2d_grad_bias(Dtype, const void* grad, const NormGeometry*, void* out, int threads);
void batch_norm_train(Dtype, const void* x, const void* weight, const void* bias, double eps,
                      const NormGeometry*, Activation, void* out, void* mean, void* var,
                      int threads);
int normalize(Dtype, const void* x, const void* mean, const void* var, const void* weight,
              const void* bias, double eps, const NormGeometry*, Activation, void* out,
              int threads);
void batch_norm_backward(Dtype, const void* grad, const void* x, const void* mean,
                         const void* inv_std, const void* weight, bool training, const void* y,
                         const NormGeometry*, void* grad_x, void* grad_weight, void* grad_bias,
                         int threads);

// linear.cpp
void linear(Dtype, const void* x, const void* weight, const void* bias, const LinearGeometry*,
            void* out, int threads);
void linear_grad_input(Dtype, const void* grad, const void* weight, const LinearGeometry*,
                       void* out, int threads);
void linear_grad_weight(Dtype, const void* grad, const void* x, const LinearGeometry*, void* out,
                        int threads);

// activation.cpp
void activate(Dtype, Activation, const void* x, int64_t size, void* out, int threads);
void add(Dtype, const void* x, const void* y, Activation, int64_t size, void* out, int threads);
void activate_backward(Dtype, Activation, const void* grad, const void* saved, int64_t size,
                       void* out, int threads);
void dropout(Dtype, const void* x, const uint8_t* mask, double scale, int64_t size, void* out,
             int threads);

// softmax.cpp
void softmax(Dtype, const void* x, int64_t rows, int64_t columns, bool log, void* out,
             int threads);
void softmax_backward(Dtype, const void* grad, const void* y, int64_t rows, int64_t columns,
                      bool log, void* out, int threads);

// optimizer.cpp
void optimizer_step(Dtype, const OptimizerStep*, Parameter*, int64_t count, int threads);
double sum_of_squares(Dtype, const void* x, int64_t size, int threads);

// limits.cpp
double multiply_add(Dtype, int64_t operations, int threads);
double read_bytes(const void* data, int64_t size, int threads);
void write_bytes(const void* from, void* to, int64_t size, int threads);

}  // namespace fastdl::FASTDL_ISA
