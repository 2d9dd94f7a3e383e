"""The pure core: values and the functions over them. No trio, sockets, files, clock or randomness."""
