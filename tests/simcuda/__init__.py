"""CUDA devices that are not there, so that what fw does on a GPU is checked without one.

A library that is preloaded (cuda.c, built.py) makes the CUDA build of torch believe in some
devices. Tensors on them (device.py) say `cuda:1` and compute on the CPU; whatever torch would
refuse on a GPU is refused: devices and generators that do not fit together, `.numpy()`, and what
was copied to the CPU is read too early. What makes the host wait for a device is counted by file
and line (waits.py), and told apart by where it is: in a step of a training, between two calls of a
network in a sampler, or elsewhere.

    PYTHONPATH=tests python -m simcuda.run run tests/tiny.yaml --device cuda:1 --out OUT

runs fw so; `SIMCUDA_WAITS` names a file for what was found, a line for each stage.

It needs a C compiler and a CUDA build of torch. It is blind to speed, to memory, to what kernels
support, and to how TF32 and bf16 round; attention is torch's own mathematics, nothing is compiled,
and inference mode only switches gradients off.
"""
