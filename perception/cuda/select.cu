// Stream compaction into a bounded list with its count on the device: detect and nms both choose with it.
//
// Which rows are taken, and their order, follow from the keys alone, never from which thread came first.

constexpr int MOST_THREADS = 1024;

// The key of the limit-th best, and how many of those that have this very key are taken; all threads get the same.
struct Least {
    unsigned key;
    int ties;
};

// Radix selection from the top byte down: a histogram finds the byte of the limit-th best, the next looks further
// only at keys that begin like it. There must be at least `limit` keys.
static __device__ Least least_of_best(const unsigned* keys, int rows, int limit) {
    __shared__ int bins[256];
    unsigned prefix = 0, mask = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int bin = threadIdx.x; bin < 256; bin += blockDim.x) bins[bin] = 0;
        __syncthreads();
        for (int row = threadIdx.x; row < rows; row += blockDim.x) {
            const unsigned key = keys[row];
            if (key != 0 && (key & mask) == prefix) atomicAdd(&bins[key >> shift & 255], 1);
        }
        __syncthreads();
        unsigned bin = 255;
        for (; bin > 0 && bins[bin] < limit; --bin) limit -= bins[bin];
        prefix |= bin << shift;
        mask |= 255u << shift;
        __syncthreads();  // before the bins are cleared for the next byte
    }
    return {prefix, limit};
}

// Inclusive prefix sum over the block (Hillis and Steele 1986).
static __device__ unsigned long long prefix_sum(unsigned long long mine) {
    __shared__ unsigned long long sums[MOST_THREADS];
    sums[threadIdx.x] = mine;
    __syncthreads();
    for (unsigned offset = 1; offset < blockDim.x; offset *= 2) {
        const unsigned long long before = threadIdx.x >= offset ? sums[threadIdx.x - offset] : 0;
        __syncthreads();
        sums[threadIdx.x] += before;
        __syncthreads();
    }
    return sums[threadIdx.x];
}

// How many of `rows` keys are not 0; all threads get the same.
static __device__ int count_keys(const unsigned* keys, int rows) {
    __shared__ int total;
    if (threadIdx.x == 0) total = 0;
    __syncthreads();
    int mine = 0;
    for (int row = threadIdx.x; row < rows; row += blockDim.x) mine += keys[row] != 0;
    atomicAdd(&total, mine);
    __syncthreads();
    return total;
}

// The rows with the `limit` largest keys, in the order of the rows; of equal keys the first. A key of 0 is none.
//
// Per image (blockIdx.x): keys (rows), selected (limit), count (1). One block of at most 1024 threads each.
extern "C" __global__ void select_best(const unsigned* keys, int rows, int limit, int* selected, int* count) {
    keys += static_cast<long long>(blockIdx.x) * rows;
    selected += static_cast<long long>(blockIdx.x) * limit;

    const int total = count_keys(keys, rows);
    const Least least = total > limit ? least_of_best(keys, rows, limit) : Least{0, 0};

    // Each thread counts, and later writes, a run of rows of its own. Rows over the least in the upper half of the
    // sum, rows equal to it in the lower.
    const int run = (rows + static_cast<int>(blockDim.x) - 1) / static_cast<int>(blockDim.x);
    const int first = min(static_cast<int>(threadIdx.x) * run, rows), last = min(first + run, rows);
    unsigned long long mine = 0;
    for (int row = first; row < last; ++row) {
        mine += static_cast<unsigned long long>(keys[row] > least.key) << 32 | (keys[row] == least.key);
    }
    const unsigned long long before = prefix_sum(mine) - mine;
    int over = static_cast<int>(before >> 32), equal = static_cast<int>(before & 0xffffffffu);
    for (int row = first; row < last; ++row) {
        if (keys[row] > least.key) {
            selected[over++ + min(equal, least.ties)] = row;
        } else if (keys[row] == least.key) {
            if (equal < least.ties) selected[over + equal] = row;
            ++equal;
        }
    }
    if (threadIdx.x == 0) count[blockIdx.x] = min(total, limit);
}

// Copy the chosen rows of a table of 4-byte words: to[i] = from[ids[i]] for i under the count.
//
// Per image (blockIdx.y): from (rows, words), ids (limit), count (1), to (limit, words). A thread per word of `to`.
extern "C" __global__ void take(
    const unsigned* from, int rows, int words, const int* ids, const int* count, int limit, unsigned* to) {
    const int place = blockIdx.x * blockDim.x + threadIdx.x;
    const int i = place / words, word = place % words;
    if (i >= count[blockIdx.y]) return;
    const long long image = blockIdx.y;
    const int row = ids[image * limit + i];
    to[(image * limit + i) * words + word] = from[(image * rows + row) * words + word];
}
