"""What judges music: measures on pieces and sets of pieces, and people's ears."""
