"""Nets and weights in other programs' formats."""
