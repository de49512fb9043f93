// A batch out of uint8 images (N,H,W,C) on the device: gather, shift, mirror, normalise, cover a
// square, in one pass.
//
// Rows of the grid are lines of the batch (B H), columns are vectors of V values of a line (W C / V): a thread keeps
// its columns and channels and only looks up where the line comes from.  Reads 1 byte a value, writes 2 or 4.

#include "vector.cuh"
#include "columns.cuh"

// A pixel of the image behind a coordinate that may lie up to `size` - 1 outside: reflected, not repeating the edge.
__device__ inline int reflected(int at, int size) {
    at = at < 0 ? -at : at;
    at = at >= size ? 2 * (size - 1) - at : at;
    return at < 0 ? 0 : at;  // only a shift that is out of its range gets here: stay inside the image
}

// flip (B) and shift (B,2) are null where nothing is drawn; crop is the border that shift counts from.
// centre (B) is the pixel in the middle of a square of `cutout` a side that is covered with zeros, null where none is.
// factor = inv_std / 255 and offset = mean inv_std, rounded one by one as the op does.
template <class T, int V>
__global__ void gather(const unsigned char* __restrict__ images, index_t count, const index_t* __restrict__ index,
                       const bool* __restrict__ flip, const int* __restrict__ shift, int crop, bool reflect,
                       const float* __restrict__ mean, const float* __restrict__ inv_std,
                       const int* __restrict__ centre, int cutout, index_t rows, int columns, int h, int w, int c,
                       T* __restrict__ y) {
    const int column = tile_column();
    if (column >= columns) return;
    int place[V], channel[V];
    float factor[V], offset[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
        place[v] = (column * V + v) / c;
        channel[v] = (column * V + v) % c;
        factor[v] = __fmul_rn(inv_std[channel[v]], float(1.0 / 255.0));
        offset[v] = __fmul_rn(mean[channel[v]], inv_std[channel[v]]);
    }
    const Rows mine = interleaved_rows(rows);
    for (index_t row = mine.first; row < mine.stop; row += mine.step) {
        const index_t b = quotient(row, h);
        index_t image = index[b];
        if (image < 0 || image >= count) image = ((image % count) + count) % count;  // as CuPy indexes
        const bool mirror = flip && flip[b];
        const int down = shift ? shift[2 * b] - crop : 0, across = shift ? shift[2 * b + 1] - crop : 0;
        const int i = int(row - b * h);
        int p = i + down;
        if (reflect) p = reflected(p, h);
        const bool line_inside = p >= 0 && p < h;
        const unsigned char* line = images + (image * h + p) * w * c;
        const int top = centre ? centre[2 * b] - cutout / 2 : 0, left = centre ? centre[2 * b + 1] - cutout / 2 : 0;
        const bool covers = centre && i >= top && i - top < cutout;
        float value[V];
#pragma unroll
        for (int v = 0; v < V; ++v) {
            int q = (mirror ? w - 1 - place[v] : place[v]) + across;
            if (reflect) q = reflected(q, w);
            const bool inside = line_inside && q >= 0 && q < w;
            const float pixel = inside ? float(line[index_t(q) * c + channel[v]]) : 0.0f;  // the border is black
            const bool covered = covers && place[v] >= left && place[v] - left < cutout;
            value[v] = covered ? 0.0f : __fsub_rn(__fmul_rn(pixel, factor[v]), offset[v]);
        }
        store<V>(y + (row * columns + column) * V, value);
    }
}
