"""What the subcommands of ``afarm`` do; `afarm.__main__` only parses and calls."""
