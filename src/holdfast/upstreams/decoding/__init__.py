"""What decoders are made of, whatever service they read."""
