"""Files of data sets: where they are, downloads, verification, and the formats they have."""
