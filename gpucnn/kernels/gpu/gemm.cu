// Matrix products for fully connected layers: c (m, n) = a (m, k) b (k, n) + bias (n), by tiles in shared memory.
// No tensor cores: it is here because CuPy refuses cuBLAS while a CUDA graph is captured.
//
// Grid: tiles of n x (tiles of m, for each of `splits` equal pieces of k).  A thread owns two rows and two columns of
// its tile.  Where k is split, each piece leaves its own sum in c (splits, m, n) and column_sums of sums.cu adds them.

#include "vector.cuh"

constexpr int TILE = 32, SIDE = 16;  // a tile's rows and columns; threads along either

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
        float sum[2][2] = {};
        for (index_t depth = k * split / splits; depth < stop; depth += TILE) {
#pragma unroll
            for (int part = 0; part < TILE * TILE; part += SIDE * SIDE) {
                const int fast = (part + thread) % TILE, slow = (part + thread) / TILE;  // neighbours in memory
                const int along_a = A_TURNED ? slow : fast, row = A_TURNED ? fast : slow;
                const index_t i = top + row, p = depth + along_a;
                rows[along_a][row] = i < m && p < stop ? widen(a[A_TURNED ? p * m + i : i * k + p]) : 0.0f;
                const int along_b = B_TURNED ? fast : slow, column = B_TURNED ? slow : fast;
                const index_t j = left + column, q = depth + along_b;
                columns[along_b][column] = j < n && q < stop ? widen(b[B_TURNED ? j * k + q : q * n + j]) : 0.0f;
            }
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
