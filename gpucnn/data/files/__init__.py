"""Files of data sets: found, fetched, verified, unpacked."""
