"""Where models, tokenizers and data come from: one resolver per URI scheme, contents cached under digests, never under paths or times."""
