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

template <bool TRUE>
struct Truth {
    static constexpr bool value = TRUE;
};

// A thread's rows in batches of AHEAD: body(Truth<true>(), row) for those that begin with row, and
// body(Truth<false>(), row) where the last one is not whole.  A condition on a load has the compiler wait for one after
// the other: whole batches are free of them.
template <class Body>
__device__ inline void batches(Rows mine, Body body) {
    index_t row = mine.first;
    for (; row + (AHEAD - 1) * mine.step < mine.stop; row += AHEAD * mine.step) body(Truth<true>(), row);
    if (row < mine.stop) body(Truth<false>(), row);
}

// The k-th row of a batch is there.
template <bool WHOLE>
__device__ inline bool within(Rows mine, index_t row, int k) {
    return WHOLE || row + k * mine.step < mine.stop;
}

// A batch of rows of x (rows, width), from `column` on, as they are stored; `rest` stands in for those that are not there.
template <bool WHOLE, int V, class T>
__device__ inline void load_rows(const T* x, int width, int column, Rows mine, index_t row, const Pack<T, V>& rest,
                                 Pack<T, V> (&to)[AHEAD]) {
#pragma unroll
    for (int k = 0; k < AHEAD; ++k) {
        to[k] = rest;
        if (within<WHOLE>(mine, row, k)) {
            to[k] = *reinterpret_cast<const Pack<T, V>*>(x + (row + k * mine.step) * width + column);
        }
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
