// Windows over images (N,H,W,C), channels last, as vectors of V channels.

// Sizes in pixels: images h x w, outputs down x across, windows kh x kw every sh x sw, border before the first pixel.
struct Windows {
    int h, w, down, across, kh, kw, sh, sw, top, left;
};

#define WINDOW_PARAMETERS                                                                                       \
    int h, int w, int down, int across, int kh, int kw, int sh, int sw, int top, int left
#define WINDOWS \
    { h, w, down, across, kh, kw, sh, sw, top, left }

// The windows, along one axis, that a pixel is in: last, last - 1, ... first.
struct Span {
    int first, last;
};

__device__ inline Span windows_over(int pixel, int before, int kernel, int stride, int windows) {
    const int at = pixel + before, past = at - kernel + stride;  // first = ceil((at - kernel + 1) / stride)
    const int last = at / stride;
    return {past < 0 ? 0 : past / stride, last < windows ? last : windows - 1};
}

// Whether a value is larger than the best so far; NaN is larger than any number.
__device__ inline bool beats(float value, float best) { return value > best || (value != value && best == best); }

// Which of a 2x2 window's values, row by row, is its first maximum, and what that is.
__device__ inline int first_maximum(float a, float b, float c, float d, float& best) {
    int place = 0;
    best = a;
    if (beats(b, best)) best = b, place = 1;
    if (beats(c, best)) best = c, place = 2;
    if (beats(d, best)) best = d, place = 3;
    return place;
}
