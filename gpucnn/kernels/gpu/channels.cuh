// Batch norm's line for the channels of a thread, the same wherever it is worked out.

// What V channels need: y = (x - mean) * slope + shift.
template <int V>
struct Channels {
    float mean[V], inv[V], slope[V], shift[V];

    __device__ inline Channels(const float* means, const float* vars, const float* scales, const float* shifts,
                               float eps, int column) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            mean[v] = means[column + v];
            inv[v] = rsqrtf(vars[column + v] + eps);
            slope[v] = scales[column + v] * inv[v];
            shift[v] = shifts ? shifts[column + v] : 0.0f;
        }
    }

    __device__ inline float value(float x, int v) const { return fmaf(x - mean[v], slope[v], shift[v]); }
};
