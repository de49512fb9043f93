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

// Count, mean and sum of squared deviations of the values of V channels; two sets merge without cancellation
// (Chan, Golub and LeVeque 1979).
template <int V>
struct Moments {
    double count, mean[V], squares[V];

    __device__ inline void merge(double n, const double (&means)[V], const double (&squared)[V]) {
        if (n == 0) return;
        const double all = count + n, share = n / all, both = count * share;
#pragma unroll
        for (int v = 0; v < V; ++v) {
            const double apart = means[v] - mean[v];
            mean[v] += apart * share;
            squares[v] += squared[v] + apart * apart * both;
        }
        count = all;
    }

    // Merges down the block's rows, always in the same order; threads of row 0 hold the result.
    __device__ inline void merge_rows() {
        __shared__ double counts[BLOCK], shared[2 * V * BLOCK];
        const int at = threadIdx.y * blockDim.x + threadIdx.x;
        for (int rows = blockDim.y; rows > 1;) {
            const int half = (rows + 1) / 2;
            if (int(threadIdx.y) >= half && int(threadIdx.y) < rows) {
                counts[at] = count;
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    shared[2 * v * BLOCK + at] = mean[v];
                    shared[(2 * v + 1) * BLOCK + at] = squares[v];
                }
            }
            __syncthreads();
            if (int(threadIdx.y) + half < rows) {
                const int other = at + half * blockDim.x;
                double means[V], squared[V];
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    means[v] = shared[2 * v * BLOCK + other];
                    squared[v] = shared[(2 * v + 1) * BLOCK + other];
                }
                merge(counts[other], means, squared);
            }
            __syncthreads();
            rows = half;
        }
    }
};

// x -> partial (slabs, 2, width): mean and squared deviations of each slab of rows.
// A chunk of rows is summed in float32 relative to its own first row, so digits survive |mean| >> std.
template <class T, int V>
__global__ void moments(const T* __restrict__ x, index_t rows, int width, double* __restrict__ partial) {
    const int column = tile_column() * V;
    Moments<V> total = {};
    if (column < width) {
        const Rows mine = segment_rows(rows, gridDim.y, blockIdx.y);
        index_t left = count_rows(mine);
        for (index_t row = mine.first; left > 0; left -= CHUNK) {
            const int chunk = int(left < CHUNK ? left : CHUNK);
            float first[V], sum[V] = {}, squares[V] = {};
            load<V>(x + row * width + column, first);
#pragma unroll 2
            for (int k = 0; k < chunk; ++k, row += mine.step) {
                float value[V];
                load<V>(x + row * width + column, value);
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    const float d = value[v] - first[v];
                    sum[v] += d;
                    squares[v] += d * d;
                }
            }
            double means[V], squared[V];
#pragma unroll
            for (int v = 0; v < V; ++v) {
                const double offset = double(sum[v]) / chunk;
                means[v] = first[v] + offset;
                squared[v] = squares[v] - sum[v] * offset;
            }
            total.merge(chunk, means, squared);
        }
    }
    total.merge_rows();
    if (threadIdx.y == 0 && column < width) {
        double* out = partial + index_t(blockIdx.y) * 2 * width + column;
#pragma unroll
        for (int v = 0; v < V; ++v) {
            out[v] = total.mean[v];
            out[width + v] = total.squares[v];
        }
    }
}

// partial (slabs, 2, width) -> mean, biased variance (width).
__global__ void finish_moments(const double* __restrict__ partial, int slabs, index_t rows, int width,
                               float* __restrict__ mean, float* __restrict__ var) {
    const int column = tile_column();
    Moments<1> total = {};
    if (column < width) {
        for (index_t slab = threadIdx.y; slab < slabs; slab += blockDim.y) {
            const double* in = partial + slab * 2 * width + column;
            const double means[1] = {in[0]}, squared[1] = {in[width]};
            total.merge(double(rows * (slab + 1) / slabs - rows * slab / slabs), means, squared);
        }
    }
    total.merge_rows();
    if (threadIdx.y == 0 && column < width) {
        const double biased = total.squares[0] / double(rows);
        mean[column] = float(total.mean[0]);
        var[column] = float(biased < 0 ? 0 : biased);
    }
}

template <class T, int V, bool RELU>
__global__ void normalize(const T* __restrict__ x, const float* __restrict__ scale, const float* __restrict__ shift,
                          const float* __restrict__ mean, const float* __restrict__ var, float eps, index_t rows,
                          int width, T* __restrict__ y) {
    const int column = tile_column() * V;
    if (column >= width) return;
    const Channels<V> channels(mean, var, scale, shift, eps, column);
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        float value[V];
        load<V>(x + row * width + column, value);
#pragma unroll
        for (int v = 0; v < V; ++v) {
            const float z = channels.value(value[v], v);
            value[v] = RELU && z < 0 ? 0.0f : z;  // not fmaxf: NaN has to stay NaN
        }
        store<V>(y + row * width + column, value);
    }
}

// dy, x -> partial (slabs, 2, width): sums of dz and of dz xhat over each slab; dz is dy where ReLU let z through.
template <class T, int V, bool RELU>
__global__ void grad_sums(const T* __restrict__ dy, const T* __restrict__ x, const float* __restrict__ scale,
                          const float* __restrict__ shift, const float* __restrict__ mean,
                          const float* __restrict__ var, float eps, index_t rows, int width,
                          double* __restrict__ partial) {
    const int column = tile_column() * V;
    double total[2 * V] = {};
    if (column < width) {
        const Channels<V> channels(mean, var, scale, shift, eps, column);
        const Rows mine = segment_rows(rows, gridDim.y, blockIdx.y);
        index_t left = count_rows(mine);
        for (index_t row = mine.first; left > 0; left -= CHUNK) {
            const int chunk = int(left < CHUNK ? left : CHUNK);
            float sum[V] = {}, products[V] = {};
#pragma unroll 2
            for (int k = 0; k < chunk; ++k, row += mine.step) {
                float d[V], value[V];
                load<V>(dy + row * width + column, d);
                load<V>(x + row * width + column, value);
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    const float dz = RELU && !(channels.value(value[v], v) > 0) ? 0.0f : d[v];
                    sum[v] += dz;
                    products[v] += dz * ((value[v] - channels.mean[v]) * channels.inv[v]);
                }
            }
#pragma unroll
            for (int v = 0; v < V; ++v) {
                total[v] += sum[v];
                total[V + v] += products[v];
            }
        }
    }
    write_pairs<V>(total, column, width, partial);
}

// dx = scale / sqrt(var + eps) * (dz - mean(dz) - xhat mean(dz xhat)); sums (2, width) are dshift and dscale.
template <class T, int V, bool RELU>
__global__ void grad_apply(const T* __restrict__ dy, const T* __restrict__ x, const float* __restrict__ scale,
                           const float* __restrict__ shift, const float* __restrict__ mean,
                           const float* __restrict__ var, const float* __restrict__ sums, float eps, index_t rows,
                           int width, T* __restrict__ dx) {
    const int column = tile_column() * V;
    if (column >= width) return;
    const Channels<V> channels(mean, var, scale, shift, eps, column);
    float mean_dz[V], mean_product[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
        mean_dz[v] = sums[column + v] / float(rows);
        mean_product[v] = sums[width + column + v] / float(rows);
    }
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        float d[V], value[V];
        load<V>(dy + row * width + column, d);
        load<V>(x + row * width + column, value);
#pragma unroll
        for (int v = 0; v < V; ++v) {
            const float dz = RELU && !(channels.value(value[v], v) > 0) ? 0.0f : d[v];
            const float xhat = (value[v] - channels.mean[v]) * channels.inv[v];
            d[v] = channels.slope[v] * (dz - mean_dz[v] - xhat * mean_product[v]);
        }
        store<V>(dx + row * width + column, d);
    }
}

// running = keep running + share batch; the variance has a share of its own.
__global__ void move_running(float* __restrict__ running_mean, float* __restrict__ running_var,
                             const float* __restrict__ mean, const float* __restrict__ var, float keep,
                             float mean_share, float var_share, int width) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < width; i += gridDim.x * blockDim.x) {
        running_mean[i] = keep * running_mean[i] + mean_share * mean[i];
        running_var[i] = keep * running_var[i] + var_share * var[i];
    }
}
