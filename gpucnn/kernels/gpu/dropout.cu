// Dropout: the mask is drawn where it is used, four elements a Philox block, the same integers as gpucnn.random.
//
// Grid: one thread a block of four, up to a limit of blocks that stride over the rest.  V = 4 where x is aligned.
// The step may live on the device: a CUDA graph that is replayed reads it anew.

#include "vector.cuh"
#include "philox.cuh"

template <class T, int V>
__global__ void dropout(const T* __restrict__ x, index_t n, float rate, float scale, unsigned key0, unsigned key1,
                        unsigned stream, index_t step, const index_t* __restrict__ step_at, T* __restrict__ y) {
    const unsigned long long now = step_at ? *step_at : step;
    const index_t threads = index_t(gridDim.x) * blockDim.x;
    for (index_t block = index_t(blockIdx.x) * blockDim.x + threadIdx.x; 4 * block < n; block += threads) {
        const Words drawn = philox(unsigned(block), stream, unsigned(now), unsigned(now >> 32), key0, key1);
        bool kept[4];
#pragma unroll
        for (int v = 0; v < 4; ++v) {
            // 24 bits: every value is exact in float32, as in gpucnn.random.uniform
            const float u = float(drawn.word[v] >> 8) * (1.0f / 16777216.0f);
            kept[v] = u >= rate;
        }
        const index_t i = 4 * block;
        if (V == 4 && i + 4 <= n) {
            float value[4];
            load<4>(x + i, value);
#pragma unroll
            for (int v = 0; v < 4; ++v) value[v] = kept[v] ? value[v] * scale : 0.0f;
            store<4>(y + i, value);
        } else {
#pragma unroll
            for (int v = 0; v < 4; ++v) {
                if (i + v < n) narrow(kept[v] ? widen(x[i + v]) * scale : 0.0f, y[i + v]);
            }
        }
    }
}
