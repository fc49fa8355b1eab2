"""Making the base model: which public music it reads, as what windows, by which recipe."""
