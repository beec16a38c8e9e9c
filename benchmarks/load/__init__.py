"""Ways to make load: wrk or autocannon for raw speed, our own client where every single answer matters."""
