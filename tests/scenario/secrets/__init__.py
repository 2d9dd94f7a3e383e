"""A search for secrets in all that brokerd writes and says over a full life, and the proof that it finds them."""
