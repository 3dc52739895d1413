// Colour conversion, letterbox and normalisation in one pass, from a camera's bytes to the detector's planar input.
//
// Geometry as in letterbox.py: half-pixel centres, bilinear, no antialiasing. Sampled grey levels are whole numbers,
// found by the fixed-point arithmetic of cv2.resize with INTER_LINEAR (weights in 2048ths), and positions are exact
// ratios of integers, so a GPU and a CPU agree to the bit and OpenCV, whose positions are floats, to one grey level.
// YUV is ITU-R BT.601 in limited range, chroma replicated, in the fixed-point arithmetic of cv2.cvtColor for NV12 and
// YUY2 (20 bits), to the bit.
//
// One thread per pixel of the input, blocks and grid in two dimensions; threads beyond the input do nothing.
// Compile without fused multiply-add, so that normalising rounds as on the CPU.

struct Letterbox {
    int width, height, pitch;  // of the image; the pitch, in bytes, also of NV12's chroma
    int input_width, input_height;
    int resized_width, resized_height, left, top;
    int rgb;  // order of the planes: 1 for red, green, blue, 0 for blue, green, red
    int pad_value;
    float gain[3], bias[3];  // of the planes, in their order: grey level * gain + bias
};

struct Colour {
    int blue, green, red;
};

static __device__ int clamp_to_byte(int value) { return min(max(value, 0), 255); }

static __device__ Colour from_yuv(int y, int u, int v) {
    const int half = 1 << 19;
    const int grey = max(y - 16, 0) * 1220542 + half;
    u -= 128;
    v -= 128;
    return {
        clamp_to_byte((grey + 2116026 * u) >> 20),
        clamp_to_byte((grey - 409993 * u - 852492 * v) >> 20),
        clamp_to_byte((grey + 1673527 * v) >> 20),
    };
}

struct Bgr {
    const unsigned char* pixels;

    __device__ Colour at(int x, int y, int pitch) const {
        const unsigned char* pixel = pixels + y * pitch + 3 * x;
        return {pixel[0], pixel[1], pixel[2]};
    }
};

struct Nv12 {
    const unsigned char* luma;
    const unsigned char* chroma;

    __device__ Colour at(int x, int y, int pitch) const {
        const unsigned char* uv = chroma + (y >> 1) * pitch + (x & ~1);
        return from_yuv(luma[y * pitch + x], uv[0], uv[1]);
    }
};

struct Yuyv {
    const unsigned char* pixels;

    __device__ Colour at(int x, int y, int pitch) const {
        const unsigned char* pair = pixels + y * pitch + 4 * (x >> 1);
        return from_yuv(pair[2 * (x & 1)], pair[1], pair[3]);
    }
};

// Two neighbouring rows or columns, and the weight of the second in 2048ths.
struct Taps {
    int first, second, weight;
};

// Position (index + 1/2) * from / to - 1/2 as a ratio over 2 * to; beyond the border the border goes on.
static __device__ Taps taps(int index, int from, int to) {
    const int numerator = (2 * index + 1) * from - to;
    if (numerator <= 0) return {0, 0, 0};
    const int first = numerator / (2 * to);
    if (first >= from - 1) return {from - 1, from - 1, 0};
    const int rest = numerator - first * 2 * to;
    return {first, first + 1, (4096 * rest + 2 * to) / (4 * to)};
}

static __device__ int blend(int a, int b, int c, int d, int across, int down) {
    const int upper = a * (2048 - across) + b * across;
    const int lower = c * (2048 - across) + d * across;
    return (((2048 - down) * (upper >> 4) >> 16) + (down * (lower >> 4) >> 16) + 2) >> 2;
}

template <class Source>
static __device__ Colour sample(const Source& source, const Letterbox& plan, int x, int y) {
    const Taps across = taps(x, plan.width, plan.resized_width);
    const Taps down = taps(y, plan.height, plan.resized_height);
    const Colour a = source.at(across.first, down.first, plan.pitch);
    const Colour b = source.at(across.second, down.first, plan.pitch);
    const Colour c = source.at(across.first, down.second, plan.pitch);
    const Colour d = source.at(across.second, down.second, plan.pitch);
    return {
        blend(a.blue, b.blue, c.blue, d.blue, across.weight, down.weight),
        blend(a.green, b.green, c.green, d.green, across.weight, down.weight),
        blend(a.red, b.red, c.red, d.red, across.weight, down.weight),
    };
}

// The bits of a float as IEEE half precision, to nearest even. By hand, because cuda_fp16.h is not where NVRTC is.
static __device__ unsigned short half_bits(float value) {
    unsigned bits = __float_as_uint(value);
    const unsigned sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits >= 0x47800000u) return sign | (bits > 0x7f800000u ? 0x7e00u : 0x7c00u);  // NaN, or over the largest
    if (bits < 0x38800000u) {  // subnormal as half: next to 0.5f, a float has the very spacing of these
        return sign | (__float_as_uint(__uint_as_float(bits) + 0.5f) - 0x3f000000u);
    }
    bits += 0xc8000fffu + (bits >> 13 & 1u);  // exponent bias 127 to 15, and half a unit to round by
    return sign | bits >> 13;
}

static __device__ void store(float value, float* place) { *place = value; }
static __device__ void store(float value, unsigned short* place) { *place = half_bits(value); }

template <class Source, class Out>
static __device__ void letterbox(const Source& source, const Letterbox& plan, Out* out) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = blockIdx.y * blockDim.y + threadIdx.y;
    if (column >= plan.input_width || row >= plan.input_height) return;

    const int x = column - plan.left, y = row - plan.top;
    const bool covered = x >= 0 && x < plan.resized_width && y >= 0 && y < plan.resized_height;
    const Colour colour =
        covered ? sample(source, plan, x, y) : Colour{plan.pad_value, plan.pad_value, plan.pad_value};

    const int plane = plan.input_width * plan.input_height;
    Out* place = out + row * plan.input_width + column;
    const int first = plan.rgb ? colour.red : colour.blue, last = plan.rgb ? colour.blue : colour.red;
    store(first * plan.gain[0] + plan.bias[0], place);
    store(colour.green * plan.gain[1] + plan.bias[1], place + plane);
    store(last * plan.gain[2] + plan.bias[2], place + 2 * plane);
}

extern "C" __global__ void letterbox_bgr_f32(const unsigned char* pixels, Letterbox plan, float* out) {
    letterbox(Bgr{pixels}, plan, out);
}

extern "C" __global__ void letterbox_bgr_f16(const unsigned char* pixels, Letterbox plan, unsigned short* out) {
    letterbox(Bgr{pixels}, plan, out);
}

extern "C" __global__ void letterbox_nv12_f32(
    const unsigned char* luma, const unsigned char* chroma, Letterbox plan, float* out) {
    letterbox(Nv12{luma, chroma}, plan, out);
}

extern "C" __global__ void letterbox_nv12_f16(
    const unsigned char* luma, const unsigned char* chroma, Letterbox plan, unsigned short* out) {
    letterbox(Nv12{luma, chroma}, plan, out);
}

extern "C" __global__ void letterbox_yuyv_f32(const unsigned char* pixels, Letterbox plan, float* out) {
    letterbox(Yuyv{pixels}, plan, out);
}

extern "C" __global__ void letterbox_yuyv_f16(const unsigned char* pixels, Letterbox plan, unsigned short* out) {
    letterbox(Yuyv{pixels}, plan, out);
}
