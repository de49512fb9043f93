// Group norm and layer norm over x (examples, pixels, groups, size): a team of threads for each example and group.
//
//   forward:  group_norm (reads x three times, the second and third from cache where a group fits, writes y)
//   backward: group_norm_grad (reads dy and x twice, writes dx)
//             group_sums (reads dy and x, a channel a column), column_sums of sums.cu
//
// A team is a warp where groups are small, as layer norm's rows are, else a block.  Sums are float64, each thread's in
// order and then those of the team: first the mean, then squares around it.

#include "vector.cuh"
#include "columns.cuh"
#include "channels.cuh"

constexpr int WARP = 32;

template <int N>
__device__ inline void warp_sums(double (&value)[N]) {
    for (int apart = WARP / 2; apart > 0; apart /= 2) {
#pragma unroll
        for (int i = 0; i < N; ++i) value[i] += __shfl_xor_sync(0xffffffffu, value[i], apart);
    }
}

// Sums over a team, which all of its threads get.
template <int TEAM, int N>
__device__ inline void team_sums(double (&value)[N]) {
    warp_sums(value);
    if (TEAM > WARP) {
        __shared__ double shared[N * (TEAM / WARP)];
        const int warp = threadIdx.x / WARP;
        if (threadIdx.x % WARP == 0) {
#pragma unroll
            for (int i = 0; i < N; ++i) shared[N * warp + i] = value[i];
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < N; ++i) {
            value[i] = 0;
            for (int other = 0; other < TEAM / WARP; ++other) value[i] += shared[N * other + i];
        }
        __syncthreads();  // a next call may write there
    }
}

// Where an example's group lies in x, for one thread of its team.
template <int TEAM>
struct Group {
    index_t start;  // of the example
    int first, width, pixels, size;

    __device__ inline Group(index_t team, int groups, int pixels, int size)
        : width(groups * size), pixels(pixels), size(size) {
        const index_t example = quotient(team, groups);
        first = int(team - example * groups) * size;
        start = example * pixels * width;
    }

    // body(place, channel) for all values in turns of the team's threads: the place in x, and the channel.
    template <class Body>
    __device__ inline void each(Body body) const {
        const int lane = threadIdx.x % TEAM, down = TEAM / size, across = TEAM % size;
        int pixel = lane / size, k = lane % size;
        while (pixel < pixels) {
            body(start + (pixel * width + first + k), first + k);
            pixel += down;
            k += across;
            if (k >= size) {
                k -= size;
                ++pixel;
            }
        }
    }
};

// What a group's values need: xhat = (x - near) inv + rest, where rest is what float32 does not hold of the mean.
struct GroupLine {
    float near, inv, rest;

    __device__ inline GroupLine(double mean, double var, float eps) {
        const Statistics given = {&mean, &var, nullptr, nullptr};
        near = float(mean);
        inv = given.inverse_deviation(0, eps);
        const float low = given.low_of(0);
        rest = low == 0 ? 0.0f : -inv * low;
    }

    __device__ inline float xhat(float x) const { return fmaf(x - near, inv, rest); }
};

template <class T, int TEAM>
__global__ void __launch_bounds__(BLOCK, 4)
    group_norm(const T* __restrict__ x, const float* __restrict__ scale, const float* __restrict__ shift, float eps,
               index_t teams, int groups, int pixels, int size, double* __restrict__ means,
               double* __restrict__ variances, T* __restrict__ y) {
    const double count = double(pixels) * size;
    const index_t step = index_t(gridDim.x) * blockDim.x / TEAM;
    for (index_t team = (index_t(blockIdx.x) * blockDim.x + threadIdx.x) / TEAM; team < teams; team += step) {
        const Group<TEAM> group(team, groups, pixels, size);
        double total[1] = {};
        group.each([&](index_t at, int) { total[0] += double(widen(x[at])); });
        team_sums<TEAM>(total);
        const double mean = total[0] / count;
        double squares[1] = {};
        group.each([&](index_t at, int) {
            const double d = double(widen(x[at])) - mean;
            squares[0] += d * d;
        });
        team_sums<TEAM>(squares);
        const double var = squares[0] / count;
        if (threadIdx.x % TEAM == 0) {
            means[team] = mean;
            variances[team] = var;
        }
        const GroupLine line(mean, var, eps);
        group.each([&](index_t at, int channel) {
            narrow(fmaf(line.xhat(widen(x[at])), scale[channel], shift[channel]), y[at]);
        });
    }
}

template <class T, int TEAM>
__global__ void __launch_bounds__(BLOCK, 4)
    group_norm_grad(const T* __restrict__ dy, const T* __restrict__ x, const float* __restrict__ scale,
                    const double* __restrict__ means, const double* __restrict__ variances, float eps, index_t teams,
                    int groups, int pixels, int size, T* __restrict__ dx) {
    const double count = double(pixels) * size;
    const index_t step = index_t(gridDim.x) * blockDim.x / TEAM;
    for (index_t team = (index_t(blockIdx.x) * blockDim.x + threadIdx.x) / TEAM; team < teams; team += step) {
        const Group<TEAM> group(team, groups, pixels, size);
        const GroupLine line(means[team], variances[team], eps);
        double total[2] = {};
        group.each([&](index_t at, int channel) {
            const double d = double(scale[channel] * widen(dy[at]));
            total[0] += d;
            total[1] += d * double(line.xhat(widen(x[at])));
        });
        team_sums<TEAM>(total);
        const float mean_product = float(total[1] / count), pull = line.inv * mean_product;
        const float low = mean_product - mean_product == 0 ? line.rest * mean_product : 0.0f;
        const float about = float(total[0] / count) + low;
        group.each([&](index_t at, int channel) {
            const float d = scale[channel] * widen(dy[at]);
            narrow(line.inv * (d - about - (widen(x[at]) - line.near) * pull), dx[at]);
        });
    }
}

// dy, x (rows, width) -> partial (slabs, 2, width): each channel's sums of dy and of dy xhat over each slab of rows.
template <class T>
__global__ void __launch_bounds__(BLOCK, 4)
    group_sums(const T* __restrict__ dy, const T* __restrict__ x, const double* __restrict__ means,
               const double* __restrict__ variances, float eps, index_t rows, int groups, int pixels, int size,
               double* __restrict__ partial) {
    const int width = groups * size, column = tile_column();
    double total[2] = {};
    if (column < width) {
        const Rows mine = segment_rows(rows, gridDim.y, blockIdx.y);
        index_t known = -1;
        GroupLine line(0.0, 1.0, 0.0f);
        for (index_t row = mine.first; row < mine.stop; row += mine.step) {
            const index_t example = quotient(row, pixels);
            if (example != known) {
                const index_t team = example * groups + column / size;
                line = GroupLine(means[team], variances[team], eps);
                known = example;
            }
            const double d = double(widen(dy[row * width + column]));
            total[0] += d;
            total[1] += d * double(line.xhat(widen(x[row * width + column])));
        }
    }
    write_pairs<1>(total, column, width, partial);
}
