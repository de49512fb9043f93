// Mixed precision between backward and update: unscaled gradients, whether they are finite, what is taken back.
//
// Grid: a thread a vector, up to a limit of blocks that stride over the rest; all_of is one block, adapt one thread.

#include "vector.cuh"

constexpr int BLOCK = 256;

// Whether every thread of the block says yes; all threads are told.
__device__ inline bool block_agrees(bool mine) {
    __shared__ bool refused;
    if (threadIdx.x == 0) refused = false;
    __syncthreads();
    if (!mine) refused = true;  // every thread that writes, writes the same
    __syncthreads();
    return !refused;
}

__device__ inline bool is_finite(float x) { return x - x == 0.0f; }

// g (n) -> partial (blocks): whether all that a block reads is finite.
template <int V>
__global__ void finite_blocks(const float* __restrict__ g, index_t n, bool* __restrict__ partial) {
    bool finite = true;
    each<V>(n, [&](auto width, index_t i) {
        constexpr int W = decltype(width)::value;
        float grad[W];
        load<W>(g + i, grad);
#pragma unroll
        for (int v = 0; v < W; ++v) finite = finite && is_finite(grad[v]);
    });
    finite = block_agrees(finite);
    if (threadIdx.x == 0) partial[blockIdx.x] = finite;
}

__global__ void all_of(const bool* __restrict__ partial, int count, bool* __restrict__ all) {
    bool mine = true;
    for (int i = threadIdx.x; i < count; i += blockDim.x) mine = mine && partial[i];
    mine = block_agrees(mine);
    if (threadIdx.x == 0) *all = mine;
}

// g /= scale where all of it is finite, else g = 0.
template <int V>
__global__ void unscale(float* __restrict__ g, const float* __restrict__ scale, const bool* __restrict__ finite,
                        index_t n) {
    const bool fine = *finite;
    const float factor = 1.0f / *scale;
    each<V>(n, [=](auto width, index_t i) {
        constexpr int W = decltype(width)::value;
        float grad[W];
        load<W>(g + i, grad);
#pragma unroll
        for (int v = 0; v < W; ++v) grad[v] = fine ? grad[v] * factor : 0.0f;
        store<W>(g + i, grad);
    });
}

// now = before, unless finite: a step that counts costs no pass over memory.
template <int V>
__global__ void keep(float* __restrict__ now, const float* __restrict__ before, const bool* __restrict__ finite,
                     index_t n) {
    if (*finite) return;
    each<V>(n, [=](auto width, index_t i) {
        constexpr int W = decltype(width)::value;
        float old[W];
        load<W>(before + i, old);
        store<W>(now + i, old);
    });
}

// The next scale, and how many good steps it has had.
__global__ void adapt(float* __restrict__ scale, index_t* __restrict__ good, const bool* __restrict__ finite,
                      index_t interval, float smallest, float largest) {
    const index_t counted = *finite ? *good + 1 : 0;
    const bool enough = counted >= interval;
    const float next = *scale * (*finite ? (enough ? 2.0f : 1.0f) : 0.5f);
    *scale = next < smallest ? smallest : next > largest ? largest : next;
    *good = enough ? 0 : counted;
}
