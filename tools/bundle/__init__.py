"""An offline install of the harness and a pin's CUDA build, for GPU hosts without a network.

    python -m tools.bundle --python 3.12 --pin 0.20.2 --out DIR --split 55M --have freeze.txt

`plan` decides which packages go in, `fill` makes the folder that they are installed into, `pack`
cuts it into parts with checksums. The parts, `SHA256SUMS` and `install.sh` are what travels.
"""
