// CUDA's 16-bit float for the emulator: storage, and conversions that round to nearest even as the GPU's do.
#pragma once

#include <cstdint>
#include <cstring>

struct __half {
    std::uint16_t bits;
};

inline float __half2float(__half x) {
    const std::uint32_t sign = std::uint32_t(x.bits >> 15) << 31, exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
    if (exponent == 0) {  // zero and subnormals: fraction * 2^-24 is exact
        const float value = float(fraction) * (1.0f / 16777216.0f);
        return sign ? -value : value;
    }
    const std::uint32_t bits = exponent == 31 ? sign | 0x7f800000u | fraction << 13
                                              : sign | (exponent + 112) << 23 | fraction << 13;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline __half __float2half_rn(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const std::uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    std::uint32_t half;
    if (magnitude > 0x7f800000u) {
        half = 0x7fff;  // NaN
    } else if (magnitude >= 0x477ff000u) {
        half = 0x7c00;  // 65520 and more round to infinity
    } else if (magnitude < 0x38800000u) {
        // below 2^-14: adding 0.5 leaves the multiples of 2^-24 in the lowest bits, rounded
        float value;
        std::memcpy(&value, &magnitude, 4);
        value += 0.5f;
        std::memcpy(&half, &value, 4);
        half -= 0x3f000000u;
    } else {
        const std::uint32_t odd = magnitude >> 13 & 1;
        half = (magnitude - (112u << 23) + 0xfffu + odd) >> 13;
    }
    return {std::uint16_t(sign | half)};
}

// sm_80's maxima: NaN where either is NaN.
inline __half __hmax_nan(__half a, __half b) {
    const float left = __half2float(a), right = __half2float(b);
    if (left != left || right != right) return {0x7fff};
    return right > left ? b : a;
}

struct alignas(4) __half2 {
    __half x, y;
};

inline __half2 __hmax2_nan(__half2 a, __half2 b) { return {__hmax_nan(a.x, b.x), __hmax_nan(a.y, b.y)}; }
