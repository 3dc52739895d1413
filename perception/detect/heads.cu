// Output heads, as heads.py and stock.py decode them: from a detector's raw outputs, float32, to candidates.
//
// One thread per row of the output and image (blockIdx.y). A row has its place in `candidates` and in `keys`, whoever
// comes first: its key is 0 where it is no candidate, else it orders by score. select.cu makes the list of them.
// What is not finite never becomes a candidate; nor does a row whose best class is mapped to none of ours. Compile
// without fused multiply-add, so that coordinates round as on the CPU.

#include "candidate.cuh"

constexpr int NOT_MAPPED = -1;

struct Best {
    int index;
    float score;
};

// The first of the largest; or the first NaN, which then fails every threshold.
static __device__ Best best_of(const float* scores, int count, int step) {
    Best best = {0, scores[0]};
    for (int i = 1; i < count && best.score == best.score; ++i) {
        const float score = scores[static_cast<long long>(i) * step];
        if (!(score <= best.score)) best = {i, score};
    }
    return best;
}

// `rank` is what the candidates of an image are ordered by: their scores, or the logits behind them.
static __device__ void put(Candidate found, float rank, Candidate* candidate, unsigned* key) {
    const bool finite = isfinite(rank) && isfinite(found.x1) && isfinite(found.y1) && isfinite(found.x2) &&
                        isfinite(found.y2);
    if (found.label == NOT_MAPPED || !finite) return;
    found.score = fminf(found.score, 1.0f);  // quantisation puts some just over
    *candidate = found;
    *key = order_key(rank);
}

static __device__ Candidate from_centre(float x, float y, float width, float height, float score, int label) {
    const float across = width / 2, down = height / 2;
    return {x - across, y - down, x + across, y + down, score, label};
}

static __device__ int row_of_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

static __device__ long long place_of(int row, int rows) { return static_cast<long long>(blockIdx.y) * rows + row; }

// YOLOv5, v7 and YOLOX with its decoding: (rows, 5 + classes) of centre, size, objectness, class scores.
extern "C" __global__ void decode_yolov5(
    const float* output, int rows, int classes, const int* label_of, float threshold, Candidate* candidates,
    unsigned* keys) {
    const int row = row_of_thread();
    if (row >= rows) return;
    const long long place = place_of(row, rows);
    const float* values = output + place * (5 + classes);
    keys[place] = 0;
    if (!(values[4] >= threshold)) return;  // the score cannot pass it either
    const Best best = best_of(values + 5, classes, 1);
    const float score = values[4] * best.score;
    if (!(score >= threshold)) return;
    const Candidate found = from_centre(values[0], values[1], values[2], values[3], score, label_of[best.index]);
    put(found, score, candidates + place, keys + place);
}

// YOLOX as exported: as above, but centre and size relative to the grid: cells (rows, 2), strides (rows).
extern "C" __global__ void decode_yolox(
    const float* output, int rows, int classes, const float* cells, const float* strides, const int* label_of,
    float threshold, Candidate* candidates, unsigned* keys) {
    const int row = row_of_thread();
    if (row >= rows) return;
    const long long place = place_of(row, rows);
    const float* values = output + place * (5 + classes);
    keys[place] = 0;
    if (!(values[4] >= threshold)) return;
    const Best best = best_of(values + 5, classes, 1);
    const float score = values[4] * best.score;
    if (!(score >= threshold)) return;
    const float stride = strides[row];
    const float x = (values[0] + cells[2 * row]) * stride, y = (values[1] + cells[2 * row + 1]) * stride;
    const float width = expf(values[2]) * stride, height = expf(values[3]) * stride;
    put(from_centre(x, y, width, height, score, label_of[best.index]), score, candidates + place, keys + place);
}

// YOLOv8, v9 and v11: (4 + classes, rows) of centre, size, class scores.
extern "C" __global__ void decode_yolov8(
    const float* output, int rows, int classes, const int* label_of, float threshold, Candidate* candidates,
    unsigned* keys) {
    const int row = row_of_thread();
    if (row >= rows) return;
    const long long place = place_of(row, rows);
    const float* values = output + static_cast<long long>(blockIdx.y) * rows * (4 + classes) + row;
    keys[place] = 0;
    const Best best = best_of(values + 4 * rows, classes, rows);
    if (!(best.score >= threshold)) return;
    const Candidate found = from_centre(
        values[0], values[rows], values[2 * rows], values[3 * rows], best.score, label_of[best.index]);
    put(found, best.score, candidates + place, keys + place);
}

// Boxes, scores and classes ready made: in one output of six columns, or in three. The steps are from row to row.
template <class Class>
static __device__ void decode_end_to_end(
    const float* boxes, int box_step, const float* scores, int score_step, const Class* classes, int class_step,
    int rows, int class_count, const int* label_of, float threshold, Candidate* candidates, unsigned* keys) {
    const int row = row_of_thread();
    if (row >= rows) return;
    const long long place = place_of(row, rows);
    keys[place] = 0;
    const float score = scores[place * score_step];
    const Class index = classes[place * class_step];
    // -1 and classes past the end are how some exports fill up unused rows.
    if (!(score >= threshold) || !(index >= 0) || !(index < class_count)) return;
    const float* box = boxes + place * box_step;
    const Candidate found = {box[0], box[1], box[2], box[3], score, label_of[static_cast<int>(index)]};
    put(found, score, candidates + place, keys + place);
}

extern "C" __global__ void decode_end_to_end_f32(
    const float* boxes, int box_step, const float* scores, int score_step, const float* classes, int class_step,
    int rows, int class_count, const int* label_of, float threshold, Candidate* candidates, unsigned* keys) {
    decode_end_to_end(boxes, box_step, scores, score_step, classes, class_step, rows, class_count, label_of, threshold,
                      candidates, keys);
}

extern "C" __global__ void decode_end_to_end_i32(
    const float* boxes, int box_step, const float* scores, int score_step, const int* classes, int class_step,
    int rows, int class_count, const int* label_of, float threshold, Candidate* candidates, unsigned* keys) {
    decode_end_to_end(boxes, box_step, scores, score_step, classes, class_step, rows, class_count, label_of, threshold,
                      candidates, keys);
}

extern "C" __global__ void decode_end_to_end_i64(
    const float* boxes, int box_step, const float* scores, int score_step, const long long* classes, int class_step,
    int rows, int class_count, const int* label_of, float threshold, Candidate* candidates, unsigned* keys) {
    decode_end_to_end(boxes, box_step, scores, score_step, classes, class_step, rows, class_count, label_of, threshold,
                      candidates, keys);
}

// What the stock detector says of a candidate in 3-D: the arrays of messages.Attributes, side by side.
struct Attributes {
    float centre_x, centre_y;
    float depth_over_focal, depth_std;
    float length, width, height;
    float alpha;
};

constexpr int STOCK_CLASSES = 6, STOCK_REGRESSION = 13;
constexpr float LARGEST_LOG = 6.0f, EDGE_UNIT_PX = 8.0f, DEPTH_FOCAL = 10.0f, CELL_PX = 4.0f;
constexpr float STD_OF_LAPLACE = 1.41421356237f;
constexpr float LARGEST_FLOAT = 3.402823466e38f;

static __device__ float finite_of(float value) {
    return value != value ? 0.0f : fminf(fmaxf(value, -LARGEST_FLOAT), LARGEST_FLOAT);
}

static __device__ float edge_px(float raw) { return expf(fminf(finite_of(raw), LARGEST_LOG)) * EDGE_UNIT_PX; }

static __device__ float exp_of_log(float raw) {
    return expf(fminf(fmaxf(finite_of(raw), -LARGEST_LOG), LARGEST_LOG));
}

// perception-stock-v1 (stock.py): scores (rows, 6), regression (rows, 13), `locations` of them in a row of the grid.
// `least_logit` is the logit of the score threshold, `size_means` (6, 3) are those of the head. The key is the logit's.
extern "C" __global__ void decode_stock(
    const float* scores, const float* regression, int rows, int locations, const int* label_of, float least_logit,
    const float* size_means, Candidate* candidates, Attributes* attributes, unsigned* keys) {
    const int row = row_of_thread();
    if (row >= rows) return;
    const long long place = place_of(row, rows);
    keys[place] = 0;
    const Best best = best_of(scores + place * STOCK_CLASSES, STOCK_CLASSES, 1);
    if (!(best.score >= least_logit)) return;

    const float* raw = regression + place * STOCK_REGRESSION;
    const int location = row / 4, inner_row = row / 2 % 2, inner_column = row % 2;
    const float x = (2 * (location % locations) + inner_column + 0.5f) * CELL_PX;
    const float y = (2 * (location / locations) + inner_row + 0.5f) * CELL_PX;
    const Candidate found = {
        x - edge_px(raw[0]),
        y - edge_px(raw[1]),
        x + edge_px(raw[2]),
        y + edge_px(raw[3]),
        1 / (1 + expf(-best.score)),
        label_of[best.index],
    };
    put(found, best.score, candidates + place, keys + place);

    const float* means = size_means + 3 * best.index;
    attributes[place] = {
        (found.x1 + found.x2) / 2 + finite_of(raw[4]) * (found.x2 - found.x1),
        (found.y1 + found.y2) / 2 + finite_of(raw[5]) * (found.y2 - found.y1),
        exp_of_log(raw[6]) / DEPTH_FOCAL,
        STD_OF_LAPLACE * exp_of_log(raw[7]),
        exp_of_log(raw[8]) * means[0],
        exp_of_log(raw[9]) * means[1],
        exp_of_log(raw[10]) * means[2],
        atan2f(finite_of(raw[11]), finite_of(raw[12])),
    };
}
