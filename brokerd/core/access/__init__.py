"""Who may do what, and how much one user may ask for."""
