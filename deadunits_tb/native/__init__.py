"""Reductions in C, where a C compiler was at hand when the package was built. Nothing depends on them but speed."""
