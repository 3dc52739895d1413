// What the kernels of detect/ and nms/ hand to each other. A list of candidates is an array of these and a count, both
// on the device; kernels.py has the same record for the host.
#pragma once

struct Candidate {
    float x1, y1, x2, y2;  // pixels of the model's input
    float score;
    int label;
};

// Orders as the float does, -0 as 0, and is never 0, which stands for "no candidate". Not for NaN.
static __device__ unsigned order_key(float value) {
    const unsigned bits = __float_as_uint(value + 0.0f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
