"""How providers speak: exchanges as generators. Pure; `recipes/*.toml` are data."""
