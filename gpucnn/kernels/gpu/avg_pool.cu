// Average pooling over images (N,H,W,C) and its gradient, laid out as max pooling; the border's zeros count.
// Global average pooling is column_sums of sums.cu forward and spread back.

#include "vector.cuh"
#include "columns.cuh"
#include "window.cuh"

template <class T, int V>
__global__ void avg_pool(const T* __restrict__ x, index_t rows, int columns, int channels, WINDOW_PARAMETERS,
                         T* __restrict__ y) {
    const Windows s = WINDOWS;
    const int column = tile_column();
    if (column >= columns) return;
    const int j = column / channels, channel = column % channels;
    const float size = float(index_t(s.kh) * s.kw);
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        const index_t image = quotient(row, s.down);
        const int above = int(row - image * s.down) * s.sh - s.top, before = j * s.sw - s.left;
        float sum[V] = {};
        for (int p = max(above, 0); p < min(above + s.kh, s.h); ++p) {
            for (int q = max(before, 0); q < min(before + s.kw, s.w); ++q) {
                float value[V];
                load<V>(x + (((image * s.h + p) * s.w + q) * channels + channel) * V, value);
#pragma unroll
                for (int v = 0; v < V; ++v) sum[v] += value[v];
            }
        }
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] /= size;
        store<V>(y + (row * columns + column) * V, sum);
    }
}

template <class T, int V>
__global__ void avg_pool_grad(const T* __restrict__ dy, index_t rows, int columns, int channels, WINDOW_PARAMETERS,
                              T* __restrict__ dx) {
    const Windows s = WINDOWS;
    const int column = tile_column();
    if (column >= columns) return;
    const int q = column / channels, channel = column % channels;
    const float size = float(index_t(s.kh) * s.kw);
    const Span along_w = windows_over(q, s.left, s.kw, s.sw, s.across);
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        const index_t image = quotient(row, s.h);
        const Span along_h = windows_over(int(row - image * s.h), s.top, s.kh, s.sh, s.down);
        float sum[V] = {};
        for (int i = along_h.last; i >= along_h.first; --i) {  // backwards: the order of the taps
            for (int j = along_w.last; j >= along_w.first; --j) {
                float d[V];
                load<V>(dy + (((image * s.down + i) * s.across + j) * channels + channel) * V, d);
#pragma unroll
                for (int v = 0; v < V; ++v) sum[v] += d[v] / size;
            }
        }
        store<V>(dx + (row * columns + column) * V, sum);
    }
}

// dy (N, width) -> dx (rows, width): each image's line, divided by its pixels, to all of them.
template <class T, int V>
__global__ void spread(const T* __restrict__ dy, index_t rows, int width, int pixels, T* __restrict__ dx) {
    const int column = tile_column() * V;
    if (column >= width) return;
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        float value[V];
        load<V>(dy + quotient(row, pixels) * width + column, value);
#pragma unroll
        for (int v = 0; v < V; ++v) value[v] /= float(pixels);
        store<V>(dx + row * width + column, value);
    }
}
