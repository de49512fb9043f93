"""Convolutions on the CPU: Winograd or direct."""
