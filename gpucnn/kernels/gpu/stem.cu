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

// A thread's V factors lie in shared memory as pieces of four: all first pieces of a line, then all second ones.  So
// neighbours read neighbouring banks.
template <int V>
struct Pieces {
    static constexpr int LONG = V % 4 ? 1 : 4, COUNT = V / LONG;
};

// Where a filter lies in its line.
template <int V>
__device__ inline int place(int filter, int filters) {
    typedef Pieces<V> P;
    const int v = filter % V;
    return v / P::LONG * (filters / P::COUNT) + filter / V * P::LONG + v % P::LONG;
}

// The factors of vector number `vector` of a line.
template <int V>
__device__ inline void load_factors(const float* line, int vector, int filters, float (&to)[V]) {
    typedef Pieces<V> P;
#pragma unroll
    for (int i = 0; i < P::COUNT; ++i) {
        float piece[P::LONG];
        load<P::LONG>(line + i * (filters / P::COUNT) + vector * P::LONG, piece);
#pragma unroll
        for (int k = 0; k < P::LONG; ++k) to[i * P::LONG + k] = piece[k];
    }
}

template <class T, int V, int KW, int C>
__global__ void __launch_bounds__(BLOCK, 2)
    stem(const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ bias, index_t rows, int columns,
         int filters, int height, int width, int down, int across, int kh, int top, int left, T* __restrict__ y) {
    alignas(16) __shared__ float factors[(TAPS + 1) * (FILTERS + APART)];  // [tap][filter], and the bias as the last tap
    const int taps = kh * KW * C, pitch = filters + APART;
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    for (int i = thread; i < taps * filters; i += threads) {
        factors[i % taps * pitch + place<V>(i / taps, filters)] = widen(w[i]);
    }
    for (int f = thread; f < filters; f += threads) {
        factors[taps * pitch + place<V>(f, filters)] = bias ? widen(bias[f]) : 0.0f;
    }
    __syncthreads();

    const int column = tile_column();
    if (column >= columns) return;
    const int vectors = filters / V, first = column / vectors * PIXELS, vector = column % vectors;
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        const index_t image = quotient(row, down);
        const int above = int(row - image * down) - top;
        const T* pixels = x + image * height * width * C;
        float sum[PIXELS][V] = {};
        for (int m = max(-above, 0); m < min(height - above, kh); ++m) {
            constexpr int LINE = (PIXELS + KW - 1) * C;
            const T* from = pixels + ((above + m) * width + first - left) * C;
            T stored[LINE];  // conversions come after all the loads, so that these are under way together
#pragma unroll
            for (int n = 0; n < LINE / C; ++n) {
                const bool inside = first - left + n >= 0 && first - left + n < width;
#pragma unroll
                for (int c = 0; c < C; ++c) {
                    narrow(0.0f, stored[n * C + c]);
                    if (inside) stored[n * C + c] = from[n * C + c];
                }
            }
            float line[LINE];
#pragma unroll
            for (int i = 0; i < LINE; ++i) line[i] = widen(stored[i]);
            const float* factor = factors + m * KW * C * pitch;
#pragma unroll
            for (int tap = 0; tap < KW * C; ++tap) {
                float weight[V];
                load_factors(factor + tap * pitch, vector, filters, weight);
#pragma unroll
                for (int n = 0; n < PIXELS; ++n) {
#pragma unroll
                    for (int v = 0; v < V; ++v) sum[n][v] += line[n * C + tap] * weight[v];
                }
            }
        }
        float added[V];
        load_factors(factors + taps * pitch, vector, filters, added);
#pragma unroll
        for (int n = 0; n < PIXELS; ++n) {
#pragma unroll
            for (int v = 0; v < V; ++v) sum[n][v] += added[v];
            if (first + n < across) store<V>(y + (row * across + first + n) * filters + vector * V, sum[n]);
        }
    }
}
