"""Lists of mixtures, and mixtures made from them."""
