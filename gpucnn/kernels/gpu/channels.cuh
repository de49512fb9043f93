// Batch norm's line for the channels of a thread, the same wherever it is worked out.

// Means and variances of channels: float64 as a batch's are, or float32 as running ones are; the others are null.
// In float32 a mean far from 0 is rounded by more than x differs from it, and variances beyond 1e38 are infinite.
struct Statistics {
    const double *mean, *var;
    const float *running_mean, *running_var;

    __device__ inline double mean_of(int column) const { return mean ? mean[column] : double(running_mean[column]); }

    // What float32 does not hold of the mean.
    __device__ inline float low_of(int column) const {
        const double exact = mean_of(column);
        const float high = float(exact);
        return high - high == 0 ? float(exact - double(high)) : 0.0f;
    }

    // A sum of dz xhat from those of dz and of dz inv (x - mean).
    __device__ inline double corrected(double products, double sum, int column, float inv) const {
        const float low = low_of(column);
        return low == 0 ? products : products - double(inv * low) * sum;
    }

    // 1 / sqrt(var + eps), by float32's instruction: its argument is brought into float32's range.
    __device__ inline float inverse_deviation(int column, float eps) const {
        const double v = (var ? var[column] : double(running_var[column])) + double(eps);
        const bool large = v > 1e30;
        return rsqrtf(float(large ? v * 7.52316384526264e-37 : v)) * (large ? 8.67361737988404e-19f : 1.0f);
    }
};

// What V channels need: y = (x - mean) * slope + shift.  What float32 does not hold of the mean is in shift.
template <int V>
struct Channels {
    float mean[V], inv[V], slope[V], shift[V];

    __device__ inline Channels(const Statistics& given, const float* scales, const float* shifts, float eps, int column) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            mean[v] = float(given.mean_of(column + v));
            inv[v] = given.inverse_deviation(column + v, eps);
            slope[v] = scales[column + v] * inv[v];
            const float taken = slope[v] * given.low_of(column + v);
            shift[v] = (shifts ? shifts[column + v] : 0.0f) - (taken - taken == 0 ? taken : 0.0f);
        }
    }

    __device__ inline float value(float x, int v) const { return fmaf(x - mean[v], slope[v], shift[v]); }
};
