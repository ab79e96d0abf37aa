"""Loading a trained separator and separating with it."""
