"""Is it right?  Finite differences, and one backend beside another."""
