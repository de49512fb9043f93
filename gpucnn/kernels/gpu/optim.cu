// Optimizer steps and averages over flat float32 buffers, in place: one pass, 16 bytes a load where the buffers are aligned to them.
//
// Grid: one thread a vector, up to a limit of blocks that stride over the rest.
// The learning rate, the fraction and the step may live on the device, so that a CUDA graph reads them anew at every replay; where
// their pointers are null the numbers given by value count.

#include "vector.cuh"

template <int V>
__global__ void sgd(float* __restrict__ w, const float* __restrict__ g, index_t n, double lr,
                    const double* __restrict__ lr_at, float decay) {
    const float rate = float(lr_at ? *lr_at : lr);
    each<V>(n, [=](auto width, index_t i) {
        constexpr int W = decltype(width)::value;
        float weight[W], grad[W];
        load<W>(w + i, weight);
        load<W>(g + i, grad);
#pragma unroll
        for (int v = 0; v < W; ++v) weight[v] -= rate * (grad[v] + decay * weight[v]);
        store<W>(w + i, weight);
    });
}

template <int V, bool NESTEROV>
__global__ void momentum(float* __restrict__ w, const float* __restrict__ g, float* __restrict__ velocity, index_t n,
                         double lr, const double* __restrict__ lr_at, float mu, float decay) {
    const float rate = float(lr_at ? *lr_at : lr);
    each<V>(n, [=](auto width, index_t i) {
        constexpr int W = decltype(width)::value;
        float weight[W], grad[W], speed[W];
        load<W>(w + i, weight);
        load<W>(g + i, grad);
        load<W>(velocity + i, speed);
#pragma unroll
        for (int v = 0; v < W; ++v) {
            const float d = grad[v] + decay * weight[v];
            speed[v] = mu * speed[v] + d;
            weight[v] -= rate * (NESTEROV ? d + mu * speed[v] : speed[v]);
        }
        store<W>(velocity + i, speed);
        store<W>(w + i, weight);
    });
}

template <int V>
__global__ void lerp(float* __restrict__ a, const float* __restrict__ w, index_t n, double fraction,
                     const double* __restrict__ fraction_at) {
    const double whole = fraction_at ? *fraction_at : fraction;
    const bool near = whole < 0.5;  // computed from the nearer end
    const float part = float(near ? whole : 1.0 - whole);
    each<V>(n, [=](auto width, index_t i) {
        constexpr int W = decltype(width)::value;
        float average[W], weight[W];
        load<W>(a + i, average);
        load<W>(w + i, weight);
#pragma unroll
        for (int v = 0; v < W; ++v) {
            const float apart = weight[v] - average[v];
            average[v] = near ? average[v] + part * apart : weight[v] - part * apart;
        }
        store<W>(a + i, average);
    });
}

// base^exponent in float64 by squaring; pow() would bring a page of code for exponents that are no integers.
__device__ inline double power(double base, index_t exponent) {
    double result = 1.0;
    for (; exponent > 0; exponent >>= 1, base *= base) {
        if (exponent & 1) result *= base;
    }
    return result;
}

// step counts from 1.  What all elements share is worked out once a block, in float64.
template <int V>
__global__ void adam(float* __restrict__ w, const float* __restrict__ g, float* __restrict__ m,
                     float* __restrict__ v2, index_t n, double lr, const double* __restrict__ lr_at, double beta1,
                     double beta2, double eps, double weight_decay, bool decoupled, index_t step,
                     const index_t* __restrict__ step_at) {
    __shared__ float shared[3];
    if (threadIdx.x == 0) {
        const double rate = lr_at ? *lr_at : lr;
        const index_t t = step_at ? *step_at : step;
        shared[0] = float(decoupled ? 1.0 - rate * weight_decay : 1.0);
        shared[1] = float(rate / (1.0 - power(beta1, t)));
        shared[2] = float(1.0 / sqrt(1.0 - power(beta2, t)));
    }
    __syncthreads();
    const float keep = shared[0], scale = shared[1], correction = shared[2];
    const float decay = float(weight_decay), tiny = float(eps);
    const float b1 = float(beta1), b2 = float(beta2), rest1 = float(1.0 - beta1), rest2 = float(1.0 - beta2);
    each<V>(n, [=](auto width, index_t i) {
        constexpr int W = decltype(width)::value;
        float weight[W], grad[W], first[W], second[W];
        load<W>(w + i, weight);
        load<W>(g + i, grad);
        load<W>(m + i, first);
        load<W>(v2 + i, second);
#pragma unroll
        for (int v = 0; v < W; ++v) {
            const float d = decoupled ? grad[v] : grad[v] + decay * weight[v];
            first[v] = b1 * first[v] + rest1 * d;
            second[v] = b2 * second[v] + rest2 * d * d;
            weight[v] = keep * weight[v] - scale * first[v] / (sqrtf(second[v]) * correction + tiny);
        }
        store<W>(m + i, first);
        store<W>(v2 + i, second);
        store<W>(w + i, weight);
    });
}
