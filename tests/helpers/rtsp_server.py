"""A camera with an RTSP server inside, in sixty lines: H.264 over RTP, interleaved in one TCP line.

Enough of RFC 2326 and RFC 6184 for a real client to connect, play, and lose the connection.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import av
import numpy as np

HEIGHT, WIDTH, HZ = 32, 48, 10
_CLOCK_HZ = 90_000  # of RTP time stamps of video
_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track\r\n"
    f"a=framerate:{HZ}\r\na=fmtp:96 packetization-mode=1\r\n"
)


def _units(count: int) -> Iterator[list[bytes]]:
    """NAL units of `count` key frames; frame i has brightness 20 + 4 * (i % 40)."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.framerate, encoder.gop_size = HZ, 1
    encoder.options = {"tune": "zerolatency", "x264-params": "sliced-threads=0:repeat-headers=1"}
    for i in range(count):
        image = np.full((HEIGHT, WIDTH, 3), 20 + 4 * (i % 40), np.uint8)
        for packet in encoder.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
            parts = bytes(packet).replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
            yield [part for part in parts if part]


class RtspServer:
    """Serves one client at a time; `frames` of film per connection, then it hangs up.

    Args:
        frames: how many to send before closing the line; None for no end.
        interval_s: between two frames as they are sent; their time stamps say 1 / HZ.
    """

    def __init__(self, frames: int | None = None, interval_s: float = 0.01) -> None:
        self._frames, self._interval_s = frames or 10_000, interval_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._sequence = 0
        self.connections = 0
        self.url = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/camera"

    def __enter__(self) -> RtspServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with line, contextlib.suppress(OSError):
                self._talk(line)

    def _talk(self, line: socket.socket) -> None:
        with line.makefile("rb") as requests:
            while self._answer(line, requests) != "PLAY":
                pass
        for i, units in enumerate(_units(self._frames)):
            if self._stop.is_set():
                return
            self._send(line, i, units)
            time.sleep(self._interval_s)

    def _answer(self, line: socket.socket, requests: Iterator[bytes]) -> str:
        head = next(requests).decode()
        fields = {}
        while (field := next(requests).decode().strip()) != "":
            name, _, value = field.partition(": ")
            fields[name] = value
        verb, extra, body = head.split()[0], "", ""
        if verb == "DESCRIBE":
            body = _SDP
            extra = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        elif verb == "SETUP":
            extra = "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        elif verb == "OPTIONS":
            extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        line.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {fields['CSeq']}\r\n{extra}\r\n{body}".encode())
        return verb

    def _send(self, line: socket.socket, index: int, units: list[bytes]) -> None:
        stamp = (index * _CLOCK_HZ // HZ) & 0xFFFFFFFF
        for n, unit in enumerate(units):
            last = 0x80 if n == len(units) - 1 else 0
            header = struct.pack("!BBHII", 0x80, last | 96, self._sequence, stamp, 7)
            self._sequence = (self._sequence + 1) & 0xFFFF
            packet = header + unit
            line.sendall(struct.pack("!cBH", b"$", 0, len(packet)) + packet)
