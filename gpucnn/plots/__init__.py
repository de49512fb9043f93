"""Pictures for people, drawn with matplotlib."""
