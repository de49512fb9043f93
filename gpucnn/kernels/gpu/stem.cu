// The first convolution of a net: images (N,H,W,C) of one channel or three, filters (F,KH,KW,C) that move by one pixel,
// and their bias -> y (N,H',W',F).  No tensor cores: with so few products to an output it is y that takes the time.
//
// Rows of the grid are lines of the output, columns are runs of PIXELS neighbours times vectors of V filters.  A thread
// owns PIXELS x V sums.  For each line under its filters it takes PIXELS + KW - 1 pixels into registers, and then reads
// its factors from shared memory, once for all of its pixels.  The order of a sum is that of its filter in memory.
// The border counts as zeros.

#include "vector.cuh"
#include "columns.cuh"

constexpr int PIXELS = 8;
constexpr int TAPS = 32, FILTERS = 64;  // of a filter, and how many, at most
constexpr int APART = 4;                // between the ends of lines of shared memory: neighbours in w, other banks

// V values of shared memory, four at a time.
template <int V>
__device__ inline void shared_vector(const float* from, float (&to)[V]) {
    constexpr int AT_ONCE = V % 4 ? 1 : 4;
#pragma unroll
    for (int v = 0; v < V; v += AT_ONCE) {
        float part[AT_ONCE];
        load<AT_ONCE>(from + v, part);
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) to[v + k] = part[k];
    }
}

template <class T, int V, int KW, int C>
__global__ void __launch_bounds__(BLOCK, 2)
    stem(const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ bias, index_t rows, int columns,
         int filters, int height, int width, int down, int across, int kh, int top, int left, T* __restrict__ y) {
    alignas(16) __shared__ float factors[(TAPS + 1) * (FILTERS + APART)];  // [tap][filter], and the bias as the last tap
    const int taps = kh * KW * C, pitch = filters + APART;
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    for (int i = thread; i < taps * filters; i += threads) factors[i % taps * pitch + i / taps] = widen(w[i]);
    for (int f = thread; f < filters; f += threads) factors[taps * pitch + f] = bias ? widen(bias[f]) : 0.0f;
    __syncthreads();

    const int column = tile_column();
    if (column >= columns) return;
    const int vectors = filters / V, first = column / vectors * PIXELS, filter = column % vectors * V;
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        const index_t image = quotient(row, down);
        const int above = int(row - image * down) - top;
        const T* pixels = x + image * height * width * C;
        float sum[PIXELS][V] = {};
        for (int m = max(-above, 0); m < min(height - above, kh); ++m) {
            float line[(PIXELS + KW - 1) * C];
#pragma unroll
            for (int n = 0; n < PIXELS + KW - 1; ++n) {
                const int q = first - left + n;
                const bool inside = q >= 0 && q < width;
#pragma unroll
                for (int c = 0; c < C; ++c) {
                    line[n * C + c] = inside ? widen(pixels[((above + m) * width + q) * C + c]) : 0.0f;
                }
            }
            const float* factor = factors + m * KW * C * pitch + filter;
#pragma unroll
            for (int tap = 0; tap < KW * C; ++tap) {
                float weight[V];
                shared_vector(factor + tap * pitch, weight);
#pragma unroll
                for (int n = 0; n < PIXELS; ++n) {
#pragma unroll
                    for (int v = 0; v < V; ++v) sum[n][v] += line[n * C + tap] * weight[v];
                }
            }
        }
        float added[V];
        shared_vector(factors + taps * pitch + filter, added);
#pragma unroll
        for (int n = 0; n < PIXELS; ++n) {
#pragma unroll
            for (int v = 0; v < V; ++v) sum[n][v] += added[v];
            if (first + n < across) store<V>(y + (row * across + first + n) * filters + filter, sum[n]);
        }
    }
}
