"""A run on disk: its settings, how it is built, its folder, its log, its state, how it is continued."""
