"""A proxy that makes a real S3 server look as careless as some are: a conditional write that was refused is answered as if it were done."""

from __future__ import annotations

from tests.support.faulty_s3 import FaultyS3


class CarelessS3(FaultyS3):
    """Says 200 where the server said 412."""

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        answer = await super()._forward(head, body)
        if answer.startswith(b"HTTP/1.1 412 "):
            return b'HTTP/1.1 200 OK\r\nETag: "0"\r\nContent-Length: 0\r\n\r\n'
        return answer
