// The table of this instruction set.
#include "families.h"

#define FASTDL_STRING_OF(name) #name
#define FASTDL_STRING(name) FASTDL_STRING_OF(name)

namespace fastdl::FASTDL_ISA {

extern const Table table;

// In the order of fastdl_kernels.h.
const Table table = {
    FASTDL_STRING(FASTDL_ISA),
    conv2d_algorithm,
    conv2d_packed_bytes,
    conv2d_pack,
    conv2d_workspace_bytes,
    conv2d,
    conv2d_grad_input,
    conv2d_grad_weight,
    conv2d_grad_bias,
    im2col,
    col2im,
    max_pool2d,
    max_pool2d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    batch_norm_train,
    normalize,
    batch_norm_backward,
    linear,
    linear_grad_input,
    linear_grad_weight,
    activate,
    add,
    activate_backward,
    dropout,
    softmax,
    softmax_backward,
    optimizer_step,
    sum_of_squares,
    multiply_add,
    read_bytes,
    write_bytes,
    channels_last_conv2d,
    channels_last_conv2d_grad_input,
    channels_last_conv2d_grad_weight,
    channels_last_conv2d_grad_bias,
    channels_last_max_pool2d,
    channels_last_max_pool2d_backward,
    channels_last_avg_pool2d,
    channels_last_avg_pool2d_backward,
    channels_last_adaptive_avg_pool2d,
    channels_last_adaptive_avg_pool2d_backward,
    channels_last_batch_norm_train,
    channels_last_normalize,
    channels_last_batch_norm_backward,
};

}  // namespace fastdl::FASTDL_ISA
