// Softmax cross-entropy and the count of right answers: one warp a row of logits (n, classes), 8 rows a block.
// Each row leaves a number; column_sums of sums.cu adds them up, always in the same order.

#include "vector.cuh"

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;  // every lane takes part: a row belongs to the whole warp

__device__ inline float warp_max(float x) {
    for (int apart = WARP / 2; apart > 0; apart /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, apart));
    return x;
}

__device__ inline float warp_sum(float x) {
    for (int apart = WARP / 2; apart > 0; apart /= 2) x += __shfl_xor_sync(ALL, x, apart);
    return x;
}

__device__ inline index_t warp_row() { return (index_t(blockIdx.x) * blockDim.x + threadIdx.x) / WARP; }
__device__ inline index_t warp_rows() { return index_t(gridDim.x) * blockDim.x / WARP; }

// logits, labels -> losses (n) and dlogits = (p - target) / n.  A label of no class has no target.
template <class T>
__global__ void softmax_rows(const T* __restrict__ logits, const index_t* __restrict__ labels, float smoothing,
                             index_t n, int classes, double* __restrict__ losses, T* __restrict__ dlogits) {
    const int lane = threadIdx.x % WARP;
    const float base = smoothing / float(classes), sure = 1.0f - smoothing;
    for (index_t row = warp_row(); row < n; row += warp_rows()) {
        const T* z = logits + row * classes;
        float top = __int_as_float(int(0xff800000u));
        for (int k = lane; k < classes; k += WARP) top = fmaxf(top, widen(z[k]));
        top = warp_max(top);
        float total = 0, plain = 0;
        for (int k = lane; k < classes; k += WARP) {
            const float shifted = widen(z[k]) - top;
            total += expf(shifted);
            plain += shifted;
        }
        total = warp_sum(total);
        plain = warp_sum(plain);
        const index_t label = labels[row];
        for (int k = lane; k < classes; k += WARP) {
            const float target = base + (k == label ? sure : 0.0f);
            narrow((expf(widen(z[k]) - top) / total - target) / float(n), dlogits[row * classes + k]);
        }
        if (lane == 0) {
            const float log_total = logf(total);
            // without smoothing a logit of minus infinity costs nothing where it is not asked for
            double loss = base > 0 ? -double(base) * (double(plain) - double(classes) * log_total) : 0.0;
            if (label >= 0 && label < classes) loss -= double(sure) * ((widen(z[label]) - top) - log_total);
            losses[row] = loss;
        }
    }
}

// Whether the value at k beats the one at best: greater, or equal and earlier; NaN is the greatest, as in argmax.
__device__ inline bool beats(float value, int k, float best, int best_k) {
    const bool nan = value != value, best_nan = best != best;
    if (nan != best_nan) return nan;
    return value > best || ((nan || value == best) && k < best_k);
}

// logits, labels -> hits (n): 1 where the row has its first maximum at the label, and no NaN.
template <class T>
__global__ void correct_rows(const T* __restrict__ logits, const index_t* __restrict__ labels, index_t n, int classes,
                             float* __restrict__ hits) {
    const int lane = threadIdx.x % WARP;
    for (index_t row = warp_row(); row < n; row += warp_rows()) {
        float best = __int_as_float(int(0xff800000u));
        int place = classes;  // of a lane without a class: after all others
        for (int k = lane; k < classes; k += WARP) {
            const float value = widen(logits[row * classes + k]);
            if (beats(value, k, best, place)) {
                best = value;
                place = k;
            }
        }
        for (int apart = WARP / 2; apart > 0; apart /= 2) {
            const float value = __shfl_xor_sync(ALL, best, apart);
            const int k = __shfl_xor_sync(ALL, place, apart);
            if (beats(value, k, best, place)) {
                best = value;
                place = k;
            }
        }
        if (lane == 0) hits[row] = place == labels[row] && best == best ? 1.0f : 0.0f;
    }
}
