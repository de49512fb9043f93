// CUDA kernels on the CPU, for tests: each block's threads are fibers that take turns, so barriers and shuffles mean
// what they mean on a GPU.  Stricter than a GPU: a barrier that not all threads of a block reach is an error.
#pragma once

#include <signal.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda_fp16.h"

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __shared__ static  // one block runs at a time

struct uint3 {
    unsigned x, y, z;
};

static uint3 gridDim, blockDim, blockIdx, threadIdx;

using std::max;
using std::min;

static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __int_as_float(int x) {
    float value;
    std::memcpy(&value, &x, 4);
    return value;
}
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fsub_rn(float a, float b) { return a - b; }

namespace emulator {

constexpr unsigned WARP = 32, STACK = 1 << 16;
enum State { READY, AT_BARRIER, AT_SHUFFLE, DONE };

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    uint3 thread;
    State state;
    int phase;              // of shuffles: a lane may be one ahead of its neighbours
    std::uint64_t slot[2];  // what it shows to the others
};

static std::vector<Fiber> fibers;
static unsigned threads, current;
static ucontext_t scheduler;
static void (*body)(void**);
static void** arguments;
static std::string problem;

static void report(const std::string& what) {
    if (problem.empty()) {
        char where[160];
        std::snprintf(where, sizeof where, " in block (%u,%u), thread (%u,%u)", blockIdx.x, blockIdx.y, threadIdx.x,
                      threadIdx.y);
        problem = what + where;
    }
}

// A kernel that touches memory that is not its own is stopped there, and the process lives on.
static void on_fault(int, siginfo_t* fault, void*) {
    char address[32];
    std::snprintf(address, sizeof address, "%p", fault->si_addr);
    report(std::string("an access beside an array, at ") + address);
    swapcontext(&fibers[current].context, &scheduler);  // for good
}

struct WatchFaults {
    struct sigaction before[2];

    WatchFaults() {
        struct sigaction watch = {};
        watch.sa_sigaction = on_fault;
        watch.sa_flags = SA_SIGINFO;
        sigaction(SIGSEGV, &watch, &before[0]);
        sigaction(SIGBUS, &watch, &before[1]);
    }
    ~WatchFaults() {
        sigaction(SIGSEGV, &before[0], nullptr);
        sigaction(SIGBUS, &before[1], nullptr);
    }
};

static void run_fiber() {
    for (;;) {  // a fiber is the same thread of one block after the other
        body(arguments);
        fibers[current].state = DONE;
        swapcontext(&fibers[current].context, &scheduler);
    }
}

static void wait(State how) {
    Fiber& mine = fibers[current];
    mine.state = how;
    swapcontext(&mine.context, &scheduler);
}

static bool all_in(unsigned first, unsigned stop, State state) {
    for (unsigned t = first; t < stop; ++t) {
        if (fibers[t].state != state) return false;
    }
    return true;
}

// Lets fibers go on whose meeting is complete; false where nobody may.
static bool release() {
    if (all_in(0, threads, AT_BARRIER)) {
        for (unsigned t = 0; t < threads; ++t) fibers[t].state = READY;
        return true;
    }
    bool any = false;
    for (unsigned first = 0; first < threads; first += WARP) {
        const unsigned stop = first + WARP;
        if (stop <= threads && all_in(first, stop, AT_SHUFFLE)) {
            for (unsigned t = first; t < stop; ++t) fibers[t].state = READY;
            any = true;
        }
    }
    return any;
}

static void prepare(Fiber& fiber) {
    getcontext(&fiber.context);
    fiber.stack.resize(STACK);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
}

// Fibers for a launch of so many threads.
static void assemble(unsigned count) {
    threads = count;
    if (!problem.empty()) fibers.clear();  // those of the last launch were left where they stood
    problem.clear();
    if (fibers.size() < count) {
        fibers = std::vector<Fiber>(count);  // contexts hold their own addresses: none may move
        for (Fiber& fiber : fibers) prepare(fiber);
    }
}

static void run_block(bool descending) {
    for (unsigned t = 0; t < threads; ++t) {
        fibers[t].thread = {t % blockDim.x, t / blockDim.x, 0};
        fibers[t].state = READY;
        fibers[t].phase = 0;
    }
    while (problem.empty()) {
        for (unsigned k = 0; k < threads; ++k) {
            current = descending ? threads - 1 - k : k;
            if (fibers[current].state == READY) {
                threadIdx = fibers[current].thread;
                swapcontext(&scheduler, &fibers[current].context);
            }
        }
        if (all_in(0, threads, DONE)) return;
        if (!release()) report("a barrier or shuffle that not all threads reach");
    }
}

template <class T>
static T shuffle_xor(unsigned mask, T value, int apart) {
    if (mask != 0xffffffffu) report("a shuffle of part of a warp");
    Fiber& mine = fibers[current];
    const unsigned me = current;
    const int phase = mine.phase;
    std::memcpy(&mine.slot[phase], &value, sizeof value);
    mine.phase ^= 1;
    wait(AT_SHUFFLE);
    T other;
    std::memcpy(&other, &fibers[me ^ apart].slot[phase], sizeof other);
    return other;
}

// -- which parameters a kernel has: a letter each, in front of it '*' for a pointer and '+' for one to const ----------

template <class T>
struct Letter;
#define LETTER(type, letter)              \
    template <>                           \
    struct Letter<type> {                 \
        static constexpr char is = letter; \
    };
LETTER(float, 'f')
LETTER(double, 'd')
LETTER(__half, 'e')
LETTER(bool, '?')
LETTER(int, 'i')
LETTER(unsigned, 'I')
LETTER(long long, 'q')
LETTER(unsigned long long, 'Q')
LETTER(unsigned char, 'B')

template <class P>
static std::string described() {
    if constexpr (std::is_pointer_v<P>) {
        typedef std::remove_pointer_t<P> Inside;
        return std::string(std::is_const_v<Inside> ? "+" : "*") + Letter<std::remove_cv_t<Inside>>::is;
    } else {
        return std::string(1, Letter<P>::is);
    }
}

template <auto kernel>
struct Instance;
template <class... P, void (*kernel)(P...)>
struct Instance<kernel> {
    template <std::size_t... I>
    static void apply(void** values, std::index_sequence<I...>) {
        kernel(*static_cast<P*>(values[I])...);
    }
    static void call(void** values) { apply(values, std::index_sequence_for<P...>()); }
    static std::string parameters() {
        std::string all;
        ((all += described<P>() + " "), ...);
        return all;
    }
};

struct Entry {
    const char* name;
    void (*call)(void**);
    std::string (*parameters)();
};

// -- what the compiler's checks find: misaligned vectors, places beyond an array, integers that overflow ---------------

struct Place {
    const char* file;
    std::uint32_t line, column;
};

static void undefined(const char* what, const void* data) {
    const Place* place = static_cast<const Place*>(data);
    report(std::string(what) + " at " + place->file + ":" + std::to_string(place->line));
    swapcontext(&fibers[current].context, &scheduler);  // for good: the next instruction might end the process
}

}  // namespace emulator

static inline void __syncthreads() { emulator::wait(emulator::AT_BARRIER); }
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int apart) {
    return emulator::shuffle_xor(mask, value, apart);
}

#define UNDEFINED(name, what, ...) \
    extern "C" void __ubsan_handle_##name(void* data, ##__VA_ARGS__) { emulator::undefined(what, data); }
UNDEFINED(type_mismatch_v1, "a misaligned or null address", void*)
UNDEFINED(out_of_bounds, "an index beyond an array", void*)
UNDEFINED(shift_out_of_bounds, "a shift too far", void*, void*)
UNDEFINED(add_overflow, "an integer overflow", void*, void*)
UNDEFINED(sub_overflow, "an integer overflow", void*, void*)
UNDEFINED(mul_overflow, "an integer overflow", void*, void*)
UNDEFINED(negate_overflow, "an integer overflow", void*)
UNDEFINED(divrem_overflow, "a division by zero", void*, void*)

// What the runner calls; ENTRIES is written behind the kernels' source.
#define EMULATED_ENTRIES(...)                                                                                     \
    static const emulator::Entry ENTRIES[] = {__VA_ARGS__};                                                       \
    extern "C" const char* parameters(int kernel) {                                                               \
        static std::string kept;                                                                                  \
        return (kept = ENTRIES[kernel].parameters()).c_str();                                                     \
    }                                                                                                             \
    extern "C" const char* run(int kernel, const unsigned* grid, const unsigned* block, void** values, int down) { \
        gridDim = {grid[0], grid[1], 1};                                                                          \
        blockDim = {block[0], block[1], 1};                                                                       \
        emulator::assemble(block[0] * block[1]);                                                                  \
        emulator::body = ENTRIES[kernel].call;                                                                    \
        emulator::arguments = values;                                                                             \
        const emulator::WatchFaults watch;                                                                        \
        const unsigned blocks = grid[0] * grid[1];                                                                \
        for (unsigned k = 0; k < blocks && emulator::problem.empty(); ++k) {                                      \
            const unsigned at = down ? blocks - 1 - k : k;                                                        \
            blockIdx = {at % grid[0], at / grid[0], 0};                                                           \
            emulator::run_block(down);                                                                            \
        }                                                                                                         \
        return emulator::problem.c_str();                                                                         \
    }
