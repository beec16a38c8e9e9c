"""Examines an installation as deepstream, browsers and an operator see it; asks and reads, and changes nothing."""
