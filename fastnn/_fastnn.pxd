# The C library as the binding sees it: fastnn.h and fnn_internal.h, one to one, no logic.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef extern from "fastnn.h" nogil:
    ctypedef enum fnn_status:
        FNN_OK
        FNN_ENOMEM
        FNN_EINVAL
        FNN_EOVERFLOW
        FNN_EDIVERGED
        FNN_EINTERRUPTED
        FNN_EIO
        FNN_ENOTREADY
        FNN_ENOISA
        FNN_EFORMAT
        FNN_EVERSION

    const char *fnn_status_text(fnn_status status)
    const char *fnn_version()

    ctypedef enum fnn_dtype:
        FNN_FLOAT32
        FNN_FLOAT64
        FNN_UINT8
        FNN_INT8
        FNN_UINT16
        FNN_INT16
        FNN_UINT32
        FNN_INT32
        FNN_UINT64
        FNN_INT64

    ctypedef enum fnn_activation:
        FNN_IDENTITY
        FNN_RELU
        FNN_LEAKY_RELU
        FNN_ELU
        FNN_SELU
        FNN_GELU
        FNN_SILU
        FNN_SOFTPLUS
        FNN_TANH
        FNN_SIGMOID
        FNN_SOFTMAX

    ctypedef enum fnn_layer_kind:
        FNN_DENSE
        FNN_BATCHNORM
        FNN_DROPOUT
        FNN_ACTIVATION
        FNN_SCALE
        FNN_STANDARDIZE

    ctypedef enum fnn_init:
        FNN_INIT_DEFAULT
        FNN_ZEROS
        FNN_CONSTANT
        FNN_UNIFORM
        FNN_NORMAL
        FNN_FAN_IN_UNIFORM
        FNN_LECUN_UNIFORM
        FNN_LECUN_NORMAL
        FNN_XAVIER_UNIFORM
        FNN_XAVIER_NORMAL
        FNN_HE_UNIFORM
        FNN_HE_NORMAL
        FNN_ORTHOGONAL

    ctypedef enum fnn_penalty_kind:
        FNN_PENALTY_DEFAULT
        FNN_L1
        FNN_PROXIMAL_L1
        FNN_L2
        FNN_ELASTIC_NET

    ctypedef struct fnn_penalty:
        fnn_penalty_kind kind
        double lam
        double beta

    ctypedef struct fnn_layer:
        fnn_layer_kind kind
        fnn_activation activation
        double alpha
        size_t units
        int use_bias
        fnn_init init
        double init_value
        fnn_penalty penalty
        int trainable
        double eps
        double decay
        int unbiased
        double p
        int test_scaling
        int given

    ctypedef struct fnn_net:
        pass

    fnn_status fnn_net_create(fnn_net **net, const fnn_layer *layers, size_t n_layers, size_t input_size,
                              fnn_dtype dtype, uint64_t seed)
    void fnn_net_free(fnn_net *net)
    size_t fnn_net_input_size(const fnn_net *net)
    size_t fnn_net_output_size(const fnn_net *net)
    fnn_dtype fnn_net_dtype(const fnn_net *net)
    uint64_t fnn_net_seed(const fnn_net *net)
    size_t fnn_net_layer_count(const fnn_net *net)
    fnn_status fnn_net_layer(const fnn_net *net, size_t index, fnn_layer *layer)
    fnn_status fnn_net_initialize(fnn_net *net)

    ctypedef struct fnn_tensor:
        char name[32]
        size_t layer
        size_t rows
        size_t columns
        size_t stride
        size_t offset
        int trainable

    size_t fnn_net_tensor_count(const fnn_net *net)
    fnn_status fnn_net_tensor(const fnn_net *net, size_t index, fnn_tensor *tensor)
    void *fnn_net_parameters(fnn_net *net)
    size_t fnn_net_trainable_size(const fnn_net *net)
    size_t fnn_net_arena_size(const fnn_net *net)

    ctypedef struct fnn_features:
        const void *data
        fnn_dtype dtype
        Py_ssize_t row_stride
        Py_ssize_t column_stride
        size_t rows

    fnn_status fnn_predict(fnn_net *net, void *out, const fnn_features *x, int n_threads)
    fnn_status fnn_net_freeze(fnn_net *net)
    int fnn_net_frozen(const fnn_net *net)

    ctypedef enum fnn_link:
        FNN_LINK_NONE
        FNN_LINK_IDENTITY
        FNN_LINK_SIGMOID
        FNN_LINK_SOFTMAX
        FNN_LINK_EXP

    fnn_link fnn_net_link(const fnn_net *net)

    ctypedef enum fnn_optimizer_kind:
        FNN_SGD
        FNN_RMSPROP
        FNN_ADAM

    ctypedef struct fnn_optimizer:
        fnn_optimizer_kind kind
        double momentum
        int nesterov
        double beta1
        double beta2
        double eps
        double weight_decay
        double decoupled_decay

    ctypedef enum fnn_clip_kind:
        FNN_CLIP_NONE
        FNN_CLIP_VALUE
        FNN_CLIP_NORM
        FNN_CLIP_TENSOR_NORM

    ctypedef struct fnn_clip:
        fnn_clip_kind kind
        double low
        double high

    ctypedef enum fnn_loss_kind:
        FNN_CROSS_ENTROPY
        FNN_BINARY_CROSS_ENTROPY
        FNN_MSE
        FNN_MAE
        FNN_HUBER
        FNN_POISSON

    ctypedef struct fnn_loss:
        fnn_loss_kind kind
        double parameter

    ctypedef struct fnn_targets:
        const int32_t *labels
        const void *values
        const double *weights

    fnn_status fnn_net_configure(fnn_net *net, const fnn_optimizer *optimizer, const fnn_clip *clip,
                                 const fnn_penalty *penalty)

    ctypedef enum fnn_poll:
        FNN_POLL_CONTINUE
        FNN_POLL_STOP
        FNN_POLL_ABANDON
    ctypedef fnn_poll (*fnn_poll_function)(void *argument) noexcept

    ctypedef struct fnn_run:
        const fnn_features *x
        const fnn_targets *y
        const fnn_loss *loss
        const int64_t *order
        const size_t *batch_starts
        size_t n_batches
        size_t micro_batch
        const double *learning_rates
        void *outputs
        fnn_poll_function poll
        void *poll_argument
        int n_threads
        double loss_sum_before
        double weight_sum_before
        double loss_sum
        double weight_sum
        size_t batches_done
        double failed_loss
        size_t failed_layer

    fnn_status fnn_train(fnn_net *net, fnn_run *run)

    ctypedef struct fnn_counters:
        uint64_t passes
        uint64_t updates

    fnn_counters fnn_net_counters(const fnn_net *net)
    void fnn_net_reset(fnn_net *net)
    fnn_status fnn_permutation(int64_t *order, size_t n, uint64_t seed, uint64_t epoch)

    ctypedef struct fnn_detail:
        int system_error
        char text[248]

    ctypedef enum fnn_contents:
        FNN_MODEL
        FNN_CHECKPOINT

    int fnn_get_num_threads()
    fnn_status fnn_set_num_threads(int n)
    fnn_status fnn_isa_name(const char **name)

cdef extern from "fnn_internal.h" nogil:
    fnn_status fnn_forward(fnn_net *net, void *out, const fnn_features *x, const int64_t *rows, size_t m, int n_threads)
    fnn_status fnn_backward(fnn_net *net, void *dx, const void *dy, size_t m, int n_threads)
    fnn_status fnn_apply_gradients(fnn_net *net, double learning_rate, double batch_weight, double *squared_norm,
                                   int n_threads)
    fnn_status fnn_net_scale_objective(fnn_net *net, double loss_scale, int penalty_per_weight)
    ctypedef struct fnn_measures:
        uint64_t steps
        uint64_t clipped
        double *norm_sums
    fnn_status fnn_net_measure(fnn_net *net, int on)
    fnn_status fnn_net_take_measures(fnn_net *net, fnn_measures *measures, double *norm_sums)
    size_t fnn_net_failed_layer(const fnn_net *net)
    void *fnn_net_gradients(fnn_net *net)
    void *fnn_net_moments(fnn_net *net, int index)
    void fnn_net_set_counters(fnn_net *net, fnn_counters counters)
    fnn_status fnn_net_copy_state(fnn_net *to, const fnn_net *from_)
    fnn_activation fnn_net_fused_output(const fnn_net *net, fnn_loss_kind loss)
    double fnn_net_penalty(fnn_net *net)
    void fnn_set_work_per_thread(double work)

    fnn_status fnn_predict_layers(fnn_net *net, void *out, const fnn_features *x, size_t n_layers, int n_threads)
    size_t fnn_net_layer_width(const fnn_net *net, size_t layer)
    fnn_status fnn_predict_finite(fnn_net *net, void *out, const fnn_features *x, int n_threads)
    fnn_status fnn_predict_for_loss(fnn_net *net, void *out, const fnn_features *x, fnn_loss_kind loss, int n_threads)
    fnn_status fnn_loss_value(fnn_net *net, double *value, const void *outputs, const fnn_targets *y,
                              const fnn_loss *loss, size_t rows)
    fnn_status fnn_predict_mc(fnn_net *net, void *mean, void *deviation, const fnn_features *x, uint64_t first_row,
                              size_t samples, uint64_t seed, int n_threads)
    fnn_status fnn_predict_expected(fnn_net *net, double *sum, const fnn_features *x, uint64_t first_mask,
                                    uint64_t end_mask, int n_threads)
    size_t fnn_net_dropout_units(const fnn_net *net)
    fnn_status fnn_activate(fnn_net *net, void *array, fnn_activation activation, double alpha, size_t rows,
                            size_t columns)

    fnn_status fnn_find_nonfinite(fnn_net *net, const fnn_features *x, size_t *row, size_t *column)

    unsigned fnn_fork_generation()
    uint64_t fnn_allocation_count()
    int fnn_thread_failures()
    const char *fnn_compiler()
    const char *fnn_runnable_isa(size_t index)
    void fnn_fail_allocation(uint64_t n, int from_then_on)
    void fnn_fail_thread_start(uint64_t n, int from_then_on)
    void fnn_fail_io(uint64_t n, int from_then_on, int error)

    ctypedef struct fnn_attachment:
        const char *name
        fnn_dtype dtype
        size_t rows
        size_t columns
        const void *data

    fnn_status fnn_model_save(const fnn_net *net, const char *path, fnn_contents contents,
                              const fnn_attachment *attachments, size_t n, fnn_detail *detail)
    fnn_status fnn_model_save_memory(const fnn_net *net, void *bytes, size_t *size, fnn_contents contents,
                                     const fnn_attachment *attachments, size_t n, fnn_detail *detail)

    ctypedef struct fnn_model:
        pass

    fnn_status fnn_model_open(fnn_model **model, const char *path, fnn_detail *detail)
    fnn_status fnn_model_open_memory(fnn_model **model, const void *bytes, size_t size, fnn_detail *detail)
    void fnn_model_close(fnn_model *model)
    fnn_status fnn_model_net(fnn_model *model, fnn_net **net, fnn_detail *detail)
    fnn_contents fnn_model_contents(const fnn_model *model)
    size_t fnn_model_attachment_count(const fnn_model *model)
    fnn_attachment fnn_model_attachment(const fnn_model *model, size_t index)
    uint32_t fnn_crc32(uint32_t crc, const void *bytes, size_t size)
    void fnn_net_set_link(fnn_net *net, fnn_link link)
