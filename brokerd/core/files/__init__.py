"""Files that hold tokens: what is written into them, and when."""
