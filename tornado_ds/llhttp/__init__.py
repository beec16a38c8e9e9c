"""The internal listener: HTTP/1.1 on llhttp, with `/check-token` on the shortest way to the gate."""
