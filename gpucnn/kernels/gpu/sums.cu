// Sums down the rows: x (rows, width) -> out (segments, width), times a factor.
//
// Grid: tiles of columns x segments, as many blocks as fit the limit; each block loops over the segments left.
// Float32 for 64 rows of a thread, float64 beyond and between threads: no atomics, the same bits every time.

#include "vector.cuh"
#include "columns.cuh"

template <class T, int V, class Out>
__global__ void column_sums(const T* __restrict__ x, index_t rows, int width, index_t segments, double factor,
                            Out* __restrict__ out) {
    typedef typename Arithmetic<T>::type A;
    const int column = tile_column() * V;
    for (index_t segment = blockIdx.y; segment < segments; segment += gridDim.y) {
        double total[V] = {};
        if (column < width) {
            const Rows mine = segment_rows(rows, segments, segment);
            index_t left = count_rows(mine);
            for (index_t row = mine.first; left > 0; left -= CHUNK) {
                A some[V] = {};
                const int chunk = int(left < CHUNK ? left : CHUNK);
#pragma unroll 4
                for (int k = 0; k < chunk; ++k, row += mine.step) {
                    A value[V];
                    load<V>(x + row * width + column, value);
#pragma unroll
                    for (int v = 0; v < V; ++v) some[v] += value[v];
                }
#pragma unroll
                for (int v = 0; v < V; ++v) total[v] += some[v];
            }
        }
        sum_rows(total);
        if (threadIdx.y == 0 && column < width) {
#pragma unroll
            for (int v = 0; v < V; ++v) narrow(total[v] * factor, out[segment * width + column + v]);
        }
    }
}
