// Matrix products for fully connected layers: c (m, n) = a (m, k) b (k, n) + bias (n), by tiles in shared memory.
// No tensor cores: it is here because CuPy refuses cuBLAS while a CUDA graph is captured.
//
// Grid: tiles of n x (tiles of m, for each of `splits` equal pieces of k).  A thread owns two rows and two columns of
// its tile.  Where k is split, each piece leaves its own sum in c (splits, m, n) and column_sums of sums.cu adds them.

#include "vector.cuh"

constexpr int TILE = 32, SIDE = 16;  // a tile's rows and columns; threads along either
constexpr int PARTS = TILE * TILE / (SIDE * SIDE);  // values of a tile that a thread brings

// Where in the two tiles the values go that a thread brings; neighbours in a block are neighbours in memory.
struct Place {
    int along_a, row, along_b, column;

    __device__ inline Place(int part, int thread, bool a_turned, bool b_turned) {
        const int at = part * SIDE * SIDE + thread, fast = at % TILE, slow = at / TILE;
        along_a = a_turned ? slow : fast;
        row = a_turned ? fast : slow;
        along_b = b_turned ? fast : slow;
        column = b_turned ? slow : fast;
    }
};

// A_TURNED: a lies in memory as (k, m); B_TURNED: b lies as (n, k).
template <class T, bool A_TURNED, bool B_TURNED, class Out>
__global__ void product(const T* __restrict__ a, const T* __restrict__ b, const T* __restrict__ bias, index_t m,
                        index_t n, index_t k, int splits, Out* __restrict__ c) {
    __shared__ float rows[TILE][TILE + 1], columns[TILE][TILE + 1];  // [k][m] and [k][n], off by one bank a line
    const int thread = threadIdx.y * SIDE + threadIdx.x;
    const index_t left = index_t(blockIdx.x) * TILE;
    for (index_t work = blockIdx.y; work < (m + TILE - 1) / TILE * splits; work += gridDim.y) {
        const index_t top = work / splits * TILE, split = work % splits;
        const index_t stop = k * (split + 1) / splits;
        float sum[2][2] = {}, next_row[PARTS], next_column[PARTS];
        // what a thread brings into the tiles from `depth` on
        const auto fetch = [&](index_t depth) {
#pragma unroll
            for (int part = 0; part < PARTS; ++part) {
                const Place at(part, thread, A_TURNED, B_TURNED);
                const index_t i = top + at.row, p = depth + at.along_a, j = left + at.column, q = depth + at.along_b;
                next_row[part] = i < m && p < stop ? widen(a[A_TURNED ? p * m + i : i * k + p]) : 0.0f;
                next_column[part] = j < n && q < stop ? widen(b[B_TURNED ? j * k + q : q * n + j]) : 0.0f;
            }
        };
        const index_t start = k * split / splits;
        fetch(start);
        for (index_t depth = start; depth < stop; depth += TILE) {
#pragma unroll
            for (int part = 0; part < PARTS; ++part) {
                const Place at(part, thread, A_TURNED, B_TURNED);
                rows[at.along_a][at.row] = next_row[part];
                columns[at.along_b][at.column] = next_column[part];
            }
            if (depth + TILE < stop) fetch(depth + TILE);  // on its way while these are multiplied
            __syncthreads();
#pragma unroll 8
            for (int p = 0; p < TILE; ++p) {
#pragma unroll
                for (int i = 0; i < 2; ++i) {
#pragma unroll
                    for (int j = 0; j < 2; ++j) {
                        sum[i][j] += rows[p][threadIdx.y + i * SIDE] * columns[p][threadIdx.x + j * SIDE];
                    }
                }
            }
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const index_t row = top + threadIdx.y + i * SIDE, column = left + threadIdx.x + j * SIDE;
                if (row < m && column < n) {
                    const float added = bias && split == 0 ? widen(bias[column]) : 0.0f;
                    narrow(sum[i][j] + added, c[(split * m + row) * n + column]);
                }
            }
        }
    }
}
