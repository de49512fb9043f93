// Muon's update of one matrix of filters, all but its matrix products: w, g and velocity are (rows, columns) in float32.
//
// What is multiplied is x, float16 (height, width): the direction over its length, turned where w is tall, zeros below
// and beside it up to multiples of eight.  Zeros stay zeros in every product.
//
// Grid: a thread a vector or an element, up to a limit of blocks that stride over the rest.  Blocks leave their sums of
// squares in `partial`, and every block of a later kernel adds them all, in the same order: no atomics.
// The learning rate may live on the device, as in optim.cu.

#include "vector.cuh"

constexpr int BLOCK = 256;  // threads, exactly

// The block's sum, told to all of its threads.
__device__ inline double block_sum(double value) {
    __shared__ double shared[BLOCK];
    const int thread = threadIdx.x;
    __syncthreads();  // an earlier sum has been read
    shared[thread] = value;
    __syncthreads();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if (thread < half) shared[thread] += shared[thread + half];
        __syncthreads();
    }
    return shared[0];
}

// The Frobenius norm whose square `blocks` blocks have left in pieces, and a little more.
__device__ inline double length(const double* partial, int blocks, double tiny) {
    double mine = 0.0;
    for (int i = threadIdx.x; i < blocks; i += BLOCK) mine += partial[i];
    return sqrt(block_sum(mine)) + tiny;
}

// velocity <- mu velocity + g, and sums of squares as partial (2, blocks): of the direction, of the weight.
template <int V, bool NESTEROV>
__global__ void direction(const float* __restrict__ w, const float* __restrict__ g, float* __restrict__ velocity,
                          index_t n, float mu, double* __restrict__ partial) {
    double moved = 0.0, weighed = 0.0;
    each<V>(n, [&](auto width, index_t i) {
        constexpr int W = decltype(width)::value;
        float weight[W], grad[W], speed[W];
        load<W>(w + i, weight);
        load<W>(g + i, grad);
        load<W>(velocity + i, speed);
#pragma unroll
        for (int v = 0; v < W; ++v) {
            speed[v] = mu * speed[v] + grad[v];
            const double d = NESTEROV ? grad[v] + mu * speed[v] : speed[v];
            moved += d * d;
            weighed += double(weight[v]) * weight[v];
        }
        store<W>(velocity + i, speed);
    });
    moved = block_sum(moved);
    weighed = block_sum(weighed);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = moved;
        partial[gridDim.x + blockIdx.x] = weighed;
    }
}

// The direction over its length -> x.
template <bool NESTEROV, bool TALL>
__global__ void start(const float* __restrict__ g, const float* __restrict__ velocity, float mu,
                      const double* __restrict__ partial, int blocks, double tiny, int rows, int columns, int height,
                      int width, __half* __restrict__ x) {
    const float scale = float(1.0 / length(partial, blocks, tiny));
    const index_t thread = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
    for (index_t i = thread; i < index_t(height) * width; i += index_t(gridDim.x) * blockDim.x) {
        const int down = int(quotient(i, width)), across = int(i - index_t(down) * width);
        const int row = TALL ? across : down, column = TALL ? down : across;
        float value = 0.0f;
        if (row < rows && column < columns) {
            const index_t at = index_t(row) * columns + column;
            value = scale * (NESTEROV ? g[at] + mu * velocity[at] : velocity[at]);
        }
        narrow(value, x[i]);
    }
}

// square <- a I + b gram + c square, all (side, side), eight values a load: rows are a multiple of that.
__global__ void polynomial(const __half* __restrict__ gram, float a, float b, float c, int side,
                           __half* __restrict__ square) {
    each<8>(index_t(side) * side, [=](auto width, index_t i) {
        constexpr int W = decltype(width)::value;
        float first[W], second[W];
        load<W>(gram + i, first);
        load<W>(square + i, second);
        const int row = int(quotient(i, side)), column = int(i - index_t(row) * side);
#pragma unroll
        for (int v = 0; v < W; ++v) second[v] = (row == column + v ? a : 0.0f) + b * first[v] + c * second[v];
        store<W>(square + i, second);
    });
}

// w <- w root / |w| - lr x.
template <bool TALL>
__global__ void finish(float* __restrict__ w, const __half* __restrict__ x, const double* __restrict__ partial,
                       int blocks, double tiny, double root, double lr, const double* __restrict__ lr_at, int rows,
                       int columns, int width) {
    const float keep = float(root / length(partial + blocks, blocks, tiny));
    const float rate = float(lr_at ? *lr_at : lr);
    const index_t thread = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
    for (index_t i = thread; i < index_t(rows) * columns; i += index_t(gridDim.x) * blockDim.x) {
        const int row = int(quotient(i, columns)), column = int(i - index_t(row) * columns);
        const index_t at = TALL ? index_t(column) * width + row : index_t(row) * width + column;
        w[i] = keep * w[i] - rate * widen(x[at]);
    }
}
