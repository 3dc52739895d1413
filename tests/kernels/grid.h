// Runs a CUDA kernel's own source on the CPU: g++ -x c++ -include grid.h KERNEL.cu, then LAUNCHER(name) per kernel.
//
// Blocks run one after the other, the threads of a block as fibers on one thread of the CPU: each runs to its next
// barrier, then the next. Forwards and backwards in turn, two launches must give the same, or a barrier is missing.
// Shared memory is filled with rubbish before each block. A barrier that some threads of a block miss is an error.
// What this cannot show: an addition that should be atomic and is not, memory ordering, and speed.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static __attribute__((section("grid_shared")))

extern char __start_grid_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_grid_shared[] __attribute__((weak, visibility("hidden")));

struct dim3 {
    unsigned x, y, z;
};

static dim3 gridDim, blockDim, blockIdx, threadIdx;

using std::isfinite;
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }
static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
static inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
static inline int atomicAdd(int* place, int value) {  // fibers give way at barriers only
    const int before = *place;
    *place += value;
    return before;
}

namespace grid {

enum State { WAITING, ENDED };

struct Fiber {
    ucontext_t start;
    jmp_buf place;  // where it gave way: unlike swapcontext, a jump takes no call of the system
    std::vector<char> stack = std::vector<char>(64 << 10);
    bool started = false;
    State state;
};

static jmp_buf scheduler;
static std::deque<Fiber> fibers;  // they never move
static Fiber* current;
static void (*call)(void*);
static void* call_on;

static void give_way(State state) {
    current->state = state;
    if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
}

static void run_threads() {
    for (;;) {
        call(call_on);
        give_way(ENDED);
    }
}

static void resume(Fiber& fiber) {
    current = &fiber;
    if (_setjmp(scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.data();
    fiber.start.uc_stack.ss_size = fiber.stack.size();
    makecontext(&fiber.start, run_threads, 0);
    setcontext(&fiber.start);
}

static bool run_block(bool backwards) {
    if (__start_grid_shared) std::memset(__start_grid_shared, 0xa5, __stop_grid_shared - __start_grid_shared);
    const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    for (;;) {
        unsigned waiting = 0;
        for (unsigned turn = 0; turn < threads; ++turn) {
            const unsigned i = backwards ? threads - 1 - turn : turn;
            threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
            resume(fibers[i]);
            waiting += fibers[i].state == WAITING;
        }
        if (waiting == 0) return true;
        if (waiting < threads) {
            for (Fiber& fiber : fibers) fiber.started = false;
            return false;
        }
    }
}

template <class... Args, size_t... I>
static const char* launch(
    void (*kernel)(Args...), dim3 grid, dim3 block, int count, const int* sizes, void** args, int backwards,
    std::index_sequence<I...>) {
    const int expected[] = {sizeof(Args)...};
    if (count != sizeof...(Args) || std::memcmp(expected, sizes, sizeof expected) != 0) return "wrong arguments";
    auto body = [&] { kernel(*static_cast<Args*>(args[I])...); };
    call = [](void* body_) { (*static_cast<decltype(body)*>(body_))(); };
    call_on = &body;
    gridDim = grid;
    blockDim = block;
    while (fibers.size() < block.x * block.y * block.z) fibers.emplace_back();
    for (unsigned z = 0; z < grid.z; ++z) {
        for (unsigned y = 0; y < grid.y; ++y) {
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = {x, y, z};
                if (!run_block(backwards)) return "a barrier that not all threads of the block reach";
            }
        }
    }
    return nullptr;
}

template <class... Args>
static const char* launch(
    void (*kernel)(Args...), dim3 grid, dim3 block, int count, const int* sizes, void** args, int backwards) {
    return launch(kernel, grid, block, count, sizes, args, backwards, std::index_sequence_for<Args...>());
}

}  // namespace grid

static inline void __syncthreads() {
    const dim3 index = threadIdx;
    grid::give_way(grid::WAITING);
    threadIdx = index;
}

#define LAUNCHER(name)                                                                                              \
    extern "C" const char* launch_##name(                                                                           \
        const dim3* grid, const dim3* block, int count, const int* sizes, void** args, int backwards) {             \
        return grid::launch(name, *grid, *block, count, sizes, args, backwards);                                    \
    }
