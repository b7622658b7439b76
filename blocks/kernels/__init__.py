"""Kernels beside the plain torch forms: the same functions of the same tensors, chosen by ``kernel``."""
