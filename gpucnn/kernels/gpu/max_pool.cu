// Max pooling over images (N,H,W,C) and its gradient, which finds the maximum again instead of having stored it.
//
// Rows of the grid are lines of the output (for gradients: of the input), columns are pixels times vectors of channels.
// Gradients gather: a thread owns a pixel and asks every window over it, so no two threads write to one place and the
// sum has one order.  The usual windows, 2x2 that tile the image, go four pixels to a thread instead.
// The border counts as minus infinity.  NaN wins forward, and then nobody does backward.
// RELU: of max(x, 0), which commutes with the maximum; backward the maximum has to be above 0.

#include "vector.cuh"
#include "columns.cuh"
#include "window.cuh"

#define LOWEST __int_as_float(int(0xff800000u))  // minus infinity

template <class T, int V, bool RELU>
__global__ void max_pool(const T* __restrict__ x, index_t rows, int columns, int channels, WINDOW_PARAMETERS,
                         T* __restrict__ y) {
    const Windows s = WINDOWS;
    const int column = tile_column();
    if (column >= columns) return;
    const int j = column / channels, channel = column % channels;
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        const index_t image = quotient(row, s.down);
        const int above = int(row - image * s.down) * s.sh - s.top, before = j * s.sw - s.left;
        float best[V];
#pragma unroll
        for (int v = 0; v < V; ++v) best[v] = LOWEST;
        for (int p = max(above, 0); p < min(above + s.kh, s.h); ++p) {
            for (int q = max(before, 0); q < min(before + s.kw, s.w); ++q) {
                float value[V];
                load<V>(x + (((image * s.h + p) * s.w + q) * channels + channel) * V, value);
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    if (value[v] > best[v] || value[v] != value[v]) best[v] = value[v];
                }
            }
        }
        if (RELU) {
#pragma unroll
            for (int v = 0; v < V; ++v) best[v] = best[v] < 0 ? 0.0f : best[v];
        }
        store<V>(y + (row * columns + column) * V, best);
    }
}

// Whether the value at tap (m0, n0) is its window's first maximum, lane by lane: above all before, not below any after.
template <int V, bool RELU, class T>
__device__ inline void wins(const T* image, const Windows& s, int channels, int channel, int i, int j, int m0,
                            int n0, const float (&value)[V], bool (&won)[V]) {
#pragma unroll
    for (int v = 0; v < V; ++v) won[v] = RELU ? value[v] > 0 : value[v] == value[v];
    for (int m = 0; m < s.kh; ++m) {
        for (int n = 0; n < s.kw; ++n) {
            if (m == m0 && n == n0) continue;
            const bool earlier = m < m0 || (m == m0 && n < n0);
            const int p = i * s.sh - s.top + m, q = j * s.sw - s.left + n;
            float other[V];
            if (p >= 0 && p < s.h && q >= 0 && q < s.w) {
                load<V>(image + ((index_t(p) * s.w + q) * channels + channel) * V, other);
            } else {
#pragma unroll
                for (int v = 0; v < V; ++v) other[v] = LOWEST;
            }
#pragma unroll
            for (int v = 0; v < V; ++v) won[v] = won[v] && (earlier ? other[v] < value[v] : other[v] <= value[v]);
        }
    }
}

template <class T, int V, bool RELU>
__global__ void max_pool_grad(const T* __restrict__ dy, const T* __restrict__ x, index_t rows, int columns,
                              int channels, WINDOW_PARAMETERS, T* __restrict__ dx) {
    const Windows s = WINDOWS;
    const int column = tile_column();
    if (column >= columns) return;
    const int q = column / channels, channel = column % channels;
    const Span along_w = windows_over(q, s.left, s.kw, s.sw, s.across);
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        const index_t image = quotient(row, s.h);
        const int p = int(row - image * s.h);
        const Span along_h = windows_over(p, s.top, s.kh, s.sh, s.down);
        const T* pixels = x + image * s.h * s.w * channels * V;
        float value[V], sum[V] = {};
        load<V>(x + (row * columns + column) * V, value);
        for (int i = along_h.last; i >= along_h.first; --i) {  // backwards: the order of the taps
            for (int j = along_w.last; j >= along_w.first; --j) {
                bool won[V];
                const int m = p + s.top - i * s.sh, n = q + s.left - j * s.sw;
                wins<V, RELU>(pixels, s, channels, channel, i, j, m, n, value, won);
                float d[V];
                load<V>(dy + (((image * s.down + i) * s.across + j) * channels + channel) * V, d);
#pragma unroll
                for (int v = 0; v < V; ++v) sum[v] += won[v] ? d[v] : 0.0f;
            }
        }
        store<V>(dx + (row * columns + column) * V, sum);
    }
}

// 2x2 windows that tile the image: rows are lines of windows, with the half windows at its end, whose pixels get 0.
template <class T, int V, bool RELU>
__global__ void max_pool_2x2_grad(const T* __restrict__ dy, const T* __restrict__ x, index_t rows, int columns,
                                  int channels, int h, int w, T* __restrict__ dx) {
    const int column = tile_column();
    if (column >= columns) return;
    const int j = column / channels, channel = column % channels, lines = (h + 1) / 2;
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        const index_t image = quotient(row, lines);
        const int i = int(row - image * lines);
        const bool lower = 2 * i + 1 < h, right = 2 * j + 1 < w;
        const index_t line = index_t(w) * channels * V, pixel = index_t(channels) * V;
        const index_t at = ((image * h + 2 * i) * w + 2 * j) * pixel + channel * V;
        float a[V] = {}, b[V] = {}, c[V] = {}, d[V] = {};
        if (lower && right) {
            float gradient[V];
            load<V>(x + at, a);
            load<V>(x + at + pixel, b);
            load<V>(x + at + line, c);
            load<V>(x + at + line + pixel, d);
            load<V>(dy + (((image * (h / 2) + i) * (w / 2) + j) * channels + channel) * V, gradient);
#pragma unroll
            for (int v = 0; v < V; ++v) {
                const float most = fmaxf(fmaxf(a[v], b[v]), fmaxf(c[v], d[v]));
                const int place = RELU && !(most > 0) ? -1 : first_maximum(a[v], b[v], c[v], d[v]);
                a[v] = place == 0 ? gradient[v] : 0.0f;
                b[v] = place == 1 ? gradient[v] : 0.0f;
                c[v] = place == 2 ? gradient[v] : 0.0f;
                d[v] = place == 3 ? gradient[v] : 0.0f;
            }
        }
        store<V>(dx + at, a);
        if (right) store<V>(dx + at + pixel, b);
        if (lower) store<V>(dx + at + line, c);
        if (lower && right) store<V>(dx + at + line + pixel, d);
    }
}
