// Batch norm, ReLU and 2x2 max pooling that tiles the image, in the passes that batch norm makes anyway.
//
//   forward:  moments and finish_moments of batchnorm.cu (read x), pool_normalized (reads x, writes y)
//   backward: pool_grad_sums (reads dy, x), column_sums of sums.cu, pool_grad_apply (reads dy, x, writes dx)
//
// The maximum's place is found again from x in both backward passes, so pooling's gradient is never laid out.

#include "vector.cuh"
#include "columns.cuh"
#include "channels.cuh"
#include "window.cuh"

// The four pixels of a window, from its first one on, as they are stored: widened they would fill the registers.
template <class T, int V>
struct Four {
    Pack<T, V> pixels[4];

    __device__ inline Four(const T* at, index_t pixel, index_t line) {
        pixels[0] = *reinterpret_cast<const Pack<T, V>*>(at);
        pixels[1] = *reinterpret_cast<const Pack<T, V>*>(at + pixel);
        pixels[2] = *reinterpret_cast<const Pack<T, V>*>(at + line);
        pixels[3] = *reinterpret_cast<const Pack<T, V>*>(at + line + pixel);
    }

    __device__ inline float x(int k, int v) const { return widen(pixels[k].lane[v]); }

    // Which one ReLU lets through and pooling takes, or -1.
    __device__ inline int taken(const Channels<V>& channels, int v) const {
        float z[4], most;
#pragma unroll
        for (int k = 0; k < 4; ++k) z[k] = channels.value(x(k, v), v);
        const int place = first_maximum(z[0], z[1], z[2], z[3], most);
        return most > 0 ? place : -1;
    }
};

// Rows are lines of the output (n h/2), columns its pixels times vectors of channels.
template <class T, int V>
__global__ void pool_normalized(const T* __restrict__ x, const float* __restrict__ scale,
                                const float* __restrict__ shift, const double* __restrict__ mean,
                                const double* __restrict__ var, const float* __restrict__ running_mean,
                                const float* __restrict__ running_var, float eps, index_t rows, int columns,
                                int vectors, int h, int w, T* __restrict__ y) {
    const int column = tile_column();
    if (column >= columns) return;
    const int j = column / vectors, channel = column % vectors * V;
    const Channels<V> channels({mean, var, running_mean, running_var}, scale, shift, eps, channel);
    const index_t pixel = index_t(vectors) * V, line = w * pixel;
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        const index_t image = quotient(row, h / 2), i = row - image * (h / 2);
        const Four<T, V> four(x + ((image * h + 2 * i) * w + 2 * j) * pixel + channel, pixel, line);
        float best[V];
#pragma unroll
        for (int v = 0; v < V; ++v) {
            best[v] = 0.0f;
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const float z = channels.value(four.x(k, v), v);
                if (z > best[v] || z != z) best[v] = z;
            }
        }
        store<V>(y + (row * columns + column) * V, best);
    }
}

// Rows are windows (n h/2 w/2), columns vectors of channels -> partial (slabs, 2, width): sums of dz and of dz xhat.
// Pixels that pooling drops have dz = 0 and count as 0 xhat, so that one of them that is not finite shows, as it does
// where the passes are taken one by one.
template <class T, int V>
__global__ void __launch_bounds__(BLOCK, 2)
    pool_grad_sums(const T* __restrict__ dy, const T* __restrict__ x, const float* __restrict__ scale,
                   const float* __restrict__ shift, const double* __restrict__ mean, const double* __restrict__ var,
                   float eps, index_t rows, int width, int h, int w, double* __restrict__ partial) {
    const int column = tile_column() * V;
    double total[2 * V] = {};
    if (column < width) {
        const Channels<V> channels({mean, var, nullptr, nullptr}, scale, shift, eps, column);
        const index_t pixel = width, line = w * pixel;
        const Rows mine = segment_rows(rows, gridDim.y, blockIdx.y);
        index_t left = count_rows(mine);
        for (index_t row = mine.first; left > 0; left -= CHUNK) {
            const int chunk = int(left < CHUNK ? left : CHUNK);
            float sum[V] = {}, products[V] = {};
            for (int k = 0; k < chunk; ++k, row += mine.step) {
                const index_t lines = quotient(row, w / 2), j = row - lines * (w / 2);
                const index_t image = quotient(lines, h / 2), i = lines - image * (h / 2);
                const Four<T, V> four(x + ((image * h + 2 * i) * w + 2 * j) * pixel + column, pixel, line);
                float d[V];
                load<V>(dy + row * width + column, d);
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    const int place = four.taken(channels, v);
                    sum[v] += place < 0 ? 0.0f : d[v];
#pragma unroll
                    for (int p = 0; p < 4; ++p) {
                        const float dz = p == place ? d[v] : 0.0f;
                        products[v] += dz * ((four.x(p, v) - channels.mean[v]) * channels.inv[v]);
                    }
                }
            }
#pragma unroll
            for (int v = 0; v < V; ++v) {
                total[v] += sum[v];
                total[V + v] += products[v];
            }
        }
        const Statistics given = {mean, var, nullptr, nullptr};
#pragma unroll
        for (int v = 0; v < V; ++v) total[V + v] = given.corrected(total[V + v], total[v], column + v, channels.inv[v]);
        if (h % 2 || w % 2) {  // pixels in no window
            const Rows lines = segment_rows(rows / (index_t(h / 2) * (w / 2)) * h, gridDim.y, blockIdx.y);
            for (index_t row = lines.first; row < lines.stop; row += lines.step) {
                for (int q = row % h < h / 2 * 2 ? w / 2 * 2 : 0; q < w; ++q) {
                    float value[V];
                    load<V>(x + (row * w + q) * pixel + column, value);
#pragma unroll
                    for (int v = 0; v < V; ++v) total[V + v] += 0.0f * (value[v] - channels.mean[v]);
                }
            }
        }
    }
    write_pairs<V>(total, column, width, partial);
}

// Rows are lines of windows, with the half windows at the edge, whose pixels no gradient reaches but through the means.
template <class T, int V>
__global__ void pool_grad_apply(const T* __restrict__ dy, const T* __restrict__ x, const float* __restrict__ scale,
                                const float* __restrict__ shift, const double* __restrict__ mean,
                                const double* __restrict__ var, const float* __restrict__ sums, float eps,
                                index_t values, index_t rows, int columns, int vectors, int h, int w,
                                T* __restrict__ dx) {
    const int column = tile_column();
    if (column >= columns) return;
    const int j = column / vectors, channel = column % vectors * V, lines = (h + 1) / 2;
    const Channels<V> channels({mean, var, nullptr, nullptr}, scale, shift, eps, channel);
    const index_t pixel = index_t(vectors) * V, line = w * pixel;
    const Statistics given = {mean, var, nullptr, nullptr};
    float mean_dz[V], pull[V];  // as in batchnorm.cu
#pragma unroll
    for (int v = 0; v < V; ++v) {
        pull[v] = channels.inv[v] * (sums[pixel + channel + v] / float(values));
        const float low = pull[v] - pull[v] == 0 ? pull[v] * given.low_of(channel + v) : 0.0f;
        mean_dz[v] = sums[channel + v] / float(values) - low;
    }
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        const index_t image = quotient(row, lines), i = row - image * lines;
        const index_t at = ((image * h + 2 * i) * w + 2 * j) * pixel + channel;
        // the neighbours of a pixel at the edge are the pixel itself: read twice, written once
        const bool lower = 2 * i + 1 < h, right = 2 * j + 1 < w;
        const Four<T, V> four(x + at, right ? pixel : 0, lower ? line : 0);
        float d[V] = {};
        if (lower && right) load<V>(dy + ((image * (h / 2) + i) * (w / 2) + j) * pixel + channel, d);
        int place[V];
#pragma unroll
        for (int v = 0; v < V; ++v) place[v] = lower && right ? four.taken(channels, v) : -1;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            if ((k % 2 && !right) || (k / 2 && !lower)) continue;
            float out[V];
#pragma unroll
            for (int v = 0; v < V; ++v) {
                const float dz = place[v] == k ? d[v] : 0.0f;
                out[v] = channels.slope[v] * (dz - mean_dz[v] - (four.x(k, v) - channels.mean[v]) * pull[v]);
            }
            store<V>(dx + at + k % 2 * pixel + k / 2 * line, out);
        }
    }
}
