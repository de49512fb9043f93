"""Puts this folder on the path: the samples are shared with the folders below."""
