// Sixteen bytes at a time: loads into float32 registers and stores out of them, whatever the storage.

#include <cuda_fp16.h>

typedef long long index_t;  // of elements and rows; positions within a row are int

template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
    T lane[V];
};

// What arithmetic on a storage type is done in.
template <class T>
struct Arithmetic {
    typedef float type;
};
template <>
struct Arithmetic<double> {
    typedef double type;
};

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline double widen(double x) { return x; }

__device__ inline void narrow(float x, float& to) { to = x; }
__device__ inline void narrow(float x, __half& to) { to = __float2half_rn(x); }
__device__ inline void narrow(double x, double& to) { to = x; }
__device__ inline void narrow(double x, float& to) { to = float(x); }
__device__ inline void narrow(double x, __half& to) { to = __float2half_rn(float(x)); }
__device__ inline void narrow(double x, index_t& to) { to = index_t(x); }

// V values from memory that is aligned to V values; V = 1 is for everything else.
template <int V, class T>
__device__ inline void load(const T* from, typename Arithmetic<T>::type (&to)[V]) {
    const Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(from);
#pragma unroll
    for (int v = 0; v < V; ++v) to[v] = widen(pack.lane[v]);
}

template <int V, class T, class A>
__device__ inline void store(T* to, const A (&from)[V]) {
    Pack<T, V> pack;
#pragma unroll
    for (int v = 0; v < V; ++v) narrow(from[v], pack.lane[v]);
    *reinterpret_cast<Pack<T, V>*>(to) = pack;
}

template <int N>
struct Width {
    static constexpr int value = N;
};

// body(Width<V>(), i) for every whole vector of n elements, body(Width<1>(), i) for each element that is left over;
// i counts elements.  Launched on any number of one-dimensional blocks.
template <int V, class Body>
__device__ inline void each(index_t n, Body body) {
    const index_t thread = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const index_t threads = index_t(gridDim.x) * blockDim.x;
    const index_t vectors = n / V;
    for (index_t i = thread; i < vectors; i += threads) body(Width<V>(), i * V);
    if (V > 1) {
        for (index_t i = vectors * V + thread; i < n; i += threads) body(Width<1>(), i);
    }
}

// row / size, by 32-bit division wherever the row's number fits: the 64-bit one is a loop of instructions.
__device__ inline index_t quotient(index_t row, int size) {
    return row >> 32 ? row / size : index_t(unsigned(row) / unsigned(size));
}
