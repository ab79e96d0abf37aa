"""What reproduce.py is made of: the paper's tables, and the runs they need."""
