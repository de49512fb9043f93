// Warped images: the noise behind elastic distortion, its smoothing, and the look-up of pixels.
//
// `noise` and `warp` are the ops' bits: every product and sum is rounded by itself, in the op's order.

#include "vector.cuh"
#include "columns.cuh"
#include "philox.cuh"

// Grid: one thread a Philox block of four numbers of a member, up to a limit of blocks that stride over the rest.
// index (B) are the members, `each` how many blocks a member has, `size` how many numbers.
template <int V>
__global__ void noise(const index_t* __restrict__ index, index_t blocks, int each, int size, unsigned key0,
                      unsigned key1, unsigned stream, unsigned step, float* __restrict__ y) {
    const index_t threads = index_t(gridDim.x) * blockDim.x;
    for (index_t block = index_t(blockIdx.x) * blockDim.x + threadIdx.x; block < blocks; block += threads) {
        const index_t b = quotient(block, each);
        const int mine = int(block - b * each);
        const Words drawn = philox(unsigned(mine), stream, step, unsigned(index[b]), key0, key1);
        float value[4];
#pragma unroll
        for (int v = 0; v < 4; ++v) value[v] = float(drawn.word[v] >> 8) * (1.0f / 8388608.0f) - 1.0f;  // exact
        float* to = y + b * size + 4 * mine;
        if (V == 4) {
            store<4>(to, value);
        } else {
#pragma unroll
            for (int v = 0; v < 4; ++v) {
                if (4 * mine + v < size) to[v] = value[v];
            }
        }
    }
}

constexpr int PLANE = 4096;     // pixels of a plane, at most
constexpr int DISTANCES = 256;  // with a weight, at most

// The sum of weight[|k - at|] x[k step] over a line of `size` pixels, in the order of k.
__device__ inline float weighted(const float* x, int step, int at, int size, int reach, const float* weight) {
    const int first = max(at - reach, 0), last = min(at + reach, size - 1);
    float sum = 0.0f;
    for (int k = first; k <= last; ++k) sum = fmaf(weight[k < at ? at - k : k - at], x[k * step], sum);
    return sum;
}

// Planes (H,W): first down the columns, times alpha, then along the rows.  Grid: a block a plane, which it keeps in
// shared memory, up to a limit of blocks that stride over the rest.  `reach` is below DISTANCES; total is that of the
// weights before they are divided by it.
__global__ void __launch_bounds__(BLOCK, 4)
    smooth(const float* __restrict__ planes, index_t count, int h, int w, int reach, float alpha, double sigma,
           double total, float* __restrict__ y) {
    __shared__ float plane[PLANE], between[PLANE], down[DISTANCES], across[DISTANCES];
    for (int distance = threadIdx.x; distance <= reach; distance += blockDim.x) {
        const double d = distance / sigma;
        across[distance] = float(exp(-0.5 * (d * d)) / total);
        down[distance] = across[distance] * alpha;
    }
    const int size = h * w;
    for (index_t p = blockIdx.x; p < count; p += gridDim.x) {
        for (int at = threadIdx.x; at < size; at += blockDim.x) plane[at] = planes[p * size + at];
        __syncthreads();
        for (int at = threadIdx.x; at < size; at += blockDim.x) {
            const int i = at / w, j = at - i * w;
            between[at] = weighted(plane + j, w, i, h, reach, down);
        }
        __syncthreads();  // and nobody loads the next plane before all are done with this one
        for (int at = threadIdx.x; at < size; at += blockDim.x) {
            const int i = at / w, j = at - i * w;
            y[p * size + at] = weighted(between + i * w, 1, j, w, reach, across);
        }
    }
}

struct Place {
    int at;
    bool inside;
};

// A pixel of a line behind a coordinate that may lie outside: reflected as often as it takes, or black.
__device__ inline Place on_line(index_t at, int size, bool reflect) {
    if (at >= 0 && at < size) return {int(at), true};
    if (!reflect) return {0, false};
    const int period = max(2 * (size - 1), 1);
    int folded = at == int(at) ? int(at) % period : int(at % period);  // 64-bit division is a loop of instructions
    folded = folded < 0 ? folded + period : folded;
    return {size > 1 ? min(folded, period - folded) : 0, true};
}

__device__ inline float blend(float a, float b, float weight) {
    return __fadd_rn(__fmul_rn(a, __fsub_rn(1.0f, weight)), __fmul_rn(b, weight));
}

constexpr float FAR = 4611686018427387904.0f;  // 2^62, for what is no place in an image: one more still is an index

__device__ inline index_t whole(float floored) { return index_t(fminf(fmaxf(floored, -FAR), FAR)); }  // NaN: -FAR

// Grid: rows are lines of the batch (B H), columns pixels of a line (W), C their channels, or 0 for any number of them.
// All four pixels are loaded wherever they lie, from inside the image, and what lies outside is made black afterwards:
// no load waits for another.  field (B,2,H,W) is null where nothing is bent.
template <int C>
__global__ void __launch_bounds__(BLOCK, 4)
    warp(const unsigned char* __restrict__ images, index_t count, const index_t* __restrict__ index,
         const float* __restrict__ matrix, const float* __restrict__ field, bool reflect, index_t rows, int h, int w,
         int channels, unsigned char* __restrict__ y) {
    const int column = tile_column(), c = C ? C : channels;
    if (column >= w) return;
    const float down = float(0.5 * (h - 1)), across = float(0.5 * (w - 1));
    const float j = __fsub_rn(float(column), across);
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        const index_t b = quotient(row, h);
        const int line = int(row - b * h);
        index_t image = index[b];  // looked at below: a branch on it here would have the other loads wait for it
        const float* m = matrix + 4 * b;
        const float i = __fsub_rn(float(line), down);
        float u = __fadd_rn(__fadd_rn(__fmul_rn(m[0], i), __fmul_rn(m[1], j)), down);
        float v = __fadd_rn(__fadd_rn(__fmul_rn(m[2], i), __fmul_rn(m[3], j)), across);
        if (field) {
            const float* d = field + 2 * b * h * w + index_t(line) * w + column;
            u = __fadd_rn(u, d[0]);
            v = __fadd_rn(v, d[index_t(h) * w]);
        }
        if (image < 0 || image >= count) image = ((image % count) + count) % count;  // as CuPy indexes
        const float top = floorf(u), left = floorf(v), f = __fsub_rn(u, top), g = __fsub_rn(v, left);
        const index_t r = whole(top), s = whole(left);
        const Place line0 = on_line(r, h, reflect), line1 = on_line(r + 1, h, reflect);
        const Place pixel0 = on_line(s, w, reflect), pixel1 = on_line(s + 1, w, reflect);
        const bool in00 = line0.inside && pixel0.inside, in01 = line0.inside && pixel1.inside;
        const bool in10 = line1.inside && pixel0.inside, in11 = line1.inside && pixel1.inside;
        const unsigned char* upper = images + (image * h + line0.at) * w * c;
        const unsigned char* lower = images + (image * h + line1.at) * w * c;
        unsigned char* to = y + (row * w + column) * c;
#pragma unroll
        for (int k = 0; k < c; ++k) {
            const int e0 = pixel0.at * c + k, e1 = pixel1.at * c + k;
            const float p00 = float(upper[e0]), p01 = float(upper[e1]), p10 = float(lower[e0]), p11 = float(lower[e1]);
            const float a = blend(in00 ? p00 : 0.0f, in01 ? p01 : 0.0f, g);
            const float z = blend(in10 ? p10 : 0.0f, in11 ? p11 : 0.0f, g);
            to[k] = (unsigned char)(int(__fadd_rn(blend(a, z, f), 0.5f)));
        }
    }
}
