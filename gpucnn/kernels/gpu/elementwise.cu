// Maps over all elements: y = f(a) or f(a, b).  One pass, 16 bytes a load where the arrays are aligned to them.
//
// Grid: one thread a vector, up to a limit of blocks that stride over the rest.

#include "vector.cuh"

struct Relu {
    static constexpr bool binary = false;
    __device__ static float of(float x, float, float) { return x < 0 ? 0.0f : x; }  // not fmaxf: NaN stays NaN
};
struct LeakyRelu {
    static constexpr bool binary = false;
    __device__ static float of(float x, float, float slope) { return x > 0 ? x : slope * x; }
};
struct ReluGrad {
    static constexpr bool binary = true;
    __device__ static float of(float dy, float x, float) { return x > 0 ? dy : 0.0f; }
};
struct LeakyReluGrad {
    static constexpr bool binary = true;
    __device__ static float of(float dy, float x, float slope) { return x > 0 ? dy : slope * dy; }
};
// The normal distribution's share below x; erfcf keeps the digits of its left tail.
__device__ inline float normal_below(float x) { return 0.5f * erfcf(-0.70710678f * x); }
struct Gelu {
    static constexpr bool binary = false;
    __device__ static float of(float x, float, float) { return x * normal_below(x); }
};
struct GeluGrad {
    static constexpr bool binary = true;
    __device__ static float of(float dy, float x, float) {
        return dy * (normal_below(x) + x * 0.39894228f * expf(-0.5f * x * x));
    }
};
struct Add {
    static constexpr bool binary = true;
    __device__ static float of(float a, float b, float) { return a + b; }
};
struct AddRelu {
    static constexpr bool binary = true;
    __device__ static float of(float a, float b, float) { return Relu::of(a + b, 0, 0); }
};

template <class Op, class T, int V>
__global__ void map(const T* __restrict__ a, const T* __restrict__ b, float slope, index_t n, T* __restrict__ y) {
    each<V>(n, [=](auto width, index_t i) {
        constexpr int W = decltype(width)::value;
        float one[W], two[W] = {};
        load<W>(a + i, one);
        if (Op::binary) load<W>(b + i, two);
#pragma unroll
        for (int v = 0; v < W; ++v) one[v] = Op::of(one[v], two[v], slope);
        store<W>(y + i, one);
    });
}
