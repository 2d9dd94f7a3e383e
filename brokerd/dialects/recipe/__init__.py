"""The recipe dialect: providers described by a TOML file."""
