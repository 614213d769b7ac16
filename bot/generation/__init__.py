"""Weights, language model, decoding and prompt. Knows nothing about documents."""

import os

# torch and faiss each bring an OpenMP runtime, and a pool that waits by spinning takes
# the cores from the other. Read once, when torch is first loaded, hence here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
