#!/usr/bin/env bash
# Debian packages that tests use beside Python's: a line each, with what for. As root; a test that lacks one skips, and
# says so, thus nothing here fails.
set -u
packages=(
    gcc                           # compiles V4L2's structures, and a camera made of them,
    linux-libc-dev                # against the kernel's own header
    python3-gi                    # PyGObject: GStreamer cameras
    gir1.2-gst-plugins-base-1.0   # its description of the appsink
    gstreamer1.0-plugins-base     # appsink, videotestsrc, videoconvert
    gstreamer1.0-plugins-good     # jpegenc, and RTP for the RTSP server
    gstreamer1.0-plugins-bad      # openh264enc
    gir1.2-gst-rtsp-server-1.0    # a network camera on loopback
    stress-ng                     # load on all cores, for the deadlines to hold under
    systemd                       # systemd-analyze verifies and rates the unit
)

missing=()
for package in "${packages[@]}"; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
        missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "tests will skip what needs: ${missing[*]} (Debian's; install them as root)" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null 2>&1
for package in "${missing[@]}"; do # one by one: what one release has not must not keep the others away
    timeout 300 apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=60 "$package" >/dev/null 2>&1 ||
        echo "tests will skip what needs $package: it could not be installed" >&2
done
exit 0
