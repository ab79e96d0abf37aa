"""What reproduce.py is made of: the paper's tables, and the runs they need.

Authors
 * The speechbrain_kmdanet developers 2026
"""
