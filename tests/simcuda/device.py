"""Tensors that say that they are on a CUDA device, and whose numbers are a CPU tensor's.

`install` patches torch in this process. From then on every operation passes through `compute`,
which first refuses what CUDA refuses and counts what waits, and then computes on the CPU.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from simcuda.waits import WAITS

CPU = torch.device("cpu")


class Simulated(Tensor):
    """A tensor of a CUDA device; `numbers` are its numbers."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, index: int) -> Simulated:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=torch.device("cuda", index),
        )
        made.numbers = inner
        WAITS.devices.add(index)
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return compute(function, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Simulated({self.numbers!r}, device='{self.device}')"

    def tolist(self) -> Any:
        WAITS.waited("tolist")
        return self.numbers.tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")

    def new_tensor(self, data: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **kwargs})

    def quantile(self, q: Any, *args: Any, **kwargs: Any) -> Tensor:
        """On the way torch changes the shape of a tensor, which these cannot."""
        return Simulated(self.numbers.quantile(on_cpu(q, {}), *args, **kwargs), self.device.index)

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        made: Tensor = Simulated(self.numbers.detach().clone(), self.device.index)
        made.requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made, self.requires_grad)
        memo[id(self)] = made
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        WAITS.waited("save")
        return loaded, (self.numbers.detach(), self.device.index)


def loaded(inner: Tensor, index: int) -> Tensor:
    """What a file has of a tensor that was saved on a device."""
    return Simulated(inner, index)


class Everywhere(TorchDispatchMode):
    """Sees the operations that no simulated tensor takes part in, too: some make one."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if Simulated not in types and (device is None or torch.device(device).type == "cpu"):
            return function(*args, **kwargs)
        return compute(function, args, kwargs)


COPIES = {"_to_copy", "copy_", "_foreach_copy_"}
"""Operations between devices."""

VALUES = {"_local_scalar_dense", "equal"}
"""Operations whose result is a number for the host."""

SIZES = {
    "nonzero",
    "masked_select",
    "unique",
    "_unique",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "unique_dim_consecutive",
    "repeat_interleave",
    "bincount",
    "histc",
    "multinomial",
}
"""Operations whose result has a size that only the device knows, or that look at the numbers."""

CHECKED = {"_linalg_check_errors", "linalg_eig", "linalg_lstsq"}
"""Operations that ask the device whether a decomposition went well."""

INDEXED = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}

BESIDE = {"fill_", "masked_fill", "masked_fill_", "index_put", "index_put_", "_index_put_impl_"}
"""Operations that take a number of the CPU beside tensors of a device, as elementwise ones do."""


def compute(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What the operation returns on the devices that its tensors are on."""
    name = function._schema.name.partition("::")[2]
    given = list(tree_iter((args, dict(kwargs))))
    tensors = [each for each in given if isinstance(each, Tensor)]
    here = [each for each in tensors if isinstance(each, Simulated)]
    if name == "_to_copy":
        return copied(function, args, kwargs)
    if name == "copy_":
        return overwritten(function, *args, **kwargs)
    if name == "record_stream":  # there is one stream, in which all is done in order
        return None
    wanted = next((each for each in given if isinstance(each, torch.device)), None)
    if wanted is not None:
        index = None if wanted.type != "cuda" else position(wanted)
    else:
        index = here[0].device.index if here else None
    refuse_mixtures(function, name, args, tensors, here)
    generators = [each for each in given if isinstance(each, torch.Generator)]
    for each in generators:
        if (None if each.device.type == "cpu" else position(each.device)) != index:
            raise WAITS.fault(f"{function}: a generator of {each.device} for {device_name(index)}")
    if here:
        count(name, args, kwargs)

    inner = {id(each.numbers): each for each in here}
    call = stand_in(function, name)
    with drawn_from(index, generators, function) as replaced:
        result = call(*on_cpu(args, replaced), **on_cpu(dict(kwargs), replaced))
    if name in VALUES or index is None:
        return result

    def returned(tensor: Tensor) -> Tensor:
        if id(tensor) not in inner:
            return Simulated(tensor, index)
        if tensor.shape != inner[id(tensor)].shape:
            raise NotImplementedError(f"simcuda: {function} gives a tensor another shape")
        return inner[id(tensor)]

    return tree_map_only(Tensor, returned, result)


def position(device: torch.device) -> int:
    """Its number; that of the current device if it says `cuda` alone."""
    return torch.cuda.current_device() if device.index is None else device.index


def device_name(index: int | None) -> str:
    return "cpu" if index is None else f"cuda:{index}"


def on_cpu(tree: Any, generators: Mapping[int, torch.Generator]) -> Any:
    """The arguments of an operation as the CPU takes them."""
    tree = tree_map_only(Simulated, lambda tensor: tensor.numbers, tree)
    tree = tree_map_only(
        torch.device, lambda device: CPU if device.type == "cuda" else device, tree
    )
    return tree_map_only(
        torch.Generator, lambda generator: generators.get(id(generator), generator), tree
    )


def refuse_mixtures(
    function: Any,
    name: str,
    args: Sequence[Any],
    tensors: Sequence[Tensor],
    here: Sequence[Simulated],
) -> None:
    """DeviceFault where tensors of two devices meet that may not."""
    if not here or name in COPIES:
        return
    found = {tensor.device for tensor in here}
    if len(found) > 1:
        raise WAITS.fault(f"{function}: tensors on {' and '.join(sorted(map(str, found)))}")
    strangers = [tensor for tensor in tensors if not isinstance(tensor, Simulated)]
    if name in INDEXED and isinstance(args[0], Simulated):
        # Indices may be on the CPU, and are copied; a value may be there if it is one number.
        for each in tree_iter(args[1]):
            if isinstance(each, Tensor) and not isinstance(each, Simulated):
                WAITS.waited("index on the cpu")
        values = [each for each in args[2:] if isinstance(each, Tensor)]
        strangers = [each for each in values if not isinstance(each, Simulated)]
    changed = function._schema.is_mutable and isinstance(args[0], Tensor)
    numbers = torch.Tag.pointwise in function.tags or name in BESIDE or name.startswith("_foreach")
    for tensor in strangers:
        if tensor.dim() or not numbers or (changed and tensor is args[0]):
            raise WAITS.fault(
                f"{function}: a tensor {tuple(tensor.shape)} on the cpu with one "
                f"{tuple(here[0].shape)} on {here[0].device}"
            )


def count(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Note what this operation of a device makes the host wait for."""
    if name in VALUES:
        arrive()
        WAITS.waited("item" if name == "_local_scalar_dense" else name)
    elif name in SIZES and kwargs.get("output_size") is None:
        arrive()
        WAITS.waited(name)
    elif name in CHECKED:
        arrive()
        WAITS.waited("check of a decomposition")
    elif name in INDEXED:
        masks = (torch.bool, torch.uint8)
        if any(isinstance(each, Tensor) and each.dtype in masks for each in tree_iter(args[1])):
            arrive()
            WAITS.waited("mask")


# Copies

ON_THE_WAY: list[tuple[Tensor, Tensor]] = []
"""What is being copied to pinned memory, and to where. Until the host waits, there is rubbish."""


def arrive() -> None:
    """The host waits: what was on its way is there."""
    while ON_THE_WAY:
        target, numbers = ON_THE_WAY.pop(0)
        target.copy_(numbers)


def send(target: Tensor, numbers: Tensor) -> None:
    """A copy from a device to pinned memory that nobody has waited for."""
    target.fill_(float("nan") if target.is_floating_point() else 85)
    ON_THE_WAY.append((target, numbers.clone()))


def copied(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """`to`: a new tensor, of another device or type."""
    [source] = args
    device = torch.device(kwargs.get("device") or source.device)
    index = None if device.type != "cuda" else position(device)
    result = function(*on_cpu(args, {}), **{**on_cpu(dict(kwargs), {}), "device": CPU})
    at_once = not kwargs.get("non_blocking", False)
    if isinstance(source, Simulated):
        if index is not None:
            return Simulated(result, index)
        if at_once:
            arrive()
            WAITS.waited("copy to the cpu")
            return result
        target = torch.empty_like(result, pin_memory=True)
        send(target, result)
        return target
    if index is None:
        return result
    if at_once or not source.is_pinned():
        arrive()
        WAITS.waited("copy from the cpu" + ("" if at_once else ", from memory not pinned"))
    return Simulated(result, index)


def overwritten(
    function: Any, target: Tensor, source: Tensor, non_blocking: bool = False
) -> Tensor:
    """`copy_`."""
    there, from_there = (isinstance(each, Simulated) for each in (target, source))
    inner, numbers = on_cpu((target, source), {})
    if from_there and not there and non_blocking and target.is_pinned():
        send(inner, numbers)
        return target
    if there != from_there and (not non_blocking or not (source if there else target).is_pinned()):
        arrive()
        WAITS.waited("copy from the cpu" if there else "copy to the cpu")
    function(inner, numbers)
    return target


# Random numbers


@contextlib.contextmanager
def drawn_from(
    index: int | None, generators: Sequence[torch.Generator], function: Any
) -> Iterator[dict[int, torch.Generator]]:
    """CPU generators in place of a device's, whose offsets move on as if they had been used."""
    random = torch.Tag.nondeterministic_seeded in function.tags
    if index is None or not random:
        yield {}
    elif generators:
        yield {id(each): on_its_behalf(each) for each in generators}
    else:
        torch.cuda.init()
        default, before = torch.random.default_generator, torch.get_rng_state()
        WAITS.devices.add(index)
        default.set_state(on_its_behalf(torch.cuda.default_generators[index]).get_state())
        try:
            yield {}
        finally:
            default.set_state(before)


def on_its_behalf(generator: torch.Generator) -> torch.Generator:
    """A CPU generator for one use of a device's."""
    offset = generator.get_offset()
    generator.set_offset(offset + 4)
    return torch.Generator().manual_seed((generator.initial_seed() + 7919 * offset) % 2**63)


# Operations that only a device has


def stand_in(function: Any, name: str) -> Callable[..., Any]:
    return {
        "cudnn_batch_norm": batch_norm,
        "cudnn_batch_norm_backward": batch_norm_backward,
        "cudnn_grid_sampler": grid_sampler,
        "cudnn_grid_sampler_backward": grid_sampler_backward,
    }.get(name, function)


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    epsilon: float,
) -> tuple[Tensor, ...]:
    normal = torch.ops.aten.native_batch_norm(
        x, weight, bias, mean, variance, training, momentum, epsilon
    )
    return (*normal, torch.empty(0, dtype=torch.uint8))


def batch_norm_backward(
    x: Tensor,
    gradient: Tensor,
    weight: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    saved_mean: Tensor,
    saved_inverse: Tensor,
    epsilon: float,
    reserved: Tensor,
) -> Any:
    return torch.ops.aten.native_batch_norm_backward(
        gradient, x, weight, mean, variance, saved_mean, saved_inverse, True, epsilon, [True] * 3
    )


def grid_sampler(x: Tensor, grid: Tensor) -> Tensor:
    return torch.ops.aten.grid_sampler_2d(x, grid, *BILINEAR)


def grid_sampler_backward(x: Tensor, grid: Tensor, gradient: Tensor) -> Any:
    return torch.ops.aten.grid_sampler_2d_backward(gradient, x, grid, *BILINEAR, [True, True])


BILINEAR = (0, 0, True)
"""Bilinear between pixels, black outside, corners aligned: all that cudnn's has."""


# torch itself


class WithoutGradients(torch.no_grad):
    """Inference mode: wrapped tensors know none, so it is `no_grad`, and does nothing if False."""

    def __init__(self, mode: bool = True):
        super().__init__()
        self.mode = mode

    def __new__(cls, mode: Any = True) -> Any:
        if callable(mode):  # a decorator without brackets
            return cls()(mode)
        return object.__new__(cls)

    def __enter__(self) -> None:
        self.prev = torch.is_grad_enabled()
        if self.mode:
            torch.set_grad_enabled(False)

    def clone(self) -> WithoutGradients:
        return WithoutGradients(self.mode)


def install() -> None:
    """Simulate CUDA in this process, for good. The library of built.py must be loaded."""
    importlib.import_module("torch._dynamo")  # it looks up what is replaced here
    torch.inference_mode = WithoutGradients  # type: ignore[misc, assignment]
    for name in ("tensor", "as_tensor", "asarray"):
        setattr(torch, name, moved(getattr(torch, name)))
    torch._has_compatible_shallow_copy_type = compatible  # type: ignore[assignment]
    torch.compile = uncompiled
    torch.nn.Module.compile = lambda self, *args, **kwargs: None  # type: ignore[method-assign]
    claim_attention_kernels()
    torch.cuda.synchronize = waiting("synchronize", torch.cuda.synchronize)
    for owner in (torch.cuda.Event, torch.cuda.Stream):
        owner.synchronize = waiting("synchronize", owner.synchronize)  # type: ignore[method-assign]
    torch.serialization.add_safe_globals([loaded])
    torch.load = loading(torch.load)
    Everywhere().__enter__()


def moved(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that makes a tensor of Python's numbers: on the CPU, and then it is copied."""

    def made(data: Any, *args: Any, **kwargs: Any) -> Tensor:
        device = kwargs.get("device")
        if device is None or torch.device(device).type != "cuda":
            return make(data, *args, **kwargs)
        if isinstance(data, Simulated):
            return make(data, *args, **{**kwargs, "device": data.device}).to(device)
        gradient = kwargs.pop("requires_grad", False)
        return make(data, *args, **{**kwargs, "device": "cpu"}).to(device).requires_grad_(gradient)

    return made


def compatible(one: Tensor, other: Tensor) -> bool:
    """Whether `Module.to` may put the second into the first: where they are one, or none is
    simulated. Elsewhere it makes new parameters, where on a GPU the old ones would move."""
    if isinstance(one, Simulated) or isinstance(other, Simulated):
        return one is other
    return shallow_copies(one, other)


shallow_copies = torch._has_compatible_shallow_copy_type


def uncompiled(model: Any = None, **options: Any) -> Any:
    return (lambda each: each) if model is None else model


def claim_attention_kernels() -> None:
    """Only torch's own mathematics can be computed; the switches of the others remember alone."""
    cuda = torch.backends.cuda
    claimed = {}
    for kernel in ("flash", "mem_efficient", "cudnn", "math"):
        getattr(cuda, f"enable_{kernel}_sdp")(kernel == "math")
        claimed[kernel] = True
        setattr(cuda, f"enable_{kernel}_sdp", functools.partial(claimed.__setitem__, kernel))
        setattr(cuda, f"{kernel}_sdp_enabled", functools.partial(claimed.__getitem__, kernel))


def waiting(what: str, wait: Callable[..., Any]) -> Callable[..., Any]:
    def waited(*args: Any, **kwargs: Any) -> Any:
        arrive()
        WAITS.waited(what)
        return wait(*args, **kwargs)

    return waited


def loading(load: Callable[..., Any]) -> Callable[..., Any]:
    """torch.load with a `map_location` that may be a device."""

    def loads(file: Any, map_location: Any = None, **options: Any) -> Any:
        content = load(file, map_location="cpu", **options)
        if map_location is None:
            return content
        return tree_map_only(Tensor, lambda tensor: tensor.to(map_location), content)

    return loads
