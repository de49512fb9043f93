"""Correctness: gradients against finite differences, and one backend against another."""
