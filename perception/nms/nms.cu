// Class-aware greedy non-maximum suppression, the same boxes in the same order as nms/numpy.py, all on the device.
//
// In this order, per image: nms_keys, select_best (select.cu) for the best `limit`, nms_order, nms_overlaps, nms_keep.
// The number of candidates is read on the device, so the launches are always the same and may be captured in a graph.
// Compile without fused multiply-add: an IoU at the threshold must round as on the CPU.

#include "candidate.cuh"

typedef unsigned long long Word;

constexpr int WORD_BITS = 64;
constexpr int MOST_WORDS = 256;  // so the limit is at most 16384

// Keys that order by score; 0 for what has no finite, positive area or no finite score, and beyond the count.
//
// Per image (blockIdx.y): candidates (capacity), count (1), keys (capacity). A thread per candidate.
extern "C" __global__ void nms_keys(const Candidate* candidates, const int* count, int capacity, unsigned* keys) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= capacity) return;
    const long long place = static_cast<long long>(blockIdx.y) * capacity + i;
    keys[place] = 0;
    if (i >= count[blockIdx.y]) return;
    const Candidate candidate = candidates[place];
    const float width = candidate.x2 - candidate.x1, height = candidate.y2 - candidate.y1, area = width * height;
    const bool sound = width > 0 && height > 0 && area > 0 && isfinite(area) && isfinite(candidate.score);
    if (sound) keys[place] = order_key(candidate.score);
}

// Sort by falling score, equal ones in their order: a candidate's place is the number of better ones.
//
// Per image (blockIdx.y): selected (limit) and selected_count (1) of select_best; ordered and origins (limit), the
// latter being indices into candidates. A thread per selected.
extern "C" __global__ void nms_order(
    const Candidate* candidates, const unsigned* keys, int capacity, const int* selected, const int* selected_count,
    int limit, Candidate* ordered, int* origins) {
    __shared__ unsigned tile[1024];  // blocks are not larger
    candidates += static_cast<long long>(blockIdx.y) * capacity;
    keys += static_cast<long long>(blockIdx.y) * capacity;
    selected += static_cast<long long>(blockIdx.y) * limit;
    const int count = selected_count[blockIdx.y], threads = blockDim.x;
    const int i = blockIdx.x * threads + threadIdx.x;
    const unsigned mine = i < count ? keys[selected[i]] : 0;

    int better = 0;
    for (int start = 0; start < count; start += threads) {
        const int ahead = start + threadIdx.x;
        __syncthreads();  // before the tile is overwritten
        tile[threadIdx.x] = ahead < count ? keys[selected[ahead]] : 0;
        __syncthreads();
        for (int j = 0; j < min(threads, count - start); ++j) {
            better += tile[j] > mine || (tile[j] == mine && start + j < i);
        }
    }
    if (i < count) {
        const long long place = static_cast<long long>(blockIdx.y) * limit + better;
        ordered[place] = candidates[selected[i]];
        origins[place] = selected[i];
    }
}

static __device__ bool overlap(const Candidate& a, const Candidate& b, float iou_threshold) {
    if (a.label != b.label) return false;
    const float width = fmaxf(fminf(a.x2, b.x2) - fmaxf(a.x1, b.x1), 0);
    const float height = fmaxf(fminf(a.y2, b.y2) - fmaxf(a.y1, b.y1), 0);
    const float intersection = width * height;
    const float both = (a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1);
    return intersection / (both - intersection) > iou_threshold;
}

// Which later ones each candidate overlaps, a bit each: overlaps (limit, words) with words = ceil(limit / 64).
//
// Grid (words, words, images): blocks of 64 threads compare 64 candidates (rows, blockIdx.y) with 64 (blockIdx.x).
// Words left of the diagonal, and beyond the count, are not written.
extern "C" __global__ void nms_overlaps(
    const Candidate* ordered, const int* ordered_count, int limit, float iou_threshold, Word* overlaps) {
    __shared__ Candidate columns[WORD_BITS];
    const int count = ordered_count[blockIdx.z], words = gridDim.x;
    const int row = blockIdx.y * WORD_BITS + threadIdx.x, first = blockIdx.x * WORD_BITS;
    if (blockIdx.x < blockIdx.y || first >= count) return;
    ordered += static_cast<long long>(blockIdx.z) * limit;

    if (first + static_cast<int>(threadIdx.x) < count) columns[threadIdx.x] = ordered[first + threadIdx.x];
    __syncthreads();
    if (row >= count) return;
    const Candidate mine = ordered[row];
    Word bits = 0;
    for (int j = max(row + 1 - first, 0); j < min(WORD_BITS, count - first); ++j) {
        if (overlap(mine, columns[j], iou_threshold)) bits |= Word(1) << j;
    }
    overlaps[(static_cast<long long>(blockIdx.z) * limit + row) * words + blockIdx.x] = bits;
}

// Walk down the candidates, best first; what is kept strikes out all that it overlaps. Ends at `most` kept.
//
// Per image (blockIdx.x, one block each): kept (most), indices into candidates, and kept_count (1). Within a word all
// threads walk alike in registers; the words after it are shared out among them.
extern "C" __global__ void nms_keep(
    const int* origins, const int* ordered_count, int limit, const Word* overlaps, int most, int* kept,
    int* kept_count) {
    __shared__ Word removed[MOST_WORDS];
    const int count = ordered_count[blockIdx.x], stride = (limit + WORD_BITS - 1) / WORD_BITS;
    const int words = (count + WORD_BITS - 1) / WORD_BITS;
    origins += static_cast<long long>(blockIdx.x) * limit;
    overlaps += static_cast<long long>(blockIdx.x) * limit * stride;
    kept += static_cast<long long>(blockIdx.x) * most;

    for (int word = threadIdx.x; word < words; word += blockDim.x) removed[word] = 0;
    int found = 0;
    for (int word = 0; word < words && found < most; ++word) {
        __syncthreads();
        const int left = count - word * WORD_BITS;
        Word alive = ~removed[word];
        if (left < WORD_BITS) alive &= (Word(1) << left) - 1;
        while (alive != 0 && found < most) {
            const int bit = __ffsll(static_cast<long long>(alive)) - 1, i = word * WORD_BITS + bit;
            const Word* row = overlaps + static_cast<long long>(i) * stride;
            if (threadIdx.x == 0) kept[found] = origins[i];
            ++found;
            alive &= ~(row[word] | Word(1) << bit);
            for (int later = word + 1 + threadIdx.x; later < words; later += blockDim.x) removed[later] |= row[later];
        }
    }
    if (threadIdx.x == 0) kept_count[blockIdx.x] = found;
}
