"""A step that a GPU can repeat by itself: recorded once as a CUDA graph, then replayed by one call."""

from collections.abc import Callable, Sequence

import torch

__all__ = ["Replayed"]

WARM_UP = 3  # calls before recording: libraries choose their algorithms and allocate what they keep


class Replayed:
    """`work`, called as it is on a CPU; on a GPU recorded at the first call and replayed ever after.

    A replay launches hundreds of kernels by one call, so the GPU no longer waits for Python. What the work reads and
    writes must stay where it is in memory; it must not ask the device for a value. Source: NVIDIA, "CUDA Graphs", in
    the CUDA C++ Programming Guide.

    Args:
        work: takes and returns nothing; changes tensors in place.
        state: every tensor that it changes: put back after the warm-up, which must not count as a step.
        inputs: the tensors that it reads, to be filled before each call.
        generators: random streams of its own that it draws from, beside the device's.

    Attributes:
        reason: why the work is not replayed although it runs on a GPU; None otherwise. It then runs as it is.
    """

    def __init__(
        self,
        work: Callable[[], None],
        state: Sequence[torch.Tensor],
        device: torch.device,
        inputs: Sequence[torch.Tensor] = (),
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self.work, self.state, self.device, self.inputs, self.generators = work, state, device, inputs, generators
        self.reason: str | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self.device.type != "cuda" or self.reason is not None:
            self.work()
            return
        if self._graph is None:
            self._record()
        if self._graph is not None:
            self._graph.replay()
        else:
            self.work()

    def _record(self) -> None:
        before = [values.clone() for values in self.state]
        random = torch.cuda.get_rng_state(self.device)
        streams = [generator.get_state() for generator in self.generators]
        graph = torch.cuda.CUDAGraph()
        try:
            for generator in self.generators:
                graph.register_generator_state(generator)
            side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self.work()
            torch.cuda.current_stream(self.device).wait_stream(side)
            with torch.cuda.graph(graph):
                self.work()
            self._graph = graph
        except RuntimeError as error:  # an operation that cannot be recorded
            torch.cuda.synchronize(self.device)
            self.reason = str(error).splitlines()[0]
        for values, kept in zip(self.state, before, strict=True):
            values.copy_(kept)
        torch.cuda.set_rng_state(random, self.device)
        for generator, stream in zip(self.generators, streams, strict=True):
            generator.set_state(stream)
