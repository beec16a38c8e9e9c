"""How fast, and how calm under load: tornado_ds beside other ways to answer deepstream's webhook."""
