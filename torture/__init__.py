"""What it takes: forged tokens, floods, faults and kills, and whether the promises hold."""
