// Max pooling over images (N,H,W,C) and its gradient, which finds the maximum again instead of having stored it.
//
// Rows of the grid are lines of the output (for gradients: of the input), columns are pixels times vectors of channels.
// Gradients gather: a thread owns a pixel and asks every window over it, so no two threads write to one place and the
// sum has one order.  The usual windows, 2x2 that tile the image, have kernels of their own, four pixels to a thread.
// The border is in no window.  NaN is larger than any number, forward and backward.
// RELU: of max(x, 0), which commutes with the maximum; backward the maximum has to be above 0.

#include "vector.cuh"
#include "columns.cuh"
#include "window.cuh"

#define LOWEST __int_as_float(int(0xff800000u))  // minus infinity

// Forward, values stay as they are stored: a maximum rounds nothing, and loads in flight take few registers.

template <class T, int V>
__device__ inline Pack<T, V> filled(float value) {
    Pack<T, V> pack;
#pragma unroll
    for (int v = 0; v < V; ++v) narrow(value, pack.lane[v]);
    return pack;
}

// The larger one, lane by lane: NaN where either is NaN, of zeros with different signs either.
template <int V>
__device__ inline Pack<float, V> larger(const Pack<float, V>& a, const Pack<float, V>& b) {
    Pack<float, V> best;
#pragma unroll
    for (int v = 0; v < V; ++v) {
        best.lane[v] = b.lane[v] > a.lane[v] || b.lane[v] != b.lane[v] ? b.lane[v] : a.lane[v];
    }
    return best;
}

// Two lanes an instruction.
template <int V>
__device__ inline Pack<__half, V> larger(const Pack<__half, V>& a, const Pack<__half, V>& b) {
    Pack<__half, V> best;
    if constexpr (V % 2 == 0) {
        const __half2 *left = reinterpret_cast<const __half2*>(&a), *right = reinterpret_cast<const __half2*>(&b);
#pragma unroll
        for (int v = 0; v < V / 2; ++v) reinterpret_cast<__half2*>(&best)[v] = __hmax2_nan(left[v], right[v]);
    } else {
#pragma unroll
        for (int v = 0; v < V; ++v) best.lane[v] = __hmax_nan(a.lane[v], b.lane[v]);
    }
    return best;
}

template <class T, int V>
__device__ inline Pack<T, V> pack_at(const T* from) {
    return *reinterpret_cast<const Pack<T, V>*>(from);
}

template <class T, int V, bool RELU>
__global__ void max_pool(const T* __restrict__ x, index_t rows, int columns, int channels, WINDOW_PARAMETERS,
                         T* __restrict__ y) {
    const Windows s = WINDOWS;
    const int column = tile_column();
    if (column >= columns) return;
    const int j = column / channels, channel = column % channels;
    const int before = j * s.sw - s.left, first = max(before, 0), stop = min(before + s.kw, s.w);
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        const index_t image = quotient(row, s.down);
        const int above = int(row - image * s.down) * s.sh - s.top;
        const T* pixels = x + image * s.h * s.w * channels * V;
        Pack<T, V> best = filled<T, V>(RELU ? 0.0f : LOWEST);
        for (int p = max(above, 0); p < min(above + s.kh, s.h); ++p) {
            for (int q = first; q < stop; q += AHEAD) {
                Pack<T, V> tap[AHEAD];
#pragma unroll
                for (int k = 0; k < AHEAD; ++k) {
                    tap[k] = filled<T, V>(LOWEST);
                    if (q + k < stop) tap[k] = pack_at<T, V>(pixels + ((p * s.w + q + k) * channels + channel) * V);
                }
#pragma unroll
                for (int k = 0; k < AHEAD; ++k) best = larger(best, tap[k]);
            }
        }
        *reinterpret_cast<Pack<T, V>*>(y + (row * columns + column) * V) = best;
    }
}

// 2x2 windows that tile the image: a thread's four loads are under way at once, in as many threads as a GPU holds.
// Rows are lines of whole windows; an odd line or column at the end is in none.
template <class T, int V, bool RELU>
__global__ void __launch_bounds__(BLOCK, 8)
    max_pool_2x2(const T* __restrict__ x, index_t rows, int columns, int channels, int h, int w, T* __restrict__ y) {
    const int column = tile_column();
    if (column >= columns) return;
    const int j = column / channels, channel = column % channels, lines = h / 2;
    const int pixel = channels * V, line = w * pixel;
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        const index_t image = quotient(row, lines);
        const int i = int(row - image * lines);
        const T* at = x + image * h * line + (2 * i * line + 2 * j * pixel + channel * V);
        const Pack<T, V> a = pack_at<T, V>(at), b = pack_at<T, V>(at + pixel);
        const Pack<T, V> c = pack_at<T, V>(at + line), d = pack_at<T, V>(at + line + pixel);
        Pack<T, V> best = larger(larger(a, b), larger(c, d));
        if (RELU) best = larger(best, filled<T, V>(0.0f));
        *reinterpret_cast<Pack<T, V>*>(y + (row * columns + column) * V) = best;
    }
}

// Whether the value at tap (m0, n0) is its window's first maximum, lane by lane: it beats all before, and none after
// beats it.
template <int V, bool RELU, class T>
__device__ inline void wins(const T* image, const Windows& s, int channels, int channel, int i, int j, int m0,
                            int n0, const float (&value)[V], bool (&won)[V]) {
#pragma unroll
    for (int v = 0; v < V; ++v) won[v] = !RELU || value[v] > 0;
    for (int m = 0; m < s.kh; ++m) {
        for (int n = 0; n < s.kw; ++n) {
            const int p = i * s.sh - s.top + m, q = j * s.sw - s.left + n;
            if ((m == m0 && n == n0) || p < 0 || p >= s.h || q < 0 || q >= s.w) continue;
            const bool earlier = m < m0 || (m == m0 && n < n0);
            float other[V];
            load<V>(image + ((index_t(p) * s.w + q) * channels + channel) * V, other);
#pragma unroll
            for (int v = 0; v < V; ++v) {
                won[v] = won[v] && (earlier ? beats(value[v], other[v]) : !beats(other[v], value[v]));
            }
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
                float most;
                int place = first_maximum(a[v], b[v], c[v], d[v], most);
                if (RELU && !(most > 0)) place = -1;
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
