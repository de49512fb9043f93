// Brightness and contrast of bytes, the op's bits: every product and sum is rounded by itself, in the op's order.
//
// Grid: a block an image, its threads one below the other, up to a limit of blocks that stride over the rest.  The
// image is read twice, the second time from cache; its sum is one of whole numbers, exact in any order.

#include "vector.cuh"
#include "columns.cuh"

// pixels (images, size), by vectors of V bytes; brightness and contrast (images).
template <int V>
__global__ void __launch_bounds__(BLOCK, 4)
    jitter(const unsigned char* __restrict__ pixels, const float* __restrict__ brightness,
           const float* __restrict__ contrast, index_t images, int size, unsigned char* __restrict__ y) {
    typedef Pack<unsigned char, V> Bytes;
    __shared__ float factor, shift;
    const int vectors = size / V;
    for (index_t b = blockIdx.x; b < images; b += gridDim.x) {
        const Bytes* from = reinterpret_cast<const Bytes*>(pixels + b * size);
        Bytes* to = reinterpret_cast<Bytes*>(y + b * size);
        double sum[1] = {0.0};
        for (int at = threadIdx.y; at < vectors; at += blockDim.y) {
            const Bytes pack = from[at];
            int few = 0;
#pragma unroll
            for (int v = 0; v < V; ++v) few += pack.lane[v];
            sum[0] += few;
        }
        sum_rows(sum);
        if (threadIdx.y == 0) {
            const float mean = float(sum[0]) / float(size), light = brightness[b], range = contrast[b];
            factor = __fmul_rn(light, range);
            shift = __fadd_rn(__fmul_rn(__fmul_rn(light, __fsub_rn(1.0f, range)), mean), 0.5f);
        }
        __syncthreads();  // the next image's sum waits for all threads before anything is written here again
        const float times = factor, plus = shift;
        for (int at = threadIdx.y; at < vectors; at += blockDim.y) {
            Bytes pack = from[at];
#pragma unroll
            for (int v = 0; v < V; ++v) {
                const float value = __fadd_rn(__fmul_rn(float(pack.lane[v]), times), plus);
                pack.lane[v] = (unsigned char)(int(fminf(fmaxf(value, 0.0f), 255.0f)));
            }
            to[at] = pack;
        }
    }
}
