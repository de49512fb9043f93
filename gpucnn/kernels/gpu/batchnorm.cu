// Batch norm over x (rows, width), one channel a column, with and without ReLU behind it.
//
//   forward:  moments (reads x), finish_moments, normalize (reads x, writes y)
//             move_running (running statistics, once a batch)
//   backward: grad_sums (reads dy, x), column_sums of sums.cu, grad_apply (reads dy, x, writes dx)
//
// ReLU's mask is made again from x, by the same fused multiply-add as forward.

#include "vector.cuh"
#include "columns.cuh"
#include "channels.cuh"

// Count, mean and sum of squared deviations; two sets merge without cancellation (Chan, Golub and LeVeque 1979).
struct Moments {
    double count, mean, squares;

    __device__ inline void merge(const Moments& other) {
        if (other.count == 0) return;
        const double all = count + other.count, weight = other.count / all, apart = other.mean - mean;
        mean = mean * (count / all) + other.mean * weight;  // infinity among numbers stays infinity
        squares += other.squares + apart * apart * count * weight;
        count = all;
    }

    // Merges down the block's rows, always in the same order; threads of row 0 hold the result.
    __device__ inline void merge_rows() {
        __shared__ double shared[3 * BLOCK];
        const int at = threadIdx.y * blockDim.x + threadIdx.x;
        for (int rows = blockDim.y; rows > 1;) {
            const int half = (rows + 1) / 2;
            if (int(threadIdx.y) >= half && int(threadIdx.y) < rows) {
                shared[at] = count;
                shared[BLOCK + at] = mean;
                shared[2 * BLOCK + at] = squares;
            }
            __syncthreads();
            if (int(threadIdx.y) + half < rows) {
                const int below = at + half * blockDim.x;
                merge({shared[below], shared[BLOCK + below], shared[2 * BLOCK + below]});
            }
            __syncthreads();
            rows = half;
        }
    }
};

// Two sums for each of V channels: float32 over CHUNK rows, which go into float64 totals (2 V).
template <int V>
struct ChunkedSums {
    double (&total)[2 * V];
    float some[2 * V] = {};
    int rows = 0;

    __device__ inline explicit ChunkedSums(double (&to)[2 * V]) : total(to) {}

    __device__ inline void add(int v, float one, float two) {
        some[v] += one;
        some[V + v] += two;
    }

    // After each batch.
    __device__ inline void next() {
        rows += AHEAD;
        if (rows == CHUNK) flush();
    }

    __device__ inline void flush() {
#pragma unroll
        for (int i = 0; i < 2 * V; ++i) {
            total[i] += some[i];
            some[i] = 0;
        }
        rows = 0;
    }
};

constexpr double FAR = 16;  // sums are made again where squares are so many times those around the mean
constexpr double HUGE_SQUARE = 1e300;  // no sum of float32: infinity

// x -> partial (slabs, 2, width): mean and squared deviations of each slab of rows.
// Sums are of distances from a value of the slab itself, so digits survive |mean| >> std: from the one in the middle of
// its first, its last and one between, so that one value far out is not what all others are far from.  Where that one
// is far out all the same, or a square leaves float32's range, the block sums once more, in float64 around the mean.
template <class T, int V>
__global__ void __launch_bounds__(BLOCK, 4)
    moments(const T* __restrict__ x, index_t rows, int width, double* __restrict__ partial) {
    const int column = tile_column() * V;
    const index_t start = rows * blockIdx.y / gridDim.y, stop = rows * (blockIdx.y + 1) / gridDim.y;
    __shared__ double about[BLOCK];  // of a tile's columns, in vectors of at most four
    __shared__ bool again;
    double total[2 * V] = {};
    float pivot[V];
    if (threadIdx.x == 0 && threadIdx.y == 0) again = false;
    if (column < width) {
        float last[V], between[V];
        load<V>(x + start * width + column, pivot);
        load<V>(x + (stop - 1) * width + column, last);
        load<V>(x + (start + stop) / 2 * width + column, between);
        Pack<T, V> rest;
#pragma unroll
        for (int v = 0; v < V; ++v) {
            const float low = fminf(pivot[v], last[v]), high = fmaxf(pivot[v], last[v]);
            pivot[v] = fmaxf(low, fminf(high, between[v]));
            narrow(pivot[v], rest.lane[v]);
        }
        const Rows mine = segment_rows(rows, gridDim.y, blockIdx.y);
        ChunkedSums<V> sums(total);
        batches(mine, [&](auto whole, index_t row) {
            Pack<T, V> next[AHEAD];
            load_rows<decltype(whole)::value>(x, width, column, mine, row, rest, next);
#pragma unroll
            for (int k = 0; k < AHEAD; ++k) {
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    const float d = widen(next[k].lane[v]) - pivot[v];
                    sums.add(v, d, d * d);
                }
            }
            sums.next();
        });
        sums.flush();
    }
    sum_rows(total);
    const double count = double(stop - start);
    double* mine_about = about + threadIdx.x * V;
    if (threadIdx.y == 0 && column < width) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            const double offset = total[v] / count, squares = total[V + v] / count, mean = pivot[v] + offset;
            const double spread = squares - offset * offset;
            if (!(squares <= FAR * spread && spread < HUGE_SQUARE)) again = true;  // NaN too
            mine_about[v] = mean - mean == 0 ? mean : 0;
        }
    }
    __syncthreads();
    if (again) {
#pragma unroll
        for (int v = 0; v < 2 * V; ++v) total[v] = 0;
        if (column < width) {
            const Rows mine = segment_rows(rows, gridDim.y, blockIdx.y);
            for (index_t row = mine.first; row < mine.stop; row += mine.step) {
                float value[V];
                load<V>(x + row * width + column, value);
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    const double d = double(value[v]) - mine_about[v];
                    total[v] += d;
                    total[V + v] += d * d;
                }
            }
        }
        sum_rows(total);
    }
    if (threadIdx.y == 0 && column < width) {
        double* out = partial + index_t(blockIdx.y) * 2 * width + column;
#pragma unroll
        for (int v = 0; v < V; ++v) {
            const double offset = total[v] / count;
            out[v] = (again ? mine_about[v] : double(pivot[v])) + offset;
            out[width + v] = total[V + v] - total[v] * offset;
        }
    }
}

// partial (slabs, 2, width) -> mean, biased variance (width).
__global__ void finish_moments(const double* __restrict__ partial, int slabs, index_t rows, int width,
                               double* __restrict__ mean, double* __restrict__ var) {
    const int column = tile_column();
    Moments total = {};
    if (column < width) {
        const Rows mine = segment_rows(slabs, 1, 0);
        batches(mine, [&](auto whole, index_t slab) {
            constexpr bool WHOLE = decltype(whole)::value;
            double means[AHEAD], squares[AHEAD];
#pragma unroll
            for (int k = 0; k < AHEAD; ++k) {
                const double* in = partial + (slab + k * mine.step) * 2 * width + column;
                const bool there = within<WHOLE>(mine, slab, k);
                means[k] = there ? in[0] : 0;
                squares[k] = there ? in[width] : 0;
            }
#pragma unroll
            for (int k = 0; k < AHEAD; ++k) {
                const index_t one = slab + k * mine.step;
                const index_t count = quotient(rows * (one + 1), slabs) - quotient(rows * one, slabs);
                if (within<WHOLE>(mine, slab, k)) total.merge({double(count), means[k], squares[k]});
            }
        });
    }
    total.merge_rows();
    if (threadIdx.y == 0 && column < width) {
        const double biased = total.squares / double(rows);
        mean[column] = total.mean;
        var[column] = biased < 0 ? 0 : biased;
    }
}

template <class T, int V, bool RELU>
__global__ void __launch_bounds__(BLOCK, 4)
    normalize(const T* __restrict__ x, const float* __restrict__ scale, const float* __restrict__ shift,
              const double* __restrict__ mean, const double* __restrict__ var, const float* __restrict__ running_mean,
              const float* __restrict__ running_var, float eps, index_t rows, int width, T* __restrict__ y) {
    const int column = tile_column() * V;
    if (column >= width) return;
    const Channels<V> channels({mean, var, running_mean, running_var}, scale, shift, eps, column);
    const Rows mine = interleaved_rows(rows);
    batches(mine, [&](auto whole, index_t row) {
        constexpr bool WHOLE = decltype(whole)::value;
        Pack<T, V> next[AHEAD];
        load_rows<WHOLE>(x, width, column, mine, row, {}, next);
#pragma unroll
        for (int k = 0; k < AHEAD; ++k) {
            float value[V];
#pragma unroll
            for (int v = 0; v < V; ++v) {
                const float z = channels.value(widen(next[k].lane[v]), v);
                value[v] = RELU && z < 0 ? 0.0f : z;  // not fmaxf: NaN has to stay NaN
            }
            if (within<WHOLE>(mine, row, k)) store<V>(y + (row + k * mine.step) * width + column, value);
        }
    });
}

// dy, x -> partial (slabs, 2, width): sums of dz and of dz xhat over each slab; dz is dy where ReLU let z through.
template <class T, int V, bool RELU>
__global__ void __launch_bounds__(BLOCK, sizeof(T) == 2 ? 3 : 2)
    grad_sums(const T* __restrict__ dy, const T* __restrict__ x, const float* __restrict__ scale,
              const float* __restrict__ shift, const double* __restrict__ mean,
              const double* __restrict__ var, float eps, index_t rows, int width,
              double* __restrict__ partial) {
    const int column = tile_column() * V;
    double total[2 * V] = {};
    if (column < width) {
        const Channels<V> channels({mean, var, nullptr, nullptr}, scale, shift, eps, column);
        const Rows mine = segment_rows(rows, gridDim.y, blockIdx.y);
        ChunkedSums<V> sums(total);
        batches(mine, [&](auto whole, index_t row) {
            Pack<T, V> above[AHEAD], next[AHEAD];  // zeros where there is no row add nothing
            load_rows<decltype(whole)::value>(dy, width, column, mine, row, {}, above);
            load_rows<decltype(whole)::value>(x, width, column, mine, row, {}, next);
#pragma unroll
            for (int k = 0; k < AHEAD; ++k) {
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    const float value = widen(next[k].lane[v]), d = widen(above[k].lane[v]);
                    const float dz = RELU && !(channels.value(value, v) > 0) ? 0.0f : d;
                    sums.add(v, dz, dz * ((value - channels.mean[v]) * channels.inv[v]));
                }
            }
            sums.next();
        });
        sums.flush();
        const Statistics given = {mean, var, nullptr, nullptr};
#pragma unroll
        for (int v = 0; v < V; ++v) total[V + v] = given.corrected(total[V + v], total[v], column + v, channels.inv[v]);
    }
    write_pairs<V>(total, column, width, partial);
}

// dx = scale / sqrt(var + eps) * (dz - mean(dz) - xhat mean(dz xhat)); sums (2, width) are dshift and dscale.
template <class T, int V, bool RELU>
__global__ void __launch_bounds__(BLOCK, 3)
    grad_apply(const T* __restrict__ dy, const T* __restrict__ x, const float* __restrict__ scale,
               const float* __restrict__ shift, const double* __restrict__ mean,
               const double* __restrict__ var, const float* __restrict__ sums, float eps, index_t rows,
               int width, T* __restrict__ dx) {
    const int column = tile_column() * V;
    if (column >= width) return;
    const Channels<V> channels({mean, var, nullptr, nullptr}, scale, shift, eps, column);
    const Statistics given = {mean, var, nullptr, nullptr};
    float mean_dz[V], pull[V];  // pull (x - mean) is xhat mean(dz xhat), but for the low digits of the mean
#pragma unroll
    for (int v = 0; v < V; ++v) {
        const float mean_product = sums[width + column + v] / float(rows);
        pull[v] = channels.inv[v] * mean_product;
        const float low = pull[v] - pull[v] == 0 ? pull[v] * given.low_of(column + v) : 0.0f;
        mean_dz[v] = sums[column + v] / float(rows) - low;
    }
    const Rows mine = interleaved_rows(rows);
    batches(mine, [&](auto whole, index_t row) {
        constexpr bool WHOLE = decltype(whole)::value;
        Pack<T, V> above[AHEAD], next[AHEAD];
        load_rows<WHOLE>(dy, width, column, mine, row, {}, above);
        load_rows<WHOLE>(x, width, column, mine, row, {}, next);
#pragma unroll
        for (int k = 0; k < AHEAD; ++k) {
            float d[V];
#pragma unroll
            for (int v = 0; v < V; ++v) {
                const float value = widen(next[k].lane[v]);
                const float dz = RELU && !(channels.value(value, v) > 0) ? 0.0f : widen(above[k].lane[v]);
                d[v] = channels.slope[v] * (dz - mean_dz[v] - (value - channels.mean[v]) * pull[v]);
            }
            if (within<WHOLE>(mine, row, k)) store<V>(dx + (row + k * mine.step) * width + column, d);
        }
    });
}

// running = keep running + weight batch; the variance has a weight of its own.
__global__ void move_running(float* __restrict__ running_mean, float* __restrict__ running_var,
                             const double* __restrict__ mean, const double* __restrict__ var, float keep,
                             float mean_weight, float var_weight, int width) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < width; i += gridDim.x * blockDim.x) {
        running_mean[i] = keep * running_mean[i] + mean_weight * float(mean[i]);
        running_var[i] = keep * running_var[i] + var_weight * float(var[i]);
    }
}
