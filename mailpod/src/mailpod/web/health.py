"""What the pod says about itself: whether it is alive, whether it is ready and if not why, and what is worth knowing beside."""

from __future__ import annotations

from mailpod.limits import web as limits
from mailpod.ports import Clock
from mailpod.telemetry import LOOP_LAG, READY


class Health:
    """Collects reasons; the pod is ready when nobody has one against it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._obstacles: dict[str, str] = {"start": "the pod is starting"}
        self.notes: dict[str, str] = {}  # worth an administrator's look; the pod serves all the same
        self._beat_at = clock.monotonic()
        READY.set(0)

    @property
    def obstacles(self) -> dict[str, str]:
        """Why the pod is not ready: part of the pod to sentence."""
        return dict(self._obstacles)

    @property
    def ready(self) -> bool:
        """Whether the pod should be sent clients."""
        return not self._obstacles

    def block(self, part: str, sentence: str) -> None:
        """`part` has a reason why the pod is not ready."""
        self._obstacles[part] = sentence
        READY.set(0)

    def clear(self, part: str) -> None:
        """`part` has no reason any more."""
        self._obstacles.pop(part, None)
        READY.set(1 if self.ready else 0)

    def note(self, part: str, sentence: str | None) -> None:
        """Something that readiness does not depend on, such as a refused configuration; None takes it back."""
        if sentence is None:
            self.notes.pop(part, None)
        else:
            self.notes[part] = sentence

    @property
    def alive(self) -> bool:
        """Whether the event loop turns."""
        return self._clock.monotonic() - self._beat_at < limits.LOOP_LAG_S_MAX

    async def heartbeat(self) -> None:
        """Measures how late the loop is, for ever."""
        while True:
            started = self._clock.monotonic()
            await self._clock.sleep(limits.HEARTBEAT_S)
            self._beat_at = self._clock.monotonic()
            LOOP_LAG.set(max(0.0, self._beat_at - started - limits.HEARTBEAT_S))
