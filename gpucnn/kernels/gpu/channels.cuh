// Batch norm's line for the channels of a thread, the same wherever it is worked out.

// Variances of channels: float64 as a batch's are, whose range float32 does not have, or float32 as running ones are; the
// other one is null.
struct Variances {
    const double* batch;
    const float* running;

    // 1 / sqrt(var + eps), by float32's instruction: its argument is brought into float32's range.
    __device__ inline float inverse_deviation(int column, float eps) const {
        const double v = (batch ? batch[column] : double(running[column])) + double(eps);
        const bool large = v > 1e30;
        return rsqrtf(float(large ? v * 7.52316384526264e-37 : v)) * (large ? 8.67361737988404e-19f : 1.0f);
    }
};

// What V channels need: y = (x - mean) * slope + shift.
template <int V>
struct Channels {
    float mean[V], inv[V], slope[V], shift[V];

    __device__ inline Channels(const float* means, const Variances& vars, const float* scales, const float* shifts,
                               float eps, int column) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            mean[v] = means[column + v];
            inv[v] = vars.inverse_deviation(column + v, eps);
            slope[v] = scales[column + v] * inv[v];
            shift[v] = shifts ? shifts[column + v] : 0.0f;
        }
    }

    __device__ inline float value(float x, int v) const { return fmaf(x - mean[v], slope[v], shift[v]); }
};
