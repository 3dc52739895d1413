/* A V4L2 camera made of a timer: preloaded before libc, it answers the calls of whoever opens /dev/video-double.
 *
 * It is compiled against the kernel's own header, so a structure that is laid out otherwise does not get through. What
 * each frame is comes from DOUBLE_FRAMES, a letter each, again and again: f a frame, e one that the driver marks as
 * damaged, s one whose stamp is not of the monotonic clock, . none, u the cable is pulled. It can be opened again.
 * DOUBLE_CAPS are its capabilities. It knows 64x48 in YUYV only, in rows of 160 bytes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { WIDTH = 64, HEIGHT = 48, STRIDE = 160, LENGTH = 65536, BUFFERS = 3 };

static int camera = -1, memory = -1, streaming, frame;
static int queued[BUFFERS], queue_length;

static int open_camera(void) {
    struct itimerspec period = {{0, 5000000}, {0, 5000000}};
    camera = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    timerfd_settime(camera, 0, &period, NULL);
    if (memory < 0) {
        memory = memfd_create("double", 0);
        if (ftruncate(memory, BUFFERS * LENGTH)) return -1;
    }
    queue_length = streaming = 0;
    return camera;
}

static int fail(int number) {
    errno = number;
    return -1;
}

static int dequeue(struct v4l2_buffer *buffer) {
    const char *script = getenv("DOUBLE_FRAMES");
    unsigned long long ticks;
    if (!streaming) return fail(EINVAL);
    if (read(camera, &ticks, sizeof ticks) < 0 || !queue_length) return fail(EAGAIN);
    char kind = script[frame++ % strlen(script)];
    if (kind == '.') return fail(EAGAIN);
    if (kind == 'u') return fail(ENODEV);

    struct timespec now;
    clock_gettime(kind == 's' ? CLOCK_REALTIME : CLOCK_MONOTONIC, &now);
    memset(buffer, 0, sizeof *buffer);
    buffer->index = queued[0];
    memmove(queued, queued + 1, --queue_length * sizeof *queued);
    buffer->type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    buffer->memory = V4L2_MEMORY_MMAP;
    buffer->bytesused = STRIDE * HEIGHT;
    buffer->flags = kind == 's' ? V4L2_BUF_FLAG_TIMESTAMP_COPY : V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    if (kind == 'e') buffer->flags |= V4L2_BUF_FLAG_ERROR;
    buffer->timestamp.tv_sec = now.tv_sec;
    buffer->timestamp.tv_usec = now.tv_nsec / 1000;
    buffer->sequence = frame;
    buffer->length = LENGTH;
    unsigned char picture[STRIDE * HEIGHT];
    memset(picture, frame, sizeof picture);
    return pwrite(memory, picture, sizeof picture, buffer->index * LENGTH) < 0 ? -1 : 0;
}

static int answer(unsigned long request, void *argument) {
    struct v4l2_capability *capability = argument;
    struct v4l2_pix_format *pix = &((struct v4l2_format *)argument)->fmt.pix;
    struct v4l2_requestbuffers *buffers = argument;
    struct v4l2_buffer *buffer = argument;
    switch (request) {
    case VIDIOC_QUERYCAP:
        memset(capability, 0, sizeof *capability);
        strcpy((char *)capability->card, "Double");
        capability->device_caps = strtoul(getenv("DOUBLE_CAPS"), NULL, 0);
        capability->capabilities = capability->device_caps | V4L2_CAP_DEVICE_CAPS;
        return 0;
    case VIDIOC_S_FMT:
        if (pix->field != V4L2_FIELD_NONE) return fail(EINVAL);
        pix->width = WIDTH;
        pix->height = HEIGHT;
        pix->pixelformat = V4L2_PIX_FMT_YUYV;
        pix->bytesperline = STRIDE;
        pix->sizeimage = STRIDE * HEIGHT;
        return 0;
    case VIDIOC_S_PARM: {
        struct v4l2_fract *rate = &((struct v4l2_streamparm *)argument)->parm.capture.timeperframe;
        return rate->denominator == 30 * rate->numerator ? 0 : fail(EINVAL);
    }
    case VIDIOC_REQBUFS:
        if (buffers->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || buffers->memory != V4L2_MEMORY_MMAP) return fail(EINVAL);
        buffers->count = BUFFERS;
        return 0;
    case VIDIOC_QUERYBUF:
        if (buffer->index >= BUFFERS) return fail(EINVAL);
        buffer->length = LENGTH;
        buffer->m.offset = buffer->index * LENGTH;
        return 0;
    case VIDIOC_QBUF:
        if (buffer->index >= BUFFERS || queue_length == BUFFERS) return fail(EINVAL);
        queued[queue_length++] = buffer->index;
        return 0;
    case VIDIOC_DQBUF:
        return dequeue(buffer);
    case VIDIOC_STREAMON:
        if (*(int *)argument != V4L2_BUF_TYPE_VIDEO_CAPTURE) return fail(EINVAL);
        streaming = 1;
        return 0;
    case VIDIOC_STREAMOFF:
        streaming = 0;
        return 0;
    }
    return fail(ENOTTY);
}

int open64(const char *path, int flags, ...) {
    if (strcmp(path, "/dev/video-double") == 0) return open_camera();
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64"))(path, flags, mode);
}

int ioctl(int file, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (file == camera && camera >= 0) return answer(request, argument);
    return ((int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl"))(file, request, argument);
}

void *mmap64(void *address, size_t length, int protection, int flags, int file, off64_t offset) {
    if (file == camera && camera >= 0) file = memory;
    return ((void *(*)(void *, size_t, int, int, int, off64_t))dlsym(RTLD_NEXT, "mmap64"))(
        address, length, protection, flags, file, offset);
}
