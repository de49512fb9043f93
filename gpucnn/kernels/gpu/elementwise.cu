// Maps over all elements: y = f(a) or f(a, b).  One pass, 16 bytes a load where the arrays are aligned to them.
//
// Grid: one thread a vector, up to a limit of blocks that stride over the rest.

#include "vector.cuh"

struct Relu {
    static constexpr bool binary = false;
    template <class>
    __device__ static float of(float x, float, float) { return x < 0 ? 0.0f : x; }  // not fmaxf: NaN stays NaN
};
struct LeakyRelu {
    static constexpr bool binary = false;
    template <class>
    __device__ static float of(float x, float, float slope) { return x > 0 ? x : slope * x; }
};
struct ReluGrad {
    static constexpr bool binary = true;
    template <class>
    __device__ static float of(float dy, float x, float) { return x > 0 ? dy : 0.0f; }
};
struct Relu6 {
    static constexpr bool binary = false;
    template <class>
    __device__ static float of(float x, float, float) { return x < 0 ? 0.0f : x > 6.0f ? 6.0f : x; }
};
struct Relu6Grad {
    static constexpr bool binary = true;
    template <class>
    __device__ static float of(float dy, float x, float) { return x > 0 && x < 6.0f ? dy : 0.0f; }
};
struct LeakyReluGrad {
    static constexpr bool binary = true;
    template <class>
    __device__ static float of(float dy, float x, float slope) { return x > 0 ? dy : slope * dy; }
};
// The standard normal distribution function at x, and its density there.
template <class T>
struct Normal {
    float below, density;

    // erfcf keeps the digits of the left tail.
    __device__ inline explicit Normal(float x)
        : below(0.5f * erfcf(-0.70710678f * x)), density(0.39894228f * expf(-0.5f * x * x)) {}
};
// For what is rounded to 11 bits in the end: the tail is t r(t) exp(-x^2 / 2) with t = 1 / (1 + 0.31 |x|) and r of degree
// 5, fitted for the smallest relative error, 5e-6; one exponential and one quotient instead of two series.
template <>
struct Normal<__half> {
    float below, density;

    __device__ inline explicit Normal(float x) {
        const float t = __fdividef(1.0f, fmaf(0.31f, fabsf(x), 1.0f)), bell = exp2f(-0.72134752f * x * x);
        float r = fmaf(-0.073918985f, t, 0.180417972f);
        r = fmaf(r, t, 0.0157846783f);
        r = fmaf(r, t, 0.133406001f);
        r = fmaf(r, t, 0.120448064f);
        r = fmaf(r, t, 0.123859963f);
        const float tail = r * t * bell;
        below = x >= 0 ? 1.0f - tail : tail;
        density = 0.39894228f * bell;
    }
};
struct Gelu {
    static constexpr bool binary = false;
    template <class T>
    __device__ static float of(float x, float, float) {
        return x * Normal<T>(x).below;
    }
};
struct GeluGrad {
    static constexpr bool binary = true;
    template <class T>
    __device__ static float of(float dy, float x, float) {
        const Normal<T> normal(x);
        return dy * fmaf(x, normal.density, normal.below);
    }
};
struct Hardswish {
    static constexpr bool binary = false;
    template <class>
    __device__ static float of(float x, float, float) {
        const float t = x + 3.0f, above = t < 0 ? 0.0f : t;  // not fmaxf: NaN stays NaN
        return x * ((above > 6 ? 6.0f : above) * 0.16666667f);
    }
};
struct HardswishGrad {
    static constexpr bool binary = true;
    template <class>
    __device__ static float of(float dy, float x, float) {
        return x >= 3 ? dy : x <= -3 ? 0.0f : dy * fmaf(x, 0.33333334f, 0.5f);
    }
};
struct Add {
    static constexpr bool binary = true;
    template <class>
    __device__ static float of(float a, float b, float) { return a + b; }
};
struct AddRelu {
    static constexpr bool binary = true;
    template <class>
    __device__ static float of(float a, float b, float) { return Relu::of<void>(a + b, 0, 0); }
};

template <class Op, class T, int V>
__global__ void map(const T* __restrict__ a, const T* __restrict__ b, float slope, index_t n, T* __restrict__ y) {
    each<V>(n, [=](auto width, index_t i) {
        constexpr int W = decltype(width)::value;
        float one[W], two[W] = {};
        load<W>(a + i, one);
        if (Op::binary) load<W>(b + i, two);
#pragma unroll
        for (int v = 0; v < W; ++v) one[v] = Op::template of<T>(one[v], two[v], slope);
        store<W>(y + i, one);
    });
}
