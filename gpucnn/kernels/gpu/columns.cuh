// An array as rows of columns, and blocks of threads laid over it: threadIdx.x is the column in a tile of at most 64,
// threadIdx.y the row.  Neighbouring threads read neighbouring memory, also from one row to the next where a tile is
// as wide as the array.  A thread stays in its column and strides down the rows, so that what belongs to a column (a
// channel's scale, a place in a window) is worked out once.
//
// A column is a vector of V elements.  gridDim.x tiles cover the columns, gridDim.y blocks share the rows.

constexpr int BLOCK = 256;  // threads, at most

struct Rows {
    index_t first, stop, step;
};

__device__ inline int tile_column() { return blockIdx.x * blockDim.x + threadIdx.x; }

// This thread's rows, where blocks take turns.
__device__ inline Rows interleaved_rows(index_t rows) {
    return {index_t(blockIdx.y) * blockDim.y + threadIdx.y, rows, index_t(gridDim.y) * blockDim.y};
}

// This thread's rows in one of `segments` equal pieces, for sums: a piece is summed by one block.
__device__ inline Rows segment_rows(index_t rows, index_t segments, index_t segment) {
    return {rows * segment / segments + threadIdx.y, rows * (segment + 1) / segments, index_t(blockDim.y)};
}

// How many rows that is.
__device__ inline index_t count_rows(Rows mine) {
    return mine.first < mine.stop ? (mine.stop - mine.first + mine.step - 1) / mine.step : 0;
}

constexpr int CHUNK = 64;  // rows summed in float32 before they go into a float64 total
constexpr int AHEAD = 4;   // loads that a thread has under way at a time; CHUNK is a multiple of it

// A thread's next rows as they are stored, `stride` elements apart: all loads are on their way before the first value
// is used, also where fewer than AHEAD rows are left and `rest` stands in for the others.
template <int V, class T>
__device__ inline void load_rows(const T* at, index_t stride, index_t left, const Pack<T, V>& rest,
                                 Pack<T, V> (&rows)[AHEAD]) {
#pragma unroll
    for (int k = 0; k < AHEAD; ++k) {
        rows[k] = rest;
        if (k < left) rows[k] = *reinterpret_cast<const Pack<T, V>*>(at + k * stride);
    }
}

// Totals down the block's rows, always in the same order; threads of row 0 hold them afterwards.
template <int V>
__device__ inline void sum_rows(double (&value)[V]) {
    __shared__ double shared[V * BLOCK];
    const int at = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
    for (int v = 0; v < V; ++v) shared[v * BLOCK + at] = value[v];
    __syncthreads();
    for (int rows = blockDim.y; rows > 1;) {
        const int half = (rows + 1) / 2;
        if (int(threadIdx.y) + half < rows) {
#pragma unroll
            for (int v = 0; v < V; ++v) shared[v * BLOCK + at] += shared[v * BLOCK + at + half * blockDim.x];
        }
        __syncthreads();
        rows = half;
    }
#pragma unroll
    for (int v = 0; v < V; ++v) value[v] = shared[v * BLOCK + at];  // its own place: a next call may write there
}

// Totals of two sums a column, down the block's rows, as this block's row (2, width) of `partial`.
template <int V>
__device__ inline void write_pairs(double (&total)[2 * V], int column, int width, double* partial) {
    sum_rows(total);
    if (threadIdx.y == 0 && column < width) {
        double* out = partial + index_t(blockIdx.y) * 2 * width + column;
#pragma unroll
        for (int v = 0; v < V; ++v) {
            out[v] = total[v];
            out[width + v] = total[V + v];
        }
    }
}
